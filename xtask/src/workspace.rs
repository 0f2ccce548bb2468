//! Where things are, and how xtask runs other programs.
//!
//! Owns the paths under the workspace root and `target/`. Commands inherit the terminal; one that fails is named in
//! the error with what it was for.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// What `cargo run` and rustup put into xtask's environment and no other program should take for its own.
const OF_CARGO_RUN: [&str; 4] = ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_PKG_NAME", "CARGO_PKG_VERSION"];

/// A cargo profile that xtask builds with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Dev,
    Release,
}

/// The checked-out project.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    /// Where cargo puts what it builds; `target/` unless `CARGO_TARGET_DIR` says otherwise.
    output: PathBuf,
}

impl Workspace {
    pub(crate) fn find() -> Result<Self> {
        let xtask =
            env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = xtask.parent().context("xtask's package has no directory above it")?.to_path_buf();
        let output = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |given| root.join(given));
        Ok(Self { root, output })
    }

    /// A path under `target/`, which keeps everything that xtask installs and writes.
    pub(crate) fn target(&self, name: &str) -> PathBuf {
        self.root.join("target").join(name)
    }

    /// A program that cargo has built.
    pub(crate) fn binary(&self, profile: Profile, name: &str) -> PathBuf {
        let directory = match profile {
            Profile::Dev => "debug",
            Profile::Release => "release",
        };
        self.output.join(directory).join(name)
    }

    /// The cargo that runs xtask, in the workspace root.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root);
        for name in OF_CARGO_RUN {
            command.env_remove(name);
        }
        command
    }

    /// Builds the agent and the test VM.
    pub(crate) fn build(&self, profile: Profile) -> Result<()> {
        let mut command = self.cargo();
        command.args(["build", "--package", "kvmeter", "--package", "kvmeter-tests", "--bins"]);
        if profile == Profile::Release {
            command.arg("--release");
        }
        run(&mut command, "building the agent and the test VM")
    }
}

/// Runs a command to its end on this terminal.
pub(crate) fn run(command: &mut Command, purpose: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("{purpose}: cannot run {}", shown(command)))?;
    if !status.success() {
        bail!("{purpose} failed: {} ended with {status}", shown(command));
    }
    Ok(())
}

/// What a command prints, if it succeeds.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let ran = command.output().ok()?;
    ran.status.success().then(|| String::from_utf8_lossy(&ran.stdout).into_owned())
}

/// A program on the PATH.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    // Debian leaves the sbin directories out of a user's PATH, but that is where `ip` and others are.
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(more).map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// The command line, as far as a reader needs it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    let line: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    format!("`{}`", line.join(" "))
}

/// The text with a path under the root made relative.
pub(crate) fn relative<'a>(root: &Path, path: &'a Path) -> &'a Path {
    path.strip_prefix(root).unwrap_or(path)
}
