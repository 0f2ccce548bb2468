//! libvirt's exporter on libvirt's VMs, beside the agent on the same ones; as far as libvirt runs here.
//!
//! libvirtd gets a mount namespace of its own with its own configuration, users and state, so that neither the host's
//! libvirt nor its files are touched, and what is made there is gone with it.

use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::agent::Agent;
use crate::skip::host;

use super::exporter::Exporter;
use super::fleet::scraped;
use super::scrape;
use super::table::{Row, Section};
use super::watch;
use super::{HOST_BUSY, Options};

/// How long libvirtd may take until it answers, and QEMU until it is a VM.
const PATIENCE: Duration = Duration::from_secs(60);

/// What libvirtd is to do without: users, security modules, cgroup controllers and a log daemon of its own.
const QEMU_CONF: &str = "user = \"root\"\ngroup = \"root\"\nsecurity_driver = \"none\"\ncgroup_controllers = [ ]\n\
    namespaces = [ ]\ndynamic_ownership = 0\nremember_owner = 0\nstdio_handler = \"file\"\n";
const LIBVIRTD_CONF: &str = "auth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\nunix_sock_group = \"root\"\n";

/// Makes the namespace libvirt's and becomes libvirtd; `$1` is a directory for its files. The QEMU driver wants a user
/// that Debian makes only with the whole of libvirt.
const WORLD: &str = r#"set -e
for file in passwd group; do cp "/etc/$file" "$1/$file"; done
grep -q '^libvirt-qemu:' "$1/passwd" || echo 'libvirt-qemu:x:0:0::/:/bin/false' >> "$1/passwd"
grep -q '^libvirt-qemu:' "$1/group" || echo 'libvirt-qemu:x:0:' >> "$1/group"
for file in passwd group; do mount --bind "$1/$file" "/etc/$file"; done
for place in /etc/libvirt /run/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt; do
    mkdir -p "$place"
    mount -t tmpfs tmpfs "$place"
done
cp "$1/qemu.conf" /etc/libvirt/
exec libvirtd -f "$1/libvirtd.conf" -p /run/libvirt/own.pid
"#;

/// The table.
pub fn section(options: &Options) -> Result<Section> {
    const TITLE: &str = "libvirt's exporter";
    let Some(_host) = host("libvirt's exporter") else { return Ok(Section::missing(TITLE, HOST_BUSY)) };
    let count = options.domains();
    // libvirt is no part of kvmeter: where it does not run, that is what the table says.
    let rows = compare(options, count)
        .unwrap_or_else(|error| vec![Row::missing(format!("libvirt-exporter, {count} VMs"), format!("{error:#}"))]);
    let method = format!(
        "{count} QEMU VMs made by libvirt (whose firmware runs: QEMU has no disk), scraped by `prometheus-libvirt-exporter`, \
         and by the agent. The exporter asks libvirtd, whose CPU is therefore added to its own."
    );
    Ok(Section { title: TITLE, method, rows })
}

fn compare(options: &Options, count: u32) -> Result<Vec<Row>> {
    let mut libvirt = Libvirt::start()?;
    for number in 0..count {
        libvirt.create(&format!("bench-{number}"))?;
    }
    let agent = Agent::start()?;
    agent.wait_until("libvirt's VMs", PATIENCE, |agent| {
        Ok(agent.metrics()?.all("kvmeter_vm_running", &[]).filter(|vm| vm.value == 1.0).count() >= count as usize)
    })?;
    let idle = |pids: &[i32]| {
        watch::during(pids, || {
            std::thread::sleep(options.window() / 6);
            Ok(())
        })
    };
    let pids = [agent.pid()];
    let ours = scrape::several(&pids, idle(&pids)?, options.scrapes(), "vm_id=", || agent.scrape())?;
    drop(agent);
    let exporter = Exporter::of_libvirt(libvirt.pid())?;
    let pids = [exporter.pid(), libvirt.pid()];
    let theirs = scrape::several(&pids, idle(&pids)?, options.scrapes(), "domain=", || exporter.scrape())?;
    let whose = format!("libvirt-exporter with libvirtd, {count} VMs");
    let mut rows = [scraped(&format!("agent, {count} VMs"), ours), scraped(&whose, theirs)].concat();
    rows.push(Row::new(format!("{whose}: CPU of a scrape over the agent's"), "×", theirs.over(&ours)));
    Ok(rows)
}

/// A libvirtd in its own world; its VMs and itself end when dropped.
struct Libvirt {
    child: Child,
    dir: TempDir,
    domains: Vec<String>,
}

impl Libvirt {
    fn start() -> Result<Self> {
        let dir = TempDir::new()?;
        std::fs::write(dir.path().join("qemu.conf"), QEMU_CONF)?;
        std::fs::write(dir.path().join("libvirtd.conf"), LIBVIRTD_CONF)?;
        let log = File::create(dir.path().join("log"))?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", WORLD, "libvirt"]).arg(dir.path());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().context("cannot run unshare")?;
        let mut this = Self { child, dir, domains: Vec::new() };
        let end = Instant::now() + PATIENCE;
        while this.virsh(&["list"]).is_err() {
            if let Some(status) = this.child.try_wait()? {
                bail!("libvirtd ended at once ({status}): {}", this.log());
            }
            if Instant::now() > end {
                bail!("libvirtd does not answer: {}", this.log());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(this)
    }

    fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        text.lines().rev().find(|line| line.contains("error")).unwrap_or("it says nothing").to_owned()
    }

    /// Makes a VM and starts it.
    fn create(&mut self, name: &str) -> Result<()> {
        let mut xml = String::new();
        // Without the two features PVM runs QEMU's guests; the others do not miss them.
        write!(
            xml,
            "<domain type='kvm'><name>{name}</name><memory unit='MiB'>16</memory><vcpu>1</vcpu>\
             <os><type machine='pc'>hvm</type></os><cpu mode='custom' match='exact' check='none'>\
             <model fallback='allow'>qemu64</model><feature policy='disable' name='cx16'/>\
             <feature policy='disable' name='pni'/></cpu><devices><controller type='usb' model='none'/>\
             <memballoon model='none'/></devices></domain>"
        )?;
        let file = self.dir.path().join(format!("{name}.xml"));
        std::fs::write(&file, xml)?;
        self.domains.push(name.to_owned());
        self.virsh(&["create", &file.to_string_lossy()])
    }

    fn virsh(&self, arguments: &[&str]) -> Result<()> {
        let mut command = inside(self.pid(), "virsh");
        let ran =
            command.args(["-q", "-c", "qemu:///system"]).args(arguments).output().context("cannot run nsenter")?;
        if !ran.status.success() {
            bail!("virsh {}: {}", arguments.join(" "), String::from_utf8_lossy(&ran.stderr).trim().replace('\n', " "));
        }
        Ok(())
    }
}

/// A command in the mount namespace of a process.
pub(super) fn inside(pid: i32, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--mount=/proc/{pid}/ns/mnt")).arg(program).stdin(Stdio::null());
    command
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        // QEMU outlives libvirtd, so each VM is ended by name first.
        for name in &self.domains {
            if let Err(error) = self.virsh(&["destroy", name]) {
                eprintln!("bench: {error:#}");
            }
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
