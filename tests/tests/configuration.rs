//! Law: every mistake in file and environment is reported at once with its place, before anything is touched; the flag
//! goes before the variable, the variable before the file.

use anyhow::{Context as _, Result};
use kvmeter_tests::command::{code, err, fed, kvmeter, with_env};
use tempfile::TempDir;

#[test]
fn config_check_reports_every_mistake_at_once_with_its_line() -> Result<()> {
    let mistakes = "listen = \"nowhere\"\nsample_intervall = \"1s\"\nsample_interval = \"1ms\"\nsocket = 7\n\
        [ledger]\nheartbeat = \"1 parsec\"\nmax_file = \"lots\"\n[metrics]\nlinger = -1\n[log]\nlevel = \"loud\"\n[nonsense]\nx = 1\n";
    let output = fed(&["config", "check", "/dev/stdin"], mistakes.as_bytes())?;
    code(&output, 2)?;
    let said = err(&output);
    for (line, what) in [
        (1, "listen"),
        (2, "sample_intervall"),
        (3, "sample_interval"),
        (4, "socket"),
        (6, "ledger.heartbeat"),
        (7, "ledger.max_file"),
        (9, "metrics.linger"),
        (11, "log.level"),
        (12, "nonsense"),
    ] {
        let place = format!("/dev/stdin:{line}: {what}");
        assert!(said.contains(&place), "no {place} in:\n{said}");
    }
    assert!(said.contains("did you mean \"sample_interval\"?"), "{said}");
    assert!(output.stdout.is_empty());
    let broken = fed(&["config", "check", "/dev/stdin"], b"listen = [\n")?;
    code(&broken, 2)?;
    code(&kvmeter(&["config", "check", "/nonexistent/kvmeter.toml"])?, 2)?;
    // The agent says the same before it touches anything.
    let dir = TempDir::new()?;
    let config = dir.path().join("kvmeter.toml");
    std::fs::write(&config, format!("data_dir = {:?}\nsample_interval = \"never\"\n", dir.path().join("data")))?;
    let run = kvmeter(&["run", "--config", config.to_str().context("no text")?])?;
    code(&run, 2)?;
    assert!(err(&run).contains("sample_interval") && !dir.path().join("data").exists(), "{}", err(&run));
    Ok(())
}

#[test]
fn the_default_configuration_is_a_good_one() -> Result<()> {
    let default = kvmeter(&["config", "default"])?;
    code(&default, 0)?;
    let checked = fed(&["config", "check", "/dev/stdin"], &default.stdout)?;
    code(&checked, 0)?;
    assert!(checked.stderr.is_empty(), "without a warning: {}", err(&checked));
    Ok(())
}

#[test]
fn an_unknown_variable_is_a_mistake_and_a_known_one_goes_before_the_file() -> Result<()> {
    let unknown = with_env(&["config", "check"], &[("KVMETER_FOO", "1")])?;
    code(&unknown, 2)?;
    assert!(err(&unknown).contains("KVMETER_FOO"), "{}", err(&unknown));
    let close = with_env(&["config", "check"], &[("KVMETER_LEDGER__HEARTBEET", "1s")])?;
    code(&close, 2)?;
    assert!(err(&close).contains("KVMETER_LEDGER__HEARTBEAT"), "it names the nearest: {}", err(&close));
    let two = with_env(&["config", "check"], &[("KVMETER_SAMPLE_INTERVAL", "x"), ("KVMETER_BPF__MAX_VMS", "many")])?;
    code(&two, 2)?;
    assert!(
        err(&two).contains("KVMETER_SAMPLE_INTERVAL") && err(&two).contains("KVMETER_BPF__MAX_VMS"),
        "{}",
        err(&two)
    );
    let dir = TempDir::new()?;
    let (file, variable) = (dir.path().join("file.sock"), dir.path().join("variable.sock"));
    let config = dir.path().join("kvmeter.toml");
    std::fs::write(&config, format!("socket = {file:?}\n"))?;
    let config = config.to_str().context("no text")?;
    let env = [("KVMETER_SOCKET", variable.to_str().context("no text")?)];
    for (args, env, asked) in [
        (&["--config", config, "vms"][..], &[][..], "file.sock"),
        (&["--config", config, "vms"], &env, "variable.sock"),
        (&["--config", config, "--socket", "/flag.sock", "vms"], &env, "/flag.sock"),
    ] {
        let output = with_env(args, env)?;
        code(&output, 1)?;
        assert!(err(&output).contains(asked), "{asked}: {}", err(&output));
    }
    Ok(())
}
