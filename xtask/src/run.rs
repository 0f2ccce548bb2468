//! `cargo xtask run`: an agent to try out, and with `--demo` test VMs for it to meter.
//!
//! Builds as the user and starts itself through sudo for the rest. Then there are two of it: the one in front waits for
//! Ctrl-C, SIGTERM or the end; the other (`stage`) has the agent and the VMs, and ends them in order once its standard
//! input is closed. So they are also ended if the one in front is killed.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use crate::RunArgs;
use crate::setup::{self, Needs};
use crate::workspace::{Profile, Workspace, on_path};
use crate::{signals, stage};

/// `cargo xtask run`.
pub(crate) fn run(workspace: &Workspace, args: &RunArgs) -> Result<()> {
    let profile = if args.release { Profile::Release } else { Profile::Dev };
    if args.stage {
        signals::release()?;
        return stage::perform(workspace, args, profile);
    }
    if !args.built {
        setup::prepare(workspace, Needs::default())?;
        workspace.build(profile)?;
    }
    if geteuid().is_root() { in_front() } else { again_as_root() }
}

/// This program with its own arguments and one more, which comes right after `run`.
fn again(program: &mut Command, with: &str) {
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    arguments.insert(1, with.into());
    program.args(arguments);
}

/// Replaces this program by the same one under sudo, which the agent and the VMs then inherit.
fn again_as_root() -> Result<()> {
    if on_path("sudo").is_none() {
        bail!("the agent needs root to load its kernel programs, and there is no sudo here: run this as root");
    }
    println!("run: the agent needs root to load its kernel programs; using sudo");
    let mut sudo = Command::new("sudo");
    sudo.arg("-E").arg(std::env::current_exe().context("cannot tell which program this is")?);
    again(&mut sudo, "--built");
    Err(sudo.exec()).context("cannot run sudo")
}

/// Starts the stage and passes on the wish to end.
fn in_front() -> Result<()> {
    let caught = signals::catch()?;
    let mut command = Command::new(std::env::current_exe().context("cannot tell which program this is")?);
    again(&mut command, "--stage");
    // A group of its own: Ctrl-C at the terminal reaches only the program in front.
    let mut child = command.stdin(Stdio::piped()).process_group(0).spawn().context("cannot start xtask again")?;
    loop {
        if signals::readable(&caught, Duration::from_millis(200)) {
            drop(child.stdin.take());
            break;
        }
        if child.try_wait().context("cannot wait for the stage")?.is_some() {
            break;
        }
    }
    let status = child.wait().context("cannot wait for the stage")?;
    if !status.success() {
        bail!("run ended with {status}; what it said is above");
    }
    Ok(())
}
