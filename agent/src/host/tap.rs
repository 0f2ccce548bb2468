//! Which taps and macvtaps a process holds, by its open files.
//!
//! The true namespace comes from the file itself where the kernel lets us ask (CAP_SYS_PTRACE, CAP_NET_ADMIN), else the
//! process's own is taken. Several files of one interface (queues, `dup`) are one; a file attached to none is nothing.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::ffi::OsStrExt,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use super::{
    NetNs, NetNsId, file,
    process::{ProcError, ProcFs},
    tun::PidFd,
};
use crate::{account::network::InterfaceKind, units::Tgid};

/// How many open files of one process are looked at.
const MAX_FDS: usize = 65_536;
/// Misc major and tun's minor (TUN_MINOR).
const TUN: (u64, u64) = (10, 200);
/// Bytes of a `fdinfo` that are read.
const MAX_FDINFO: u64 = 4 << 10;

/// One interface a process holds.
#[derive(Clone, Debug)]
pub struct HeldTap {
    /// Where it is.
    pub netns: NetNs,
    /// Its name when its file was asked; empty where only the index is known.
    pub name: String,
    /// Tap or macvtap.
    pub kind: InterfaceKind,
    /// Its index, where the file's name says it (macvtap).
    pub ifindex: Option<u32>,
    /// It outlives its files. A macvtap always does; `None` where nobody could be asked.
    pub persistent: Option<bool>,
}

/// What a process holds.
#[derive(Clone, Debug, Default)]
pub struct HeldTaps {
    /// One entry an interface.
    pub taps: Vec<HeldTap>,
    /// The files by their numbers, and what each stands for.
    pub files: Vec<(i32, HeldTap)>,
    /// Paths of other files that lead to a network device (vfio, vhost-vdpa).
    pub devices: Vec<PathBuf>,
    /// Files that were not looked at, or that refused to be asked.
    pub unseen: u32,
}

/// A file of interest: its number, the directory it was listed in, and the index its name tells (macvtap).
struct Candidate {
    fd: i32,
    listing: PathBuf,
    kind: InterfaceKind,
    ifindex: Option<u32>,
}

impl ProcFs {
    /// Whether the process has a tun or macvtap file open, without asking the file anything.
    #[must_use]
    pub fn has_tap_files(&self, tgid: Tgid) -> bool {
        self.candidates(tgid, &mut HeldTaps::default()).is_ok_and(|found| !found.is_empty())
    }

    /// The interfaces the process holds now; needs the right to trace it.
    ///
    /// `known` says what a file stands for if that is certain. Asking a file means to hold it for some microseconds, or
    /// for as long as the rtnl lock is taken; a process that closes it in that time has not let go of the interface yet,
    /// and whoever opens that next is told it is busy.
    ///
    /// # Errors
    /// [`ProcError`]; `Gone` once the process has let go of all its files. A file that is closed while we look is none.
    pub fn held_taps(&self, tgid: Tgid, known: &dyn Fn(i32) -> Option<HeldTap>) -> Result<HeldTaps, ProcError> {
        let mut held = HeldTaps::default();
        let candidates = self.candidates(tgid, &mut held)?;
        if candidates.is_empty() {
            return Ok(held);
        }
        let process = self.of(tgid);
        let own = fs::File::open(process.join("ns/net")).and_then(|file| NetNs::from_fd(file.into()));
        let own = own.map_err(|error| ProcError::of(error, &process))?;
        // Opened before the files are looked at: it cannot come to mean a successor with the same number.
        let pidfd = PidFd::open(tgid.get()).ok();
        let mut found: BTreeMap<(NetNsId, String, Option<u32>), HeldTap> = BTreeMap::new();
        for candidate in candidates {
            let asked = known(candidate.fd).map_or_else(|| candidate.ask(pidfd.as_ref(), &own), |tap| Ok(Some(tap)));
            match asked {
                Ok(Some(tap)) => {
                    held.files.push((candidate.fd, tap.clone()));
                    found.insert((tap.netns.id(), tap.name.clone(), tap.ifindex), tap);
                }
                Ok(None) => {}
                Err(_) => held.unseen = held.unseen.saturating_add(1),
            }
        }
        held.taps = found.into_values().collect();
        Ok(held)
    }

