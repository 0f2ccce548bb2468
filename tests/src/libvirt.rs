//! A libvirtd of its own for tests and measurements, with VMs that QEMU runs.
//!
//! libvirtd gets a mount namespace of its own with its own configuration, users and state, so that neither the host's
//! libvirt nor its files are touched, and what is made there is gone with it.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

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

/// A libvirtd in its own world; its VMs and itself end when dropped.
#[derive(Debug)]
pub struct Libvirt {
    child: Child,
    dir: TempDir,
    domains: Vec<String>,
}

impl Libvirt {
    /// Starts it and waits until it answers.
    pub fn start() -> Result<Self> {
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

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        text.lines().rev().find(|line| line.contains("error")).unwrap_or("it says nothing").to_owned()
    }

    /// Makes a VM of the smallest kind and starts it; its firmware runs.
    pub fn create(&mut self, name: &str) -> Result<()> {
        let size = "<memory unit='MiB'>16</memory><vcpu>1</vcpu>";
        self.create_of(name, &domain(name, size, "<memballoon model='none'/>", ""))
    }

    /// Makes a VM as this document describes it and starts it.
    pub fn create_of(&mut self, name: &str, xml: &str) -> Result<()> {
        let file = self.dir.path().join(format!("{name}.xml"));
        std::fs::write(&file, xml)?;
        self.domains.push(name.to_owned());
        self.virsh(&["create", &file.to_string_lossy()])
    }

    /// Writes a file that virsh can be told of.
    pub fn file(&self, name: &str, text: &str) -> Result<String> {
        let file = self.dir.path().join(name);
        std::fs::write(&file, text)?;
        Ok(file.to_string_lossy().into_owned())
    }

    /// The process of a VM, as libvirt's pid file says.
    pub fn vm_pid(&self, name: &str) -> Result<i32> {
        let output = inside(self.pid(), "cat").arg(format!("/run/libvirt/qemu/{name}.pid")).output()?;
        String::from_utf8_lossy(&output.stdout).trim().parse().context("libvirt has no pid file of it")
    }

    /// Runs a command of virsh.
    pub fn virsh(&self, arguments: &[&str]) -> Result<()> {
        let mut command = inside(self.pid(), "virsh");
        let ran =
            command.args(["-q", "-c", "qemu:///system"]).args(arguments).output().context("cannot run nsenter")?;
        if !ran.status.success() {
            bail!("virsh {}: {}", arguments.join(" "), String::from_utf8_lossy(&ran.stderr).trim().replace('\n', " "));
        }
        Ok(())
    }
}

/// A document of a VM of this size, with these devices and what else there is to say of its `<cpu>`.
#[must_use]
pub fn domain(name: &str, size: &str, devices: &str, cpu: &str) -> String {
    // Without the two features PVM runs QEMU's guests; the others do not miss them.
    format!(
        "<domain type='kvm'><name>{name}</name>{size}\
         <os><type machine='pc'>hvm</type></os><features><acpi/></features>\
         <cpu mode='custom' match='exact' check='none'>\
         <model fallback='allow'>qemu64</model><feature policy='disable' name='cx16'/>\
         <feature policy='disable' name='pni'/>{cpu}</cpu><devices><controller type='usb' model='none'/>\
         {devices}</devices></domain>"
    )
}

/// A command in the mount namespace of a process.
#[must_use]
pub fn inside(pid: i32, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--mount=/proc/{pid}/ns/mnt")).arg(program).stdin(Stdio::null());
    command
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        // QEMU outlives libvirtd, so each VM is ended by name first.
        for name in &self.domains {
            if let Err(error) = self.virsh(&["destroy", name]) {
                eprintln!("libvirt: {error:#}");
            }
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
