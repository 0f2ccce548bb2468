//! Another exporter on the same VMs: started with a configuration of its own, scraped, watched, and ended.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::http;

use crate::libvirt;

/// How long one may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running exporter, killed and reaped when dropped.
#[derive(Debug)]
pub struct Exporter {
    child: Child,
    port: u16,
    dir: TempDir,
}

impl Exporter {
    /// Debian's process-exporter, with a group for each test VM by its process id.
    pub fn of_processes(more: &[&str]) -> Result<Self> {
        // A group by pid is what keeps VMs apart; `comm` is what the kernel shows of the name.
        let config = "process_names:\n  - name: \"{{.Comm}}-{{.PID}}\"\n    comm:\n      - kvmeter-testvm\n";
        Self::start(Command::new("prometheus-process-exporter"), |command, dir, address| {
            let file = dir.path().join("config.yml");
            std::fs::write(&file, config)?;
            command.arg("-config.path").arg(file).args(["-web.listen-address", address, "-children=false"]).args(more);
            Ok(())
        })
    }

    /// Debian's libvirt-exporter, in the mount namespace of a libvirtd.
    pub fn of_libvirt(libvirtd: i32) -> Result<Self> {
        let command = libvirt::inside(libvirtd, "prometheus-libvirt-exporter");
        Self::start(command, |command, _dir, address| {
            command.arg(format!("--web.listen-address={address}"));
            Ok(())
        })
    }

    fn start(mut command: Command, prepare: impl Fn(&mut Command, &TempDir, &str) -> Result<()>) -> Result<Self> {
        let dir = TempDir::new()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        prepare(&mut command, &dir, &format!("127.0.0.1:{port}"))?;
        let log = File::create(dir.path().join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot run {}", command.get_program().display()))?;
        let mut this = Self { child, port, dir };
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = this.child.try_wait()? {
                bail!("the exporter ended at once ({status}): {}", this.log());
            }
            match this.scrape() {
                Ok(_) => return Ok(this),
                Err(error) if Instant::now() > end => return Err(error.context(this.log())),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(3)..].join(" ")
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// One scrape.
    pub fn scrape(&self) -> Result<String> {
        let (code, body) = http::get(TcpStream::connect(("127.0.0.1", self.port))?, "/metrics")?;
        if code != 200 {
            bail!("{code}: {}", body.lines().next().unwrap_or_default());
        }
        Ok(body)
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
