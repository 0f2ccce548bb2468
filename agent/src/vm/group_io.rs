//! What a VM's control groups count of it, whatever becomes of the groups: each keeps its own beginning and its own last
//! reading, so that one that is removed takes nothing away, and one that is older than the VM brings nothing along.
//!
//! Pure but for the files it is given. A group may have served another VM before, and no kernel tells a group's age: so
//! what it had counted when it was first looked at is left out, with the little that was this VM's. A group that comes
//! below one that is the VM's already is counted whole. What a removed group counted after its last reading is lost.

use std::{io, path::PathBuf};

use crate::{
    account::GroupTold,
    host::disk::group::{GroupIo, GroupIoFile, GroupIoFiles, GroupReading},
};

/// One VM's groups.
#[derive(Debug)]
pub struct GroupCount {
    source: &'static str,
    top: PathBuf,
    /// Counted in groups that were left or removed.
    left: Option<GroupIo>,
    groups: Vec<Counted>,
    since_ns: u64,
}

/// One group.
#[derive(Debug)]
struct Counted {
    file: GroupIoFile,
    growth: Growth,
}

/// How much one group's count has grown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Growth {
    /// What was another's, or told already.
    base: GroupIo,
    /// The last reading; `None` as long as nothing was counted.
    last: Option<GroupIo>,
    /// It was removed.
    gone: bool,
}

impl Growth {
    fn take(&mut self, reading: GroupReading) {
        match reading {
            GroupReading::Counted(io) => self.last = Some(io),
            GroupReading::Uncounted => {}
            GroupReading::Gone => self.gone = true,
        }
    }

    fn io(&self) -> Option<GroupIo> {
        self.last.map(|last| GroupIo {
            read_bytes: last.read_bytes.saturating_sub(self.base.read_bytes),
            written_bytes: last.written_bytes.saturating_sub(self.base.written_bytes),
        })
    }
}

/// `None` is "not measured", and stays so only if both are.
fn sum(a: Option<GroupIo>, b: Option<GroupIo>) -> Option<GroupIo> {
    let (Some(x), Some(y)) = (a, b) else { return a.or(b) };
    Some(GroupIo {
        read_bytes: x.read_bytes.saturating_add(y.read_bytes),
        written_bytes: x.written_bytes.saturating_add(y.written_bytes),
    })
}

impl Counted {
    /// A group that may be older than what is counted in it.
    fn older(file: GroupIoFile) -> io::Result<Self> {
        let mut growth = Growth::default();
        growth.take(file.read()?);
        growth.base = growth.last.unwrap_or_default();
        Ok(Self { file, growth })
    }

    fn younger(file: GroupIoFile) -> Self {
        Self { file, growth: Growth::default() }
    }
}

impl GroupCount {
    /// Begins at `now_ns`; `before` is what was told so far, and since when.
    ///
    /// # Errors
    /// If a group cannot be read.
    pub fn begin(files: GroupIoFiles, before: Option<(GroupIo, u64)>, now_ns: u64) -> io::Result<Self> {
        Ok(Self {
            source: files.source,
            top: files.top,
            left: before.map(|(io, _)| io),
            groups: files.files.into_iter().map(Counted::older).collect::<io::Result<_>>()?,
            since_ns: before.map_or(now_ns, |(_, since_ns)| since_ns),
        })
    }

    /// Takes the groups that the VM has now, in place of those before.
    ///
    /// # Errors
    /// If a new one cannot be read.
    pub fn follow(&mut self, now: GroupIoFiles) -> io::Result<()> {
        // What cannot be read any more is told by the reading at the next sample.
        let _ = self.read();
        let (stays, mut old) = (self.top == now.top && self.source == now.source, std::mem::take(&mut self.groups));
        for file in now.files {
            let known = old.iter().position(|group| stays && !group.growth.gone && group.file.dir == file.dir);
            let group = match known {
                Some(place) => old.swap_remove(place),
                // A group below one that is the VM's came after it; the topmost may have had another life.
                None if stays && file.dir != self.top => Counted::younger(file),
                None => match Counted::older(file) {
                    Ok(group) => group,
                    Err(error) => {
                        self.leave(old);
                        return Err(error);
                    }
                },
            };
            self.groups.push(group);
        }
        self.leave(old);
        (self.source, self.top) = (now.source, now.top);
        Ok(())
    }

    fn leave(&mut self, old: Vec<Counted>) {
        self.left = old.iter().fold(self.left, |left, group| sum(left, group.growth.io()));
    }

    /// Reads those that are there.
    ///
    /// # Errors
    /// If one could not be read; the others are.
    pub fn read(&mut self) -> io::Result<()> {
        let mut first = Ok(());
        for group in self.groups.iter_mut().filter(|group| !group.growth.gone) {
            match group.file.read() {
                Ok(reading) => group.growth.take(reading),
                Err(error) => first = first.and(Err(error)),
            }
        }
        first
    }

    /// What all of them have counted of the VM; `None` where nothing is counted.
    #[must_use]
    pub fn told(&self) -> Option<GroupTold> {
        let io = self.groups.iter().fold(self.left, |all, group| sum(all, group.growth.io()))?;
        Some(GroupTold { source: self.source, io, since_ns: self.since_ns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn io(read_bytes: u64, written_bytes: u64) -> GroupIo {
        GroupIo { read_bytes, written_bytes }
    }

    #[test]
    fn a_removed_group_takes_nothing_away_and_an_older_one_brings_nothing_along() {
        let mut growth = Growth { base: io(7, 100), last: Some(io(7, 100)), gone: false };
        assert_eq!(growth.io(), Some(io(0, 0)));
        growth.take(GroupReading::Counted(io(9, 150)));
        growth.take(GroupReading::Gone);
        assert_eq!((growth.io(), growth.gone), (Some(io(2, 50)), true));
    }

    #[test]
    fn what_is_not_counted_is_no_zero() {
        let mut growth = Growth::default();
        growth.take(GroupReading::Uncounted);
        assert_eq!(growth.io(), None);
        assert_eq!(sum(None, growth.io()), None);
        growth.take(GroupReading::Counted(io(0, 3)));
        assert_eq!(sum(Some(io(1, 1)), growth.io()), Some(io(1, 4)));
    }

    proptest! {
        #[test]
        fn the_sum_of_growing_groups_never_falls_when_some_are_removed(
            steps in prop::collection::vec((0usize..4, 0u64..1_000, any::<bool>()), 1..60),
        ) {
            let mut groups = [Growth::default(); 4];
            let mut counts = [0u64; 4];
            let mut last = None;
            for (at, more, gone) in steps {
                counts[at] += more;
                if !groups[at].gone {
                    groups[at].take(if gone { GroupReading::Gone } else { GroupReading::Counted(io(0, counts[at])) });
                }
                let now = groups.iter().fold(None, |all, group| sum(all, group.io())).map(|io| io.written_bytes);
                prop_assert!(now >= last);
                last = now;
            }
        }
    }
}
