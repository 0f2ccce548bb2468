//! A test VM that does what a test tells it while it runs; `vmm::orders` is its end.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::vmm::spawn::TestVm;

/// Longer than any order takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running VM and the line to it.
#[derive(Debug)]
pub struct OrderedVm {
    /// The VM.
    pub vm: TestVm,
    answers: BufReader<UnixStream>,
    _dir: TempDir,
}

impl OrderedVm {
    /// Starts one.
    pub fn start(args: &[&str]) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("orders");
        let listener = UnixListener::bind(&path)?;
        let path = path.to_str().context("no text")?;
        let vm = TestVm::start(&[args, &["--orders", path]].concat())?;
        let (stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { vm, answers: BufReader::new(stream), _dir: dir })
    }

    /// Has something done, and waits until it is.
    pub fn order(&mut self, line: &str) -> Result<()> {
        self.send(&format!("{line}\n"))?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        ensure!(answer == "ok\n", "{line}: {answer:?}");
        Ok(())
    }

    /// Sends lines and waits for nothing.
    pub fn send(&mut self, lines: &str) -> Result<()> {
        Ok(self.answers.get_mut().write_all(lines.as_bytes())?)
    }
}
