//! Tables and links that outlive the agent, in a bpffs: the programs go on counting while none runs.
//!
//! Owns the pins of one ledger and the order in which they change, so that an agent killed anywhere leaves something the
//! next one can go on with: a layout has its name only once it is whole, and one word in the tables says whose
//! programs count. Refuses tables that do not look as this agent's object declares them.

mod error;
mod look;
#[cfg(test)]
pub(crate) mod rig;
mod shape;
pub(super) mod tree;

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    maps::{Array, Map, MapData},
    programs::links::FdLink,
};
use kvmeter_common::{ABI_VERSION, header::Header};

use super::{maps::Mapped, network, object::Sizes, slots::Slots};
pub use error::PinError;
pub use look::{Pinned, Released, look, possible, release, release_ledger};
use shape::{CURRENT, HEADER, Layout, SECTIONS, Shape, TABLES};

/// The pins of one ledger.
pub struct Pins {
    ledger: PathBuf,
    layout: Layout,
    /// Where pins go now: under another name until they are whole.
    dir: PathBuf,
    /// The generation of the tables that were there, if any were.
    before: Option<u16>,
    /// The generation of this agent's programs.
    generation: u16,
    /// Whether tables of another layout were let go.
    closed: bool,
    header: Option<Mapped<Header>>,
}

impl Pins {
    /// Looks for what an earlier agent left for this ledger, and lets go what nobody can go on with.
    ///
    /// # Errors
    /// When the directory is on no bpffs or cannot be used. Nothing is pinned then.
    pub fn open(pin_dir: &Path, ledger: &str, sizes: Sizes) -> Result<Self, PinError> {
        let ledger = pin_dir.join(ledger);
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| PinError::Path { path, source }
        };
        if !tree::is_bpffs(&ledger).map_err(at(&ledger))? {
            return Err(PinError::NoBpffs(pin_dir.to_owned()));
        }
        let layout = Layout::of(sizes)?;
        let version = ledger.join(format!("v{ABI_VERSION}"));
        let whole = version.join(layout.digest());
        let mut pins =
            Self { dir: whole.clone(), ledger, layout, before: None, generation: 1, closed: false, header: None };
        tree::make(&version).map_err(at(&version))?;
        if whole.is_dir() {
            match pins.check() {
                Ok(generation) => {
                    pins.before = Some(generation);
                    pins.generation = generation.checked_add(1).unwrap_or(1);
                }
                Err(error) => tracing::warn!(error = %crate::cause::chain(&error), "pinned tables are let go"),
            }
        }
        pins.clear().map_err(at(&pins.ledger))?;
        if pins.before.is_none() {
            pins.dir = version.join(tree::MAKING);
            tree::make(&pins.dir).map_err(at(&pins.dir))?;
        }
        Ok(pins)
    }

    /// Whether an earlier agent's tables are there to go on with.
    #[must_use]
    pub fn found(&self) -> bool {
        self.before.is_some()
    }

    /// Whether tables were there that this agent cannot go on with.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.closed
    }

    /// The same after tables that were found turned out to be of no use.
    pub(super) fn after_others(self) -> Self {
        Self { closed: true, ..self }
    }

    /// The generation of this agent's programs.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation.into()
    }

    /// Where it all lies.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where what counts at interfaces lies.
    pub(super) fn network_dir(&self) -> PathBuf {
        tree::network_dir(&self.dir)
    }

    /// The generation that counts into the tables found, once each of them was looked at.
    fn check(&self) -> Result<u16, PinError> {
        for (name, due) in self.layout.each() {
            let path = self.dir.join(name);
            if Shape::told(&open(&path)?)? != due {
                return Err(PinError::Other(path));
            }
        }
        let path = self.dir.join("CURRENT");
        let current: Array<MapData, u32> = typed(open(&path)?, &path)?;
        let number = current.get(&0, 0).map_err(|error| PinError::Map(Box::new(error)))?;
        u16::try_from(number).ok().filter(|number| *number != 0).ok_or(PinError::Other(path))
    }

    /// Removes whatever of this ledger is not to be gone on with.
    fn clear(&mut self) -> io::Result<()> {
        for layout in tree::layouts(&self.ledger)? {
            if self.before.is_none() || layout != self.dir {
                self.closed = true;
                tree::remove(&layout)?;
            }
        }
        for version in tree::list(&self.ledger)? {
            tree::remove(&version.join(tree::MAKING))?;
            if !self.dir.starts_with(&version) {
                tree::remove(&version)?;
            }
        }
        Ok(())
    }

    /// Tables that the loader is to take instead of making them: their names in the object, and where they are.
    pub(super) fn tables(&self) -> impl Iterator<Item = (&'static str, PathBuf)> + '_ {
        TABLES.into_iter().filter(|_| self.found()).map(|name| (name, self.dir.join(name)))
    }

    /// Joins a freshly loaded object, whose programs are not loaded yet, to the tables that were found, or pins its own.
    pub(super) fn join(&mut self, ebpf: &mut Ebpf) -> Result<(), PinError> {
        for (section, pin) in SECTIONS {
            let map = ebpf.map(section).ok_or_else(|| PinError::NoMap(section.to_owned()))?;
            if self.found() {
                replace(data(map, section)?, &open(&self.dir.join(pin))?)?;
            } else {
                self.pin_map(data(map, section)?, pin)?;
            }
        }
        if self.found() {
            return self.take_header(open(&self.dir.join(HEADER))?);
        }
        for name in TABLES {
            let map = ebpf.map(name).ok_or_else(|| PinError::NoMap(name.to_owned()))?;
            let path = self.dir.join(name);
            map.pin(&path).map_err(|source| PinError::Pin { path, source: Box::new(source) })?;
        }
        let header = shape::make_header()?;
        self.pin_map(&header, HEADER)?;
        self.take_header(header)
    }

    fn pin_map(&self, map: &MapData, name: &str) -> Result<(), PinError> {
        let path = self.dir.join(name);
        map.pin(&path).map_err(|source| PinError::Pin { path, source: Box::new(source) })
    }

    fn take_header(&mut self, map: MapData) -> Result<(), PinError> {
        let map = Map::from_map_data(map).map_err(|error| PinError::Map(Box::new(error)))?;
        self.header = Some(Mapped::new(Some(map), HEADER, 1)?);
        Ok(())
    }

    /// Removes what a generation left that was killed while it came or went.
    pub(super) fn sweep(&self, slots: &mut Slots) -> Result<(), PinError> {
        match self.before {
            Some(before) => self.drop_others(before, slots),
            None => Ok(()),
        }
    }

    /// Pins a link of this agent's programs.
    pub(super) fn pin_link(&self, program: &str, link: FdLink) -> Result<FdLink, PinError> {
        let dir = tree::generation_dir(&self.dir, self.generation);
        tree::make(&dir).map_err(|source| PinError::Path { path: dir.clone(), source })?;
        let path = dir.join(program);
        link.pin(&path).map(FdLink::from).map_err(|source| PinError::Pin { path, source: Box::new(source) })
    }

    /// This agent's programs are on their hooks: they count from now on, and those before them go. Tables made anew get
    /// their name; `now_ns` is since when they count.
    pub(super) fn settle(&mut self, ebpf: &mut Ebpf, slots: &mut Slots, now_ns: u64) -> Result<(), PinError> {
        if self.found() {
            set_current(ebpf, self.generation())?;
            return self.drop_others(self.generation, slots);
        }
        if let Some(header) = &mut self.header {
            header.set(0, Header { since_ns: now_ns, read_ns: now_ns, ..Header::default() });
        }
        let whole = self.dir.with_file_name(self.layout.digest());
        std::fs::rename(&self.dir, &whole).map_err(|source| PinError::Path { path: whole.clone(), source })?;
        self.dir = whole;
        Ok(())
    }

    /// Takes off all programs but those of the generation that counts. What the others were about to leave of an event
    /// is waited for and settled first: they must not be told apart from later ones by it.
    fn drop_others(&self, current: u16, slots: &mut Slots) -> Result<(), PinError> {
        let at = |source| PinError::Path { path: self.dir.clone(), source };
        let others = tree::other_generations(&self.dir, current).map_err(at)?;
        if others.is_empty() {
            return Ok(());
        }
        network::wait_for_programs().map_err(at)?;
        slots.settle_marks(current);
        for dir in others {
            tree::remove(&dir).map_err(at)?;
        }
        Ok(())
    }

    /// What earlier agents left beside the tables.
    #[must_use]
    pub fn header(&self) -> Header {
        self.header.as_ref().and_then(|header| header.get(0)).unwrap_or_default()
    }

    /// Leaves word that the tables were read, and what was lost until then.
    pub(super) fn note(&mut self, now_ns: u64, losses: impl Iterator<Item = u64>) {
        let Some(header) = &mut self.header else { return };
        let first = std::mem::offset_of!(Header, losses);
        for (place, count) in losses.enumerate().take(kvmeter_common::loss::STAGES.len()) {
            header.put_u64(0, first + place * size_of::<u64>(), count);
        }
        header.put_u64(0, std::mem::offset_of!(Header, read_ns), now_ns);
    }

    /// Lets all of it go: nobody could read what would be counted.
    pub(super) fn remove(self) {
        if let Err(error) = tree::remove(&self.ledger) {
            tracing::warn!(%error, dir = %self.ledger.display(), "pins cannot be removed");
        }
    }
}