    /// A leader that ended before its process lets go of its file table, so the first listing with an entry counts.
    fn candidates(&self, tgid: Tgid, held: &mut HeldTaps) -> Result<Vec<Candidate>, ProcError> {
        let process = self.of(tgid);
        if let Some(found) = listing(&process, held)? {
            return Ok(found);
        }
        for tid in self.thread_ids(tgid)?.into_iter().filter(|tid| tid.get() != tgid.get()) {
            if let Ok(Some(found)) = listing(&process.join("task").join(tid.to_string()), held) {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }
}

/// The candidates of one listing; `None` if it lists nothing at all.
fn listing(owner: &Path, held: &mut HeldTaps) -> Result<Option<Vec<Candidate>>, ProcError> {
    let path = owner.join("fd");
    let (mut found, mut any) = (Vec::new(), false);
    for (seen, entry) in fs::read_dir(&path).map_err(|error| ProcError::of(error, &path))?.enumerate() {
        let entry = entry.map_err(|error| ProcError::of(error, &path))?;
        any = true;
        if seen >= MAX_FDS {
            held.unseen = held.unseen.saturating_add(1);
            continue;
        }
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let fd = entry.file_name().to_str().and_then(|fd| fd.parse().ok());
        if is_device(&target) {
            held.devices.push(target);
        } else if let (Some(fd), Some((kind, ifindex))) = (fd, classify(&target, &entry.path())) {
            found.push(Candidate { fd, listing: owner.to_owned(), kind, ifindex });
        }
    }
    Ok(any.then_some(found))
}

fn is_device(target: &Path) -> bool {
    let text = target.as_os_str().as_bytes();
    text.windows(10).any(|part| part == b"/dev/vfio/") || text.windows(15).any(|part| part == b"/dev/vhost-vdpa")
}

/// By the name first, since looking at any file may block (a dead network mount); then by the device's numbers, because
/// a jail has its own `/dev/net/tun` that we see under another path.
fn classify(target: &Path, link: &Path) -> Option<(InterfaceKind, Option<u32>)> {
    let name = target.file_name()?.to_str()?;
    // A jail may remove its node once it is open; proc then says so behind the name (d_path).
    let name = name.strip_suffix(" (deleted)").unwrap_or(name);
    let index = name.strip_prefix("tap").and_then(|digits| digits.parse::<u32>().ok());
    if name != "tun" && index.is_none() {
        return None;
    }
    let metadata = fs::metadata(link).ok()?;
    if !metadata.file_type().is_char_device() {
        return None;
    }
    let device = (nix::sys::stat::major(metadata.rdev()), nix::sys::stat::minor(metadata.rdev()));
    match index {
        None => (device == TUN).then_some((InterfaceKind::Tap, None)),
        Some(_) if device == TUN => Some((InterfaceKind::Tap, None)),
        Some(_) => Some((InterfaceKind::Macvtap, index)),
    }
}

impl Candidate {
    fn ask(&self, pidfd: Option<&PidFd>, own: &NetNs) -> io::Result<Option<HeldTap>> {
        let tap = |name: String, netns: NetNs, persistent: Option<bool>| HeldTap {
            netns,
            name,
            kind: self.kind,
            ifindex: self.ifindex,
            persistent: if self.kind == InterfaceKind::Macvtap { Some(true) } else { persistent },
        };
        match pidfd.map(|process| process.tun(self.fd)) {
            Some(Ok(None)) => Ok(None),
            Some(Ok(Some(file))) => {
                Ok(Some(tap(file.name, file.netns.unwrap_or_else(|| own.clone()), Some(file.persistent))))
            }
            // Not permitted, or a leader that has ended: what the kernel writes about the file is the next best.
            Some(Err(_)) | None => {
                let (raw, _) = file::bytes(&self.listing.join("fdinfo").join(self.fd.to_string()), MAX_FDINFO)?;
                let name = interface_name(&raw);
                if name.is_none() && self.ifindex.is_none() {
                    return Ok(None);
                }
                Ok(Some(tap(name.unwrap_or_default(), own.clone(), None)))
            }
        }
    }
}

/// The line `iff:` (`tun_chr_show_fdinfo`); absent or empty without an interface.
fn interface_name(fdinfo: &[u8]) -> Option<String> {
    let line = fdinfo.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"iff:"))?;
    let name = String::from_utf8_lossy(line.trim_ascii()).into_owned();
    // tun_chr_show_fdinfo zeroes the request, so a file without an interface shows an empty name.
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
pub(crate) mod rig;
#[cfg(test)]
mod tests;
