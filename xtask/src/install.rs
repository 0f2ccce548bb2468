//! The distribution's packages: which ones, and installing them.
//!
//! Refuses to guess: a package is asked for only if the package manager knows it in a version that will do. Says what
//! needs root, uses sudo where the caller is not root, and never lets apt remove anything.

use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::Command;
use std::sync::Once;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use crate::workspace::{on_path, output, shown};

mod qemu;

/// Package lists older than this are fetched again before something is installed.
const LISTS_STAY_FRESH: Duration = Duration::from_secs(24 * 3600);
const OLDEST_RUST_MINOR: u32 = 95;

/// A program that tests use, and the packages that have it: Debian's and Ubuntu's, then Fedora's and RHEL's.
const FOR_TESTS: [(&str, &str, &str); 11] = [
    ("qemu-system-x86_64", "qemu-system-x86", "qemu-system-x86-core"),
    ("qemu-img", "qemu-utils", "qemu-img"),
    ("libvirtd", "libvirt-daemon", "libvirt-daemon-kvm"),
    ("virsh", "libvirt-clients", "libvirt-client"),
    ("promtool", "prometheus", "golang-github-prometheus"),
    ("prometheus", "prometheus", "golang-github-prometheus"),
    ("ip", "iproute2", "iproute"),
    ("bpftool", "bpftool", "bpftool"),
    ("strace", "strace", "strace"),
    ("nats-server", "nats-server", "nats-server"),
    ("chromium", "chromium", "chromium"),
];

/// What `bench` compares with, in the same way.
const FOR_BENCH: [(&str, &str, &str); 6] = [
    ("bpftrace", "bpftrace", "bpftrace"),
    ("prometheus-process-exporter", "prometheus-process-exporter", "process-exporter"),
    ("prometheus-libvirt-exporter", "prometheus-libvirt-exporter", "libvirt-exporter"),
    ("libvirtd", "libvirt-daemon", "libvirt-daemon-kvm"),
    ("virsh", "libvirt-clients", "libvirt-client"),
    ("qemu-system-x86_64", "qemu-system-x86", "qemu-system-x86-core"),
];

