//! Files that say who a VM is, in the order of their weight: libvirt's state file, its definition, Proxmox VE's, the
//! VMM's own configuration file. A name on a command line leads to them and proves nothing: what libvirt or Proxmox says
//! is believed only of the process that its file names.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::beneath::{Beneath, Stamp};
use super::{ProcFs, file};
use crate::units::Tgid;
use crate::vm::identity::{Clues, Facts, config, domain, jail_id, proxmox};

/// Lines of `mountinfo` are looked at up to here.
const MAX_MOUNTINFO: u64 = 1 << 20;

/// Why a file that is there says nothing.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// It is no document of libvirt's.
    #[error("{path} is not libvirt's")]
    Domain {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: domain::DomainError,
    },
    /// It is no configuration of its VMM.
    #[error("{path} is no configuration file of its VMM")]
    Config {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: config::ConfigError,
    },
}

/// The states of the files that were looked for.
pub type Stamps = Vec<Option<Stamp>>;

/// What the files say.
#[derive(Debug, Default)]
pub struct Learned {
    /// All together, the weightiest first.
    pub facts: Facts,
    /// Whether a manager of the host says the memory as it is now, which outweighs the command line's.
    pub is_live: bool,
    /// The id that Firecracker's jailer gave.
    pub jail: Option<String>,
    /// In which state they were.
    pub stamps: Stamps,
    /// Files that are there and say nothing.
    pub errors: Vec<SourceError>,
}

/// The files of one process.
pub struct Sources<'a> {
    root: &'a Path,
    process: PathBuf,
    tgid: Tgid,
    clues: &'a Clues,
}

impl<'a> Sources<'a> {
    /// Those that the clues lead to.
    #[must_use]
    pub fn new(root: &'a Path, procfs: &ProcFs, tgid: Tgid, clues: &'a Clues) -> Self {
        Self { root, process: procfs.of(tgid), tgid, clues }
    }

    /// The files, each with the root it is looked for under.
    fn places(&self) -> Vec<(PathBuf, PathBuf)> {
        let mut places = Vec::new();
        let mut host = |path: String| places.push((self.root.to_owned(), PathBuf::from(path)));
        if let Some(name) = &self.clues.domain {
            host(format!("run/libvirt/qemu/{name}.xml"));
            host(format!("run/libvirt/qemu/{name}.pid"));
            host(format!("etc/libvirt/qemu/{name}.xml"));
        }
        if let Some(number) = self.clues.proxmox {
            host(format!("run/qemu-server/{number}.pid"));
            host(format!("etc/pve/qemu-server/{number}.conf"));
        }
        if let Some(config) = &self.clues.config {
            let path = Path::new(OsStr::from_bytes(&config.path));
            places.push((self.process.join(if path.is_absolute() { "root" } else { "cwd" }), path.to_owned()));
        }
        places
    }

    /// In which states the files are now.
    #[must_use]
    pub fn stamps(&self) -> Stamps {
        let stamp = |(root, path): (PathBuf, PathBuf)| Beneath::open(&root).ok()?.stamp(&path);
        self.places().into_iter().map(stamp).collect()
    }

    /// Reads them.
    #[must_use]
    pub fn read(&self) -> Learned {
        let mut learned = Learned { stamps: self.stamps(), ..Learned::default() };
        self.libvirt(&mut learned);
        self.proxmox(&mut learned);
        if let Some(config) = &self.clues.config
            && let Some((root, path)) = self.places().pop()
            && let Some(raw) = raw(&root, &path, &mut learned)
        {
            match config::parse(config.format, &raw) {
                Ok(facts) => learned.facts.fill(facts),
                Err(source) => learned.errors.push(SourceError::Config { path, source }),
            }
        }
        learned.jail = if self.clues.jail { self.jail() } else { None };
        learned
    }

    fn libvirt(&self, learned: &mut Learned) {
        let Some(name) = &self.clues.domain else { return };
        let mut domain = |path: String| {
            let path = PathBuf::from(path);
            let facts = domain::parse(&raw(self.root, &path, learned)?);
            let facts = facts.map_err(|source| learned.errors.push(SourceError::Domain { path, source })).ok()?;
            (facts.name == crate::vm::identity::text(name.as_bytes())).then_some(facts)
        };
        let state = domain(format!("run/libvirt/qemu/{name}.xml")).filter(|facts| facts.pid == Some(self.tgid.get()));
        // A definition names no process; libvirt's pid file beside it does.
        let defined = match &state {
            Some(_) => true,
            None => self.is_named_by(&format!("run/libvirt/qemu/{name}.pid")),
        };
        let definition = if defined { domain(format!("etc/libvirt/qemu/{name}.xml")) } else { None };
        learned.is_live = state.is_some();
        for facts in state.into_iter().chain(definition) {
            learned.facts.fill(facts);
        }
    }

    fn proxmox(&self, learned: &mut Learned) {
        let Some(number) = self.clues.proxmox else { return };
        if self.is_named_by(&format!("run/qemu-server/{number}.pid"))
            && let Some(raw) = raw(self.root, Path::new(&format!("etc/pve/qemu-server/{number}.conf")), learned)
        {
            learned.facts.fill(proxmox::parse(&raw, number));
        }
    }

    /// Whether a pid file names this process.
    fn is_named_by(&self, path: &str) -> bool {
        let raw = Beneath::open(self.root).and_then(|root| root.read(Path::new(path)));
        raw.is_ok_and(|(raw, _)| raw.trim_ascii() == self.tgid.to_string().as_bytes())
    }

    /// The id in the path of the root that the process has: as a chroot, else as the mount that it pivoted to.
    fn jail(&self) -> Option<String> {
        let root = std::fs::read_link(self.process.join("root")).ok()?;
        if root != Path::new("/") {
            return jail_id(root.to_str()?);
        }
        let (raw, _) = file::bytes(&self.process.join("mountinfo"), MAX_MOUNTINFO).ok()?;
        let raw = String::from_utf8(raw).ok()?;
        let fields = |line: &str| {
            let mut fields = line.split(' ').skip(3);
            Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
        };
        let mounted = raw.lines().filter_map(fields).rfind(|(_, point)| point == "/")?;
        jail_id(&mounted.0)
    }
}

/// A file's bytes; one that is not there is no error.
fn raw(root: &Path, path: &Path, learned: &mut Learned) -> Option<Vec<u8>> {
    match Beneath::open(root).and_then(|root| root.read(path)) {
        Ok((raw, _)) => Some(raw),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => {
            learned.errors.push(SourceError::Read { path: path.to_owned(), source });
            None
        }
    }
}

#[cfg(test)]
mod tests;
