//! Taking something away from a real agent: kernel types, rights, devices, root; and what it then says is missing.
//!
//! A command put before the agent takes it away, or its configuration; where that is impossible the test is skipped.

use std::{ffi::OsString, os::unix::fs::chown, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    agent::{Agent, Setup},
    command::binary,
    skip::skipped,
};

const NOBODY: u32 = 65_534;

/// A way to take something away: the command put before the agent, and lines of its configuration.
#[derive(Debug)]
pub struct Loss {
    wrapper: Vec<OsString>,
    config: &'static str,
}

fn words(line: &[&str]) -> Vec<OsString> {
    line.iter().map(OsString::from).collect()
}

/// Runs the agent after a shell command in a mount namespace of its own.
fn with_mounts(command: &str) -> Loss {
    let script = format!("{command} && exec \"$@\"");
    Loss { wrapper: words(&["unshare", "-m", "sh", "-c", &script, "sh"]), config: "" }
}

/// The kernel has no BTF.
#[must_use]
pub fn without_btf() -> Loss {
    with_mounts("mount --bind /dev/null /sys/kernel/btf/vmlinux")
}

/// The agent may not load kernel programs.
#[must_use]
pub fn without_bpf_rights() -> Loss {
    Loss { wrapper: words(&["setpriv", "--bounding-set=-bpf,-sys_admin,-perfmon"]), config: "" }
}

/// There is no `/dev/kvm`.
#[must_use]
pub fn without_dev_kvm() -> Loss {
    with_mounts("mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3 && mknod -m 666 /dev/urandom c 1 9")
}

/// The agent is nobody.
#[must_use]
pub fn without_root() -> Loss {
    Loss { wrapper: words(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]), config: "" }
}

/// Kernel programs are switched off by configuration.
#[must_use]
pub fn switched_off() -> Loss {
    Loss { wrapper: Vec::new(), config: "[bpf]\nenabled = \"off\"\n" }
}

impl Loss {
    /// Whether it can be taken away here; else says why the test is skipped.
    #[must_use]
    pub fn possible(&self, test: &str) -> bool {
        let Some(program) = self.wrapper.first() else { return true };
        let works =
            Command::new(program).args(&self.wrapper[1..]).arg("true").output().is_ok_and(|o| o.status.success());
        if !works {
            skipped(test, &format!("{} does not work here", program.display()));
        }
        works
    }

    /// An agent that lacks it.
    pub fn agent(&self) -> Result<Agent> {
        let config = format!("{}[discovery]\nscan_interval = \"1s\"\n", self.config);
        // Whoever the agent is, its directory is its own.
        let dir = TempDir::new()?;
        chown(dir.path(), Some(NOBODY), Some(NOBODY))?;
        Agent::with(Setup { config, wrapper: self.wrapper.clone(), dir: Some(dir), pins: None })
    }

    /// `kvmeter doctor --json` without an agent: exit code and answer.
    pub fn doctor(&self) -> Result<(Option<i32>, Value)> {
        let dir = TempDir::new()?;
        chown(dir.path(), Some(NOBODY), Some(NOBODY))?;
        let config = dir.path().join("kvmeter.toml");
        let own =
            format!("socket = {:?}\ndata_dir = {:?}\n{}", dir.path().join("s"), dir.path().join("data"), self.config);
        std::fs::write(&config, own)?;
        let mut all = self.wrapper.clone();
        all.extend([binary()?.into(), "--config".into(), config.into(), "doctor".into(), "--json".into()]);
        let mut command = Command::new(&all[0]);
        command.args(&all[1..]).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let output = command.output()?;
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let answer =
            serde_json::from_slice(&output.stdout).with_context(|| format!("doctor: {}: {said}", output.status))?;
        Ok((output.status.code(), answer))
    }
}

/// A feature of doctor's or the status's answer.
pub fn feature<'a>(answer: &'a Value, name: &str) -> Result<&'a Value> {
    let mut features = answer["features"].as_array().into_iter().flatten();
    features.find(|f| f["name"] == name).with_context(|| format!("no feature {name}: {answer:#}"))
}

/// A feature that is not at work says why and what to do.
pub fn assert_missing(answer: &Value, name: &str) -> Result<()> {
    let feature = feature(answer, name)?;
    ensure!(feature["available"] == false, "{name} is missing and called available: {feature}");
    for key in ["why", "advice", "gives"] {
        ensure!(feature[key].as_str().is_some_and(|text| !text.is_empty()), "{name} does not say its {key}: {feature}");
    }
    Ok(())
}