/// A program, or a file, that booting other kernels takes, and the package that has it: they are Debian's, so is apt.
const FOR_KERNELS: [(&str, &str); 6] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("debugfs", "e2fsprogs"),
    ("dpkg-deb", "dpkg"),
    ("xz", "xz-utils"),
    ("zstd", "zstd"),
    (crate::kernels::KEYRING, "debian-archive-keyring"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manager {
    Apt,
    Dnf,
}

fn manager() -> Result<Manager> {
    match (on_path("apt-get"), on_path("dnf")) {
        (Some(_), _) => Ok(Manager::Apt),
        (None, Some(_)) => Ok(Manager::Dnf),
        (None, None) => bail!("packages are installed with apt-get or dnf, and neither is here"),
    }
}

/// The distribution's Rust with the sources of `core`.
pub(crate) fn rust() -> Result<()> {
    match manager()? {
        Manager::Apt => match rust_family()? {
            Some(family) => install("the distribution's Rust with its sources", &family),
            None => bail!("apt knows no Rust 1.{OLDEST_RUST_MINOR} or later"),
        },
        Manager::Dnf => {
            install("the distribution's Rust with its sources", &words(&["rust", "rust-src", "cargo", "clippy", "gcc"]))
        }
    }
}

/// Clippy for the distribution's Rust.
pub(crate) fn clippy() -> Result<()> {
    match manager()? {
        Manager::Apt => match rust_family()?.and_then(|family| family.last().cloned()) {
            Some(package) => install("clippy for the kernel programs", &[package]),
            None => bail!("apt knows no clippy for a Rust 1.{OLDEST_RUST_MINOR} or later"),
        },
        Manager::Dnf => install("clippy for the kernel programs", &words(&["clippy"])),
    }
}

/// npm, which brings what the page is drawn with.
pub(crate) fn npm() -> Result<()> {
    manager().and_then(|_| install("npm, which brings what the page is drawn with", &words(&["npm"])))
}

/// The development files of one LLVM of these versions, the oldest that there is.
pub(crate) fn llvm(versions: RangeInclusive<u32>) -> Result<()> {
    let why = "LLVM's development files, which bpf-linker is built with";
    if manager()? == Manager::Dnf {
        return install(why, &words(&["llvm-devel", "zlib-devel", "libzstd-devel", "libxml2-devel", "gcc"]));
    }
    refresh_if_old()?;
    let Some(major) = versions.clone().find(|major| candidate(&format!("llvm-{major}-dev")).is_some()) else {
        bail!("apt knows no LLVM {} to {}", versions.start(), versions.end());
    };
    let own = [format!("llvm-{major}-dev"), format!("libpolly-{major}-dev")];
    let more = words(&["zlib1g-dev", "libzstd-dev", "libxml2-dev", "gcc", "libc6-dev"]);
    install(why, &[own.as_slice(), more.as_slice()].concat())
}

/// What the tests use beside cargo. A test whose program is not to be had is skipped, and says so.
pub(crate) fn for_tests() {
    let missing: Vec<_> = FOR_TESTS.iter().filter(|(program, _, _)| on_path(program).is_none()).collect();
    if missing.is_empty() {
        return;
    }
    let Ok(manager) = manager() else {
        println!("setup: {} cannot be installed here; tests that use them will be skipped", listed(&missing));
        return;
    };
    let mut packages: Vec<_> =
        missing.iter().map(|(_, apt, dnf)| if manager == Manager::Apt { *apt } else { *dnf }.to_owned()).collect();
    packages.dedup();
    if let Err(error) = install("what the tests use", &packages) {
        println!("setup: {error:#}; tests that use {} will be skipped", listed(&missing));
    }
}

/// What the benchmark compares with, one by one: what is not to be had is told in the table, and the rest is measured.
pub(crate) fn for_bench() {
    for (program, apt, dnf) in FOR_BENCH.iter().filter(|(program, _, _)| on_path(program).is_none()) {
        let package = manager().map(|manager| if manager == Manager::Apt { *apt } else { *dnf });
        let why = format!("{program}, which the benchmark compares with");
        if let Err(error) = package.and_then(|package| install(&why, &words(&[package]))) {
            println!("setup: {error:#}; the benchmark will say that {program} is not here");
        }
    }
}

/// What booting other kernels takes beside cargo.
pub(crate) fn for_kernels() -> Result<()> {
    let here = |what: &str| if what.starts_with('/') { Path::new(what).is_file() } else { on_path(what).is_some() };
    let missing: Vec<_> = FOR_KERNELS.iter().filter(|(what, _)| !here(what)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if manager()? != Manager::Apt {
        bail!("Debian's kernels are fetched with apt, which is not here: install {}", missing.join(", "));
    }
    install("what boots other kernels", &words(&missing))
}

fn listed(programs: &[&(&str, &str, &str)]) -> String {
    let names: Vec<_> = programs.iter().map(|(program, _, _)| *program).collect();
    names.join(", ")
}

/// The packages of one apt Rust that is new enough, clippy last: Debian's for browsers, the plain one, Ubuntu's.
fn rust_family() -> Result<Option<Vec<String>>> {
    refresh_if_old()?;
    let web = words(&["rustc-web", "rust-web-src", "cargo-web", "rust-web-clippy"]);
    let plain = words(&["rustc", "rust-src", "cargo", "rust-clippy"]);
    let versioned = output(Command::new("apt-cache").args(["search", "--names-only", "^rustc-1\\.[0-9]+$"]));
    let versioned = versioned.unwrap_or_default();
    let newest =
        versioned.split_whitespace().filter_map(|word| word.strip_prefix("rustc-1.")?.parse::<u32>().ok()).max();
    let numbered = newest.map(|minor| {
        ["rustc-1.N", "rust-1.N-src", "cargo-1.N", "rust-1.N-clippy"]
            .map(|name| name.replace('N', &minor.to_string()))
            .to_vec()
    });
    let new_enough =
        |family: &Vec<String>| candidate(&family[0]).and_then(|version| minor(&version)) >= Some(OLDEST_RUST_MINOR);
    Ok([Some(web), Some(plain), numbered].into_iter().flatten().find(new_enough))
}

/// The minor release in a package version such as `1.96.0+dfsg1-1` or `2:1.96.0`.
fn minor(version: &str) -> Option<u32> {
    let upstream = version.rsplit_once(':').map_or(version, |(_, upstream)| upstream);
    upstream.strip_prefix("1.")?.split('.').next()?.parse().ok()
}

/// The version of a package that apt would install.
fn candidate(package: &str) -> Option<String> {
    let policy = output(Command::new("apt-cache").args(["policy", package]))?;
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

fn install(why: &str, packages: &[String]) -> Result<()> {
    let mut command = match manager()? {
        Manager::Apt => {
            refresh_if_old()?;
            let options =
                ["install", "-y", "-q", "--no-install-recommends", "--no-remove", "-o", "DPkg::Lock::Timeout=300"];
            as_root(why, "apt-get", &[words(&options), qemu::with_its_tools(packages)].concat())?
        }
        Manager::Dnf => as_root(why, "dnf", &[&words(&["install", "-y", "-q"]), packages].concat())?,
    };
    println!("setup: installing {why}: {}", packages.join(" "));
    quietly(&mut command, &format!("installing {why}"))
}

/// Fetches apt's package lists, once, unless that was done not long ago.
fn refresh_if_old() -> Result<()> {
    static DONE: Once = Once::new();
    if DONE.is_completed() || lists_are_fresh() {
        return Ok(());
    }
    DONE.call_once(|| ());
    let mut command = as_root("fetching the package lists", "apt-get", &words(&["update", "-q"]))?;
    println!("setup: fetching the package lists");
    // Lists that could be fetched in part may still know what is wanted; installing will tell.
    if let Err(error) = quietly(&mut command, "fetching the package lists") {
        println!("setup: {error:#}");
    }
    Ok(())
}

fn lists_are_fresh() -> bool {
    let lists = Path::new("/var/lib/apt/lists");
    let known = fs::read_dir(lists).is_ok_and(|mut list| {
        list.any(|entry| entry.is_ok_and(|entry| entry.file_name().to_string_lossy().contains("Packages")))
    });
    // A download passes through `partial`, so its directory remembers the last update that brought anything.
    let ages = [lists.to_path_buf(), lists.join("partial")]
        .map(|path| fs::metadata(path).ok()?.modified().ok()?.elapsed().ok());
    known && ages.into_iter().flatten().any(|age| age < LISTS_STAY_FRESH)
}

/// Runs a command whose hundreds of lines matter only if it fails.
fn quietly(command: &mut Command, purpose: &str) -> Result<()> {
    let ran = command.output().with_context(|| format!("{purpose}: cannot run {}", shown(command)))?;
    if !ran.status.success() {
        let said = [ran.stdout, ran.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        let lines: Vec<_> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(15)..].join("\n");
        bail!("{purpose} failed: {} ended with {}:\n{last}", shown(command), ran.status);
    }
    Ok(())
}

/// The command as root: as it is, or through sudo. Says so, for a password may be asked for.
fn as_root(why: &str, program: &str, arguments: &[String]) -> Result<Command> {
    let mut plain = Command::new(program);
    plain.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    if geteuid().is_root() {
        return Ok(plain);
    }
    if on_path("sudo").is_none() {
        bail!("{why} needs root, and there is no sudo here: run {} as root, then this again", shown(&plain));
    }
    println!("setup: {why} needs root; using sudo");
    let mut command = Command::new("sudo");
    command.args(["env", "DEBIAN_FRONTEND=noninteractive", program]).args(arguments);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minor_release_is_read_from_package_versions() {
        assert_eq!(minor("1.96.0+dfsg1-1~deb12u2"), Some(96));
        assert_eq!(minor("2:1.97.0-1"), Some(97));
        assert_eq!(minor("0.5"), None);
    }
}