/// Says which generation of programs counts.
pub(super) fn set_current(ebpf: &mut Ebpf, generation: u32) -> Result<(), PinError> {
    let map = ebpf.map_mut(CURRENT).ok_or_else(|| PinError::NoMap(CURRENT.to_owned()))?;
    let mut current: Array<_, u32> = Array::try_from(map).map_err(|error| PinError::Map(Box::new(error)))?;
    current.set(0, generation, 0).map_err(|error| PinError::Map(Box::new(error)))
}

fn open(path: &Path) -> Result<MapData, PinError> {
    MapData::from_pin(path).map_err(|error| PinError::Map(Box::new(error)))
}

fn typed<T: TryFrom<Map>>(map: MapData, path: &Path) -> Result<T, PinError> {
    let map = Map::from_map_data(map).map_err(|error| PinError::Map(Box::new(error)))?;
    T::try_from(map).map_err(|_| PinError::Other(path.to_owned()))
}

/// The map behind a section.
fn data<'a>(map: &'a Map, section: &str) -> Result<&'a MapData, PinError> {
    match map {
        Map::Array(map) => Ok(map),
        _ => Err(PinError::NoMap(section.to_owned())),
    }
}

/// Puts a pinned map behind the descriptor of one that the loader has made. Programs name their maps by descriptors
/// until they are loaded, and the loader writes zeroes into a data map that it is given, so this is the moment.
fn replace(made: &MapData, pinned: &MapData) -> Result<(), PinError> {
    let (from, to) = (pinned.fd().as_fd().as_raw_fd(), made.fd().as_fd().as_raw_fd());
    // SAFETY: both are open and ours; `to` stays owned by `made` and is closed by it once.
    let answer = unsafe { libc::dup3(from, to, libc::O_CLOEXEC) };
    if answer < 0 { Err(PinError::Swap(io::Error::last_os_error())) } else { Ok(()) }
}
