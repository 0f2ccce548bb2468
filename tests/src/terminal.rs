//! A program at a terminal of its own: a pseudo-terminal, with an emulator that says what a person would see.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::Path,
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use nix::{
    pty::{Winsize, openpty},
    sys::{
        signal::{Signal, kill},
        termios::{Termios, tcgetattr},
    },
    unistd::Pid,
};

use crate::command::binary;

/// What came from the program.
struct Seen {
    emulator: vt100::Parser,
    bytes: Vec<u8>,
}

/// `kvmeter` at a terminal, killed and reaped when dropped.
pub struct Terminal {
    child: Child,
    master: File,
    before: Termios,
    seen: Arc<Mutex<Seen>>,
}

impl Terminal {
    /// Starts it at a terminal of this size, with `socket` as its agent's.
    pub fn start(socket: &Path, args: &[&str], lines: u16, columns: u16) -> Result<Self> {
        let size = Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None)?;
        let (master, slave) = (File::from(pair.master), File::from(pair.slave));
        let before = tcgetattr(&slave)?;
        // The terminal becomes the one that controls it, as after a login.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(binary()?).args(args).arg("--socket").arg(socket);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("TERM", "xterm-256color");
        let child = command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave).spawn()?;
        // Its copies of the terminal's end go with it, so that the last one is the program's.
        drop(command);
        let seen = Arc::new(Mutex::new(Seen { emulator: vt100::Parser::new(lines, columns, 0), bytes: Vec::new() }));
        let (mut from, into) = (master.try_clone()?, Arc::clone(&seen));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // An error is the end: nobody has the other side.
            while let Ok(count @ 1..) = from.read(&mut bytes) {
                let mut seen = into.lock().unwrap_or_else(PoisonError::into_inner);
                seen.emulator.process(&bytes[..count]);
                seen.bytes.extend_from_slice(&bytes[..count]);
            }
        });
        Ok(Self { child, master, before, seen })
    }

    fn with<T>(&self, of: impl FnOnce(&Seen) -> T) -> T {
        of(&self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The screen as it is now.
    #[must_use]
    pub fn text(&self) -> String {
        self.with(|seen| seen.emulator.screen().contents())
    }

    /// All that was sent to it.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.with(|seen| seen.bytes.clone())
    }

    /// Types.
    pub fn keys(&mut self, keys: &str) -> Result<()> {
        Ok(self.master.write_all(keys.as_bytes())?)
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id().cast_signed()), signal)?)
    }

    /// Waits until the screen is as `done` says.
    pub fn wait(&self, what: &str, done: impl Fn(&str) -> bool) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(60);
        while !done(&self.text()) {
            if Instant::now() > end {
                bail!("still waiting for {what}; the screen:\n{}", self.text());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits for the program's end, and for the terminal as it was: its modes, its first screen, its cursor.
    pub fn ended(&mut self) -> Result<ExitStatus> {
        let end = Instant::now() + Duration::from_secs(60);
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > end {
                bail!("it does not end; the screen:\n{}", self.text());
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let given_back =
            |seen: &Seen| !seen.emulator.screen().alternate_screen() && !seen.emulator.screen().hide_cursor();
        while !self.with(given_back) {
            if Instant::now() > end {
                bail!("{status}, and the terminal is not given back; the screen:\n{}", self.text());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        if tcgetattr(&self.master)? != self.before {
            bail!("{status}, and the terminal's modes are not what they were");
        }
        Ok(status)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
