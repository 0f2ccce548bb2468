//! One run of a command: a process group of its own, as its user, with the line on its standard input, a clean
//! environment and nothing else of this agent. What it prints is kept up to a bound and thrown away beyond it.

use std::future::Future;
use std::io;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use super::prepared::Program;
use super::ran::Ran;
use super::secret::Secret;
use crate::host::child;
use crate::lifecycle::Event;
use crate::metrics::Outcome;

/// Where programs are looked for by a command that is a script.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What is kept of what a command prints.
const KEPT_BYTES: usize = 2048;
/// How long a command has between SIGTERM and SIGKILL.
const LAST_WORDS: Duration = Duration::from_millis(250);
/// How long what it printed is waited for once it has ended: others may hold its output open.
const DRAIN: Duration = Duration::from_millis(100);
/// How long the end of a killed process is waited for. One that hangs in the kernel is left to the runtime.
const BURIAL: Duration = Duration::from_secs(2);

/// Runs it until it ends by itself or `end` says how it is ended.
pub(super) async fn run(
    program: &Program,
    name: &str,
    event: &Event,
    secret: Option<&Secret>,
    end: impl Future<Output = Outcome>,
) -> Ran {
    let mut child = match spawn(program, name, event, secret) {
        Ok(child) => child,
        Err(error) => return Ran::failure(format!("it cannot be started: {error}")),
    };
    let printed = Printed::default();
    let reading = [
        child.stdout.take().map(|out| tokio::spawn(printed.clone().keep(out))),
        child.stderr.take().map(|err| tokio::spawn(printed.clone().keep(err))),
    ];
    let input = child.stdin.take();
    let group = child.id().map(|pid| Pid::from_raw(pid.cast_signed()));
    let own = async {
        if let Some(mut input) = input {
            // One that does not read has its own reasons.
            let _ = input.write_all(&event.line).await;
            let _ = input.write_all(b"\n").await;
        }
        child.wait().await
    };
    let (outcome, said) = tokio::select! {
        status = own => match status {
            Ok(status) if status.success() => (Outcome::Success, String::new()),
            Ok(status) => (Outcome::Failure, status.to_string()),
            Err(error) => (Outcome::Failure, format!("its end cannot be seen: {error}")),
        },
        outcome = end => (outcome, stop(&mut child, group).await),
    };
    for mut task in reading.into_iter().flatten() {
        if tokio::time::timeout(DRAIN, &mut task).await.is_err() {
            task.abort();
        }
    }
    Ran { outcome, said, printed: printed.taken(), again: true }
}

fn spawn(program: &Program, name: &str, event: &Event, secret: Option<&Secret>) -> io::Result<Child> {
    let (path, arguments) = program.words.split_first().ok_or_else(|| io::Error::other("no command"))?;
    let mut command = std::process::Command::new(path);
    command.args(arguments).current_dir("/").env_clear().env("PATH", PATH).env("LANG", "C.UTF-8");
    command.env("USER", &program.user.name).env("HOME", "/").env("KVMETER_HOOK", name);
    command.env("KVMETER_KIND", event.kind.as_str()).env("KVMETER_SEQ", event.seq.to_string());
    command.env("KVMETER_ID", &event.id).env("KVMETER_VM_ID", event.fact.vm_id.replace('\0', ""));
    if let Some(secret) = secret {
        command.env("KVMETER_SECRET", secret.reveal());
    }
    if let Some((uid, gid)) = program.user.ids {
        // Supplementary groups are dropped with it, because the agent is root here.
        command.uid(uid.as_raw()).gid(gid.as_raw());
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    child::confine(&mut command);
    Command::from(command).kill_on_drop(true).spawn()
}

/// Ends the whole group. Nobody has waited for its leader yet, so its number is nobody else's.
async fn stop(child: &mut Child, group: Option<Pid>) -> String {
    let send = |signal| match group.map_or(Err(Errno::ESRCH), |group| killpg(group, signal)) {
        Ok(()) | Err(Errno::ESRCH) => String::new(),
        Err(errno) => format!("its processes cannot be ended: {errno}"),
    };
    send(Signal::SIGTERM);
    tokio::time::sleep(LAST_WORDS).await;
    let said = send(Signal::SIGKILL);
    if tokio::time::timeout(BURIAL, child.wait()).await.is_err() {
        return format!("{said}; it does not end");
    }
    said
}

/// What it printed on both streams, in the order it came.
#[derive(Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl Printed {
    /// Reads to the end, so that the command is never held up, and keeps what has room.
    async fn keep(self, mut from: impl AsyncRead + Unpin) {
        let mut part = vec![0; 4096];
        while let Ok(read @ 1..) = from.read(&mut part).await {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let room = KEPT_BYTES - kept.len();
            kept.extend_from_slice(part.get(..read.min(room)).unwrap_or_default());
        }
    }

    fn taken(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

use std::os::unix::process::CommandExt as _;
