//! A disk with a cache that a power cut takes: what was written and not flushed since may be on it or not, in any
//! order, sector by sector. What was flushed, or written with "force unit access", is on it.
//!
//! The model is that of the ATA and NVMe commands: a flush makes durable what was answered before it came. Sectors of
//! 512 bytes are written whole or not at all; every smaller promise is one that a file system does not count on either.

use std::collections::BTreeMap;

use super::dice::Dice;

pub(crate) const SECTOR: usize = 512;

/// What becomes of the cache when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Nothing in it was written yet.
    All,
    /// All of it was.
    Nothing,
    /// It was written in order, up to some request.
    Rest,
    /// Some requests were written and others not, whatever their order.
    Requests,
    /// Some sectors were.
    Sectors,
}

impl Loss {
    pub(crate) const fn roll(dice: &mut Dice) -> Self {
        match dice.below(8) {
            0 => Self::All,
            1 => Self::Nothing,
            2 | 3 => Self::Rest,
            4 | 5 => Self::Requests,
            _more => Self::Sectors,
        }
    }
}

/// What a sector held after one request.
#[derive(Debug)]
struct Version {
    request: u64,
    bytes: Box<[u8]>,
}

#[derive(Debug)]
pub(crate) struct Disk {
    stable: Vec<u8>,
    /// By number of sector: what was written to it since it was stable, oldest first.
    cache: BTreeMap<usize, Vec<Version>>,
    requests: u64,
    /// Whether it answers flushes and does nothing, as some disks did that were sold.
    lies: bool,
}

impl Disk {
    pub(crate) const fn new(stable: Vec<u8>, lies: bool) -> Self {
        Self { stable, cache: BTreeMap::new(), requests: 0, lies }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.stable.len() as u64
    }

    /// Whether so many bytes at this place are whole sectors of it.
    pub(crate) fn has(&self, offset: usize, length: usize) -> bool {
        let whole = offset.is_multiple_of(SECTOR) && length.is_multiple_of(SECTOR);
        whole && offset.checked_add(length).is_some_and(|end| end <= self.stable.len())
    }

    /// What is read, cached or not; of whole sectors that are there.
    pub(crate) fn read(&self, offset: usize, length: usize) -> Vec<u8> {
        let mut bytes = self.stable[offset..offset + length].to_vec();
        let first = offset / SECTOR;
        for (sector, versions) in self.cache.range(first..first + length / SECTOR) {
            if let Some(newest) = versions.last() {
                let at = (sector - first) * SECTOR;
                bytes[at..at + SECTOR].copy_from_slice(&newest.bytes);
            }
        }
        bytes
    }

    /// Writes whole sectors that are there; `now` past the cache.
    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8], now: bool) {
        self.requests += 1;
        for (number, part) in bytes.chunks(SECTOR).enumerate() {
            let sector = offset / SECTOR + number;
            if now && !self.lies {
                self.cache.remove(&sector);
                self.stable[sector * SECTOR..][..part.len()].copy_from_slice(part);
            } else {
                let version = Version { request: self.requests, bytes: part.into() };
                self.cache.entry(sector).or_default().push(version);
            }
        }
    }

    pub(crate) fn flush(&mut self) {
        if self.lies {
            return;
        }
        for (sector, versions) in std::mem::take(&mut self.cache) {
            if let Some(newest) = versions.last() {
                self.stable[sector * SECTOR..][..SECTOR].copy_from_slice(&newest.bytes);
            }
        }
    }

    /// Sectors in the cache.
    pub(crate) fn cached(&self) -> usize {
        self.cache.len()
    }

    /// What is on it after the power went.
    pub(crate) fn cut(&self, loss: Loss, dice: &mut Dice) -> Vec<u8> {
        let mut image = self.stable.clone();
        let first = self.cache.values().flatten().map(|version| version.request).min().unwrap_or(0);
        let last = first + dice.below(self.requests.saturating_sub(first) + 1);
        let salt = dice.next();
        for (sector, versions) in &self.cache {
            let mut stays = |version: &&Version| match loss {
                Loss::All => false,
                Loss::Nothing => true,
                Loss::Rest => version.request <= last,
                Loss::Requests => Dice::new(salt ^ version.request).coin(),
                Loss::Sectors => dice.coin(),
            };
            // A sector has what was written to it last of all that was.
            if let Some(version) = versions.iter().rev().find(&mut stays) {
                image[sector * SECTOR..][..SECTOR].copy_from_slice(&version.bytes);
            }
        }
        image
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Loss; 5] = [Loss::All, Loss::Nothing, Loss::Rest, Loss::Requests, Loss::Sectors];

    fn sectors(of: &[u8]) -> Vec<u8> {
        of.iter().flat_map(|byte| [*byte; SECTOR]).collect()
    }

    fn first_bytes(image: &[u8]) -> Vec<u8> {
        image.chunks(SECTOR).map(|sector| sector[0]).collect()
    }

    #[test]
    fn what_was_flushed_or_forced_is_there_after_any_cut() {
        for (loss, seed) in ALL.into_iter().flat_map(|loss| (0..64).map(move |seed| (loss, seed))) {
            let mut disk = Disk::new(sectors(&[0; 4]), false);
            disk.write(0, &sectors(&[1, 1]), false);
            disk.flush();
            disk.write(2 * SECTOR, &sectors(&[2]), false);
            disk.write(2 * SECTOR, &sectors(&[3]), true);
            disk.write(SECTOR, &sectors(&[4]), false);
            assert_eq!(first_bytes(&disk.read(0, 4 * SECTOR)), [1, 4, 3, 0]);
            let cut = first_bytes(&disk.cut(loss, &mut Dice::new(seed)));
            assert!(cut == [1, 1, 3, 0] || cut == [1, 4, 3, 0], "{loss:?} {cut:?}");
        }
    }

    #[test]
    fn each_loss_leaves_what_its_name_says() {
        let mut disk = Disk::new(sectors(&[0; 4]), false);
        disk.write(0, &sectors(&[1, 1]), false);
        disk.write(2 * SECTOR, &sectors(&[2, 2]), false);
        disk.write(0, &sectors(&[3]), false);
        let seen = |loss| -> std::collections::BTreeSet<Vec<u8>> {
            (0..256).map(|seed| first_bytes(&disk.cut(loss, &mut Dice::new(seed)))).collect()
        };
        assert_eq!(seen(Loss::All), [vec![0; 4]].into());
        assert_eq!(seen(Loss::Nothing), [vec![3, 1, 2, 2]].into());
        assert_eq!(seen(Loss::Rest), [vec![1, 1, 0, 0], vec![1, 1, 2, 2], vec![3, 1, 2, 2]].into());
        // Three requests, two of which the first sector tells apart only by the later one.
        assert_eq!(seen(Loss::Requests).len(), 8);
        assert_eq!(seen(Loss::Sectors).len(), 3 * 2 * 2 * 2);
    }

    #[test]
    fn a_disk_that_lies_keeps_nothing() {
        let mut disk = Disk::new(sectors(&[0]), true);
        disk.write(0, &sectors(&[1]), true);
        disk.flush();
        assert_eq!(first_bytes(&disk.cut(Loss::All, &mut Dice::new(0))), [0]);
        assert_eq!(first_bytes(&disk.read(0, SECTOR)), [1]);
    }
}
