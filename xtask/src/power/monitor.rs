//! The emulator's monitor, as people use it: saves a machine to a file, from which other emulators go on.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// What the monitor says when it is ready for more.
const PROMPT: &[u8] = b"(qemu) ";
/// A quarter of a gigabyte is written meanwhile, on a busy host.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub(crate) struct Monitor(UnixStream);

impl Monitor {
    pub(crate) fn open(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).context("cannot reach the emulator's monitor")?;
        stream.set_read_timeout(Some(PATIENCE)).context("cannot set a time limit")?;
        let mut monitor = Self(stream);
        monitor.answer()?;
        Ok(monitor)
    }

    /// Saves the machine while it runs, and stops it; before it is at its end the emulator flushes its disk.
    pub(crate) fn save(&mut self, file: &Path) -> Result<()> {
        // Stopped before, it would have to be told to go on.
        self.tell("migrate_set_parameter max-bandwidth 8G")?;
        self.tell("migrate_set_parameter downtime-limit 5000")?;
        self.tell(&format!("migrate \"exec:cat > {}\"", file.display()))?;
        let said = self.tell("info migrate")?;
        ensure!(said.contains("Migration status: completed"), "the machine cannot be saved: {said}");
        Ok(())
    }

    fn tell(&mut self, command: &str) -> Result<String> {
        self.0.write_all(format!("{command}\n").as_bytes()).context("cannot write to the emulator's monitor")?;
        self.answer()
    }

    fn answer(&mut self) -> Result<String> {
        let (mut said, mut byte) = (Vec::new(), [0]);
        while !said.ends_with(PROMPT) {
            self.0.read_exact(&mut byte).context("the emulator's monitor says nothing")?;
            said.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&said).into_owned())
    }
}
