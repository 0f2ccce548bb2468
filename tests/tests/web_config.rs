//! Law: over TCP only who is let in by the web configuration is answered, and what it says is heeded as soon as it changes;
//! a broken one changes nothing. The Unix socket is the operator's.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use kvmeter_tests::{
    agent::Agent,
    command::binary,
    http,
    secure::{Ca, Files, TLS, ask, basic, ca, client, connect, issue, secured, speaking},
    skip::{host, installed},
};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio_rustls::rustls::{self, version::TLS12};

const PATIENCE: Duration = Duration::from_secs(60);
/// What crypt(3) makes of "s3cret".
const SECRET: &str = "$2y$04$QzWDVsvJ0nLGj6s9WvdYC.YOVQfl2G8b8DkBRiIrpbH/K3e/jFaBi";

/// Until a new connection's answer is as `good` says. What has changed is seen at a later connection.
fn until(agent: &Agent, what: &str, mut good: impl FnMut() -> Result<bool>) -> Result<()> {
    agent.wait_until(what, PATIENCE, |_| good())
}

#[test]
fn metrics_are_scraped_over_tls_and_in_plain_words_they_are_not() -> Result<()> {
    let Some(_host) = host("metrics_are_scraped_over_tls_and_in_plain_words_they_are_not") else { return Ok(()) };
    let (ca, files) = (ca()?, Files::new()?);
    files.certify(&ca, "localhost")?;
    files.put("web.yml", &format!("{TLS}  min_version: TLS12\n"))?;
    files.put("ca.crt", &ca.pem())?;
    let agent = files.agent()?;
    let said = ask(secured(&agent, client(&ca, None)?, "localhost")?, "/metrics", "")?;
    ensure!(said.starts_with("HTTP/1.1 200") && said.contains("kvmeter_build_info"), "{said}");
    if installed("curl") {
        let out = Command::new("curl")
            .args(["-sS", "--compressed", "--cacert"])
            .arg(files.at("ca.crt"))
            .arg(format!("https://localhost:{}/metrics", agent.port()))
            .env_clear()
            .output()?;
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        ensure!(out.status.success() && said.contains("kvmeter_build_info"), "{out:?}");
    }
    let plain = http::get(connect(&agent)?, "/metrics");
    ensure!(plain.is_err(), "{plain:?}");
    let strangers = ask(secured(&agent, client(&kvmeter_tests::secure::ca()?, None)?, "localhost")?, "/metrics", "");
    ensure!(strangers.is_err(), "{strangers:?}");
    // An agent that is asked for encryption by silence alone still serves its operator.
    ensure!(agent.get("/healthz")?.0 == 200);
    Ok(())
}

#[test]
fn who_shows_no_certificate_or_a_strangers_is_not_answered() -> Result<()> {
    let Some(_host) = host("who_shows_no_certificate_or_a_strangers_is_not_answered") else { return Ok(()) };
    let (ca, others, files) = (ca()?, ca()?, Files::new()?);
    files.certify(&ca, "localhost")?;
    files.put("clients.crt", &ca.pem())?;
    let asked = "  client_ca_file: clients.crt\n  client_auth_type: RequireAndVerifyClientCert\n";
    files.put("web.yml", &format!("{TLS}{asked}"))?;
    let agent = files.agent()?;
    let (own, strange) = (issue(&ca, "prometheus")?, issue(&others, "prometheus")?);
    let said = ask(secured(&agent, client(&ca, Some(&own))?, "localhost")?, "/metrics", "")?;
    ensure!(said.starts_with("HTTP/1.1 200"), "{said}");
    for wrong in [None, Some(&strange)] {
        let said = ask(secured(&agent, client(&ca, wrong)?, "localhost")?, "/metrics", "");
        ensure!(said.is_err(), "{wrong:?}: {said:?}");
    }
    Ok(())
}

#[test]
fn a_new_certificate_is_shown_without_a_restart_and_a_broken_one_is_not() -> Result<()> {
    let Some(_host) = host("a_new_certificate_is_shown_without_a_restart_and_a_broken_one_is_not") else {
        return Ok(());
    };
    let (before, after, files) = (ca()?, ca()?, Files::new()?);
    files.certify(&before, "localhost")?;
    files.put("web.yml", TLS)?;
    let agent = files.agent()?;
    let answered = |ca: &Ca| -> Result<bool> {
        let said = ask(secured(&agent, client(ca, None)?, "localhost")?, "/healthz", "");
        Ok(said.is_ok_and(|said| said.starts_with("HTTP/1.1 200")))
    };
    ensure!(answered(&before)? && !answered(&after)?);
    // A key that is not the certificate's, as it is between two writes: told of, and not taken over.
    files.put("server.crt", &issue(&after, "localhost")?.0)?;
    until(&agent, "the mistake to be told", || {
        ensure!(answered(&before)?, "the old one stays in force");
        Ok(agent.log().contains("the web configuration was not reloaded"))
    })?;
    files.certify(&after, "localhost")?;
    until(&agent, "the new certificate", || answered(&after))?;
    ensure!(!answered(&before)?);
    // The same by signal, of the file itself.
    for (broken, told) in [("tls_server_config: [", "YAML"), ("", "no longer asks for TLS"), ("tsl: {}", "tsl")] {
        files.put("web.yml", broken)?;
        agent.signal(Signal::SIGHUP)?;
        until(&agent, told, || Ok(agent.log().contains(told)))?;
        ensure!(answered(&after)?, "the old one stays in force");
    }
    Ok(())
}

#[test]
fn only_who_knows_a_password_is_answered_and_the_list_is_heeded_as_it_changes() -> Result<()> {
    let Some(_host) = host("only_who_knows_a_password_is_answered_and_the_list_is_heeded_as_it_changes") else {
        return Ok(());
    };
    let files = Files::new()?;
    let headers = "http_server_config:\n  headers:\n    X-Frame-Options: deny\n";
    files.put("web.yml", &format!("{headers}basic_auth_users:\n  alice: {SECRET}\n"))?;
    let agent = files.agent()?;
    let code = |words: &str| -> Result<String> {
        let said = ask(connect(&agent)?, "/metrics", &if words.is_empty() { String::new() } else { basic(words) })?;
        ensure!(said.to_lowercase().contains("x-frame-options: deny"), "{said}");
        Ok(said[9..12].to_owned())
    };
    for words in ["alice:s3cret", "alice:s3cret"] {
        ensure!(code(words)? == "200", "{words}");
    }
    for words in ["", "alice:wrong", "alice:", "bob:s3cret", "alice:wrong"] {
        ensure!(code(words)? == "401", "{words}");
    }
    let answer = http::request(connect(&agent)?, "GET", "/v1/vms")?;
    answer.problem(401)?;
    ensure!(answer.header("www-authenticate").is_some_and(|asked| asked.starts_with("Basic ")), "{}", answer.head);
    ensure!(agent.get("/metrics")?.0 == 200, "nobody is asked on the socket");
    // Many guess at once; who is known does not wait for them.
    std::thread::scope(|scope| -> Result<()> {
        for client in 0..16 {
            let agent = &agent;
            scope.spawn(move || {
                for guess in 0..20 {
                    let _ =
                        connect(agent).and_then(|it| ask(it, "/metrics", &basic(&format!("alice:{client}-{guess}"))));
                }
            });
        }
        for _ in 0..20 {
            ensure!(code("alice:s3cret")? == "200");
        }
        Ok(())
    })?;
    files.put("web.yml", &format!("{headers}basic_auth_users:\n  bob: {SECRET}\n"))?;
    until(&agent, "the new list", || Ok(code("bob:s3cret")? == "200"))?;
    ensure!(code("alice:s3cret")? == "401", "who is no longer on it is not answered");
    files.put("web.yml", "")?;
    agent.signal(Signal::SIGHUP)?;
    until(&agent, "the refusal", || Ok(agent.log().contains("no longer asks for passwords")))?;
    ensure!(code("")? == "401", "an emptied file opens nothing");
    Ok(())
}

#[test]
fn a_web_configuration_that_cannot_be_honoured_starts_nothing() -> Result<()> {
    let files = Files::new()?;
    files.certify(&ca()?, "localhost")?;
    let dir = TempDir::new()?;
    let config = dir.path().join("kvmeter.toml");
    let lines = |web: &Path| {
        let (socket, data) = (dir.path().join("s"), dir.path().join("d"));
        format!("listen = \"off\"\nsocket = {socket:?}\ndata_dir = {data:?}\nweb_config = {web:?}\n")
    };
    fs::write(&config, lines(&files.path()))?;
    for (text, told) in [
        (None, "web.yml"),
        (Some("http_server_config: {http2: true}"), "http2"),
        (Some("tls_server_config: {cert_file: none.crt, key_file: server.key}"), "none.crt"),
        (Some("tls_server_config: {cert_file: server.key, key_file: server.key}"), "cert_file"),
        (Some("tls_server_config: {cert_file: server.crt, key_file: server.crt}"), "key_file"),
        (Some("tls_server_config: {cert_file: server.crt, key_file: server.key, min_version: TLS10}"), "TLS10"),
        (Some("basic_auth_users: {alice: s3cret}"), "alice"),
    ] {
        if let Some(text) = text {
            files.put("web.yml", text)?;
        }
        for command in [&["config", "check"][..], &["run"]] {
            let mut started = Command::new(binary()?);
            let started = started.env_clear().args(command).arg("--config").arg(&config).stdin(Stdio::null());
            let out = started.output().context("no kvmeter")?;
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            ensure!(
                out.status.code() == Some(2) && said.contains(told),
                "{text:?} {command:?}: {:?} {said}",
                out.status
            );
            ensure!(!said.contains("s3cret"), "{said}");
        }
    }
    files.put(
        "web.yml",
        &format!("{TLS}  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]\n  curve_preferences: [X25519]\n"),
    )?;
    let out = Command::new(binary()?).env_clear().args(["config", "check", "--config"]).arg(&config).output()?;
    ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}

#[test]
fn old_protocols_are_not_spoken_when_the_newest_is_asked_for() -> Result<()> {
    let Some(_host) = host("old_protocols_are_not_spoken_when_the_newest_is_asked_for") else { return Ok(()) };
    let (ca, files) = (ca()?, Files::new()?);
    files.certify(&ca, "localhost")?;
    files.put("web.yml", &format!("{TLS}  min_version: TLS13\n"))?;
    let agent = files.agent()?;
    let old = speaking(&[&TLS12], &ca, None)?;
    let refused = ask(secured(&agent, old, "localhost")?, "/healthz", "");
    let version = |error: &anyhow::Error| {
        let inner = error.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref()?.downcast_ref());
        matches!(inner, Some(rustls::Error::AlertReceived(rustls::AlertDescription::ProtocolVersion)))
    };
    ensure!(refused.as_ref().is_err_and(version), "{refused:?}");
    let new = ask(secured(&agent, client(&ca, None)?, "localhost")?, "/healthz", "")?;
    ensure!(new.starts_with("HTTP/1.1 200"), "{new}");
    Ok(())
}
