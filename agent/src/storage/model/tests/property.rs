//! A world of files with its own truth, against the lines: whatever happens, in whatever order, every file is billed
//! while it is there, to one VM at a time, and to nobody after.

use std::collections::BTreeMap;

use super::*;
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
enum Act {
    /// A file of this kind appears at a place.
    Make(u8),
    /// It loses its name; somebody may have it open.
    Unlink(u8, bool),
    /// Whoever had it open lets go.
    Close(u8),
    /// The pool is looked at.
    Look,
    /// The pool cannot be looked at.
    Vanish,
    /// An agent dies and another comes.
    Restart,
    /// A VM with this file starts, or ends.
    Run(u8, bool),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0u8..6).prop_map(Act::Make),
        (0u8..6, any::<bool>()).prop_map(|(n, open)| Act::Unlink(n, open)),
        (0u8..6).prop_map(Act::Close),
        Just(Act::Look),
        Just(Act::Look),
        Just(Act::Vanish),
        Just(Act::Restart),
        (0u8..6, any::<bool>()).prop_map(|(n, runs)| Act::Run(n, runs)),
    ]
}

/// A file in truth.
#[derive(Clone, Copy, Debug)]
struct Real {
    id: FileId,
    named: bool,
    open: bool,
}

struct World {
    model: Model,
    second: u64,
    files: BTreeMap<u8, Real>,
    /// Let go, and not reported yet.
    freed: Vec<(u8, FileId, u64)>,
    running: BTreeMap<u8, FileId>,
    open: BTreeMap<String, OpenStorage>,
    lines: Vec<Draft>,
}

fn path(n: u8) -> String {
    if n < 3 { format!("/pool/vm{n}.img") } else { format!("/pool/vm{n}@s.img") }
}

impl World {
    fn new() -> Self {
        let (files, running, open) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { model: model(), second: 20, files, freed: Vec::new(), running, open, lines: Vec::new() }
    }

    fn take(&mut self) {
        for line in self.model.settle() {
            let subject = line.subject.text("").to_owned();
            let last = self.open.get(&subject);
            match line.kind {
                Kind::VmStorageStart | Kind::SnapStorageStart => assert!(last.is_none(), "{subject} starts twice"),
                _ => {
                    let last = last.unwrap_or_else(|| panic!("{subject} is not open: {:?}", line.kind));
                    assert!(line.mono_ns >= last.started_mono_ns, "{subject} goes back");
                }
            }
            assert!(line.mono_ns <= at(self.second).boot_ns, "{subject} is told of the future");
            if let TimeQuality::Bounded { not_before, not_after } = line.time_quality {
                assert!((not_before..=not_after).contains(&line.emitted_at));
            }
            if matches!(line.kind, Kind::VmStorageStop | Kind::SnapStorageStop) {
                self.open.remove(&subject);
            } else {
                let kind =
                    if line.kind.as_str().starts_with("vm.") { Kind::VmStorageStart } else { Kind::SnapStorageStart };
                let now = OpenStorage {
                    subject: line.subject.clone(),
                    vm_id: line.vm_id.clone(),
                    snapshot_id: line.snapshot_id.clone(),
                    files: line.files.clone(),
                    shape: line.shape,
                    started_mono_ns: line.mono_ns,
                    ..left(kind, "", line.files[0].file.parse().unwrap(), "", "boot")
                };
                self.open.insert(subject, now);
            }
            self.lines.push(line);
        }
    }

    fn look(&mut self) {
        let mut files: Vec<Found> = Vec::new();
        for (n, real) in &self.files {
            let state = if real.named { FileState::There } else { FileState::Nameless };
            files.push(found(real.id, &path(*n), 5, state));
        }
        for (n, id, second) in self.freed.drain(..) {
            files.push(found(id, &path(n), 5, FileState::Freed(at(second))));
        }
        self.model.report(Report { place: Place::Pool(0), at: at(self.second), files, state: PlaceState::default() });
        self.take();
    }

    fn restart(&mut self) {
        let open: Vec<OpenStorage> = self
            .open
            .values()
            .map(|o| OpenStorage {
                last_seen_at: at(self.second).unix_ns,
                last_seen_mono_ns: at(self.second).boot_ns,
                ..o.clone()
            })
            .collect();
        self.model = Model::new("boot", &pools(), at(self.second));
        self.model.resume(open, &pools(), at(self.second));
        self.take();
        // What nobody saw is found by what is not there: nothing tells when it was let go.
        self.second += 1;
        let gone: Vec<(u8, FileId)> = self.freed.drain(..).map(|(n, id, _)| (n, id)).collect();
        let state = FileState::Gone { by_unix_ns: at(self.second).unix_ns };
        let files = gone.iter().map(|(n, id)| found(*id, &path(*n), 5, state.clone())).collect();
        self.model.report(Report { place: Place::Pool(0), at: at(self.second), files, state: PlaceState::default() });
        for n in self.running.keys().copied().collect::<Vec<_>>() {
            self.list(n);
        }
        self.model.judge();
        self.take();
        self.second += 1;
        self.look();
    }

    fn list(&mut self, n: u8) {
        let id = self.running[&n];
        let vm = format!("vm{n}");
        let disks = [disk(id, &path(n), 5, true)];
        self.model.hold(&vm, Holder::default(), &disks, false, at(self.second), at(self.second));
        self.take();
    }

    fn free(&mut self, n: u8) {
        if let Some(real) = self.files.get(&n).copied()
            && !real.named
            && !real.open
            && !self.running.contains_key(&n)
        {
            self.files.remove(&n);
            // What no look has seen is known to nobody.
            if self.model.knows(&real.id) {
                self.freed.push((n, real.id, self.second));
            }
        }
    }

    fn act(&mut self, act: Act) {
        self.second += 2;
        match act {
            Act::Make(n) => {
                let fresh = Real { id: id(u64::from(n), self.second), named: true, open: false };
                self.files.entry(n).or_insert(fresh);
            }
            Act::Unlink(n, open) => {
                if let Some(real) = self.files.get_mut(&n).filter(|real| real.named) {
                    (real.named, real.open) = (false, open);
                }
                self.free(n);
            }
            Act::Close(n) => {
                if let Some(real) = self.files.get_mut(&n) {
                    real.open = false;
                }
                self.free(n);
            }
            Act::Look => self.look(),
            Act::Vanish => {
                let why = FileState::Unknown("not mounted".into());
                let files = self.files.iter().map(|(n, real)| found(real.id, &path(*n), 5, why.clone())).collect();
                let state = PlaceState { why: Some("not mounted".into()), ..PlaceState::default() };
                self.model.report(Report { place: Place::Pool(0), at: at(self.second), files, state });
                self.take();
            }
            Act::Restart => self.restart(),
            Act::Run(n, true) => {
                if let Some(real) = self.files.get(&n).filter(|real| real.named && n < 3)
                    && self.model.knows(&real.id)
                {
                    self.running.entry(n).or_insert(real.id);
                    self.list(n);
                }
            }
            Act::Run(n, false) => {
                if self.running.remove(&n).is_some() {
                    self.model.stopped(&format!("vm{n}"), at(self.second));
                    self.take();
                    self.free(n);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn every_file_is_billed_while_it_is_there_and_not_after(acts in prop::collection::vec(act(), 1..60)) {
        let mut world = World::new();
        for act in acts {
            world.act(act);
        }
        world.second += 2;
        world.look();
        for n in world.running.keys().copied().collect::<Vec<_>>() {
            world.list(n);
        }
        let open: BTreeMap<String, u64> = world.open.iter().map(|(s, o)| (s.clone(), o.shape.storage_bytes)).collect();
        let due: BTreeMap<String, u64> = world
            .files
            .iter()
            .filter(|(_, real)| real.named || world.model.knows(&real.id))
            .map(|(n, real)| (if *n < 3 { format!("vm{n}") } else { real.id.to_string() }, 5))
            .collect();
        prop_assert_eq!(open, due);
        // All of it goes.
        for n in 0..6 {
            world.act(Act::Run(n, false));
            world.act(Act::Unlink(n, false));
            world.act(Act::Close(n));
        }
        world.look();
        prop_assert_eq!(world.open.keys().collect::<Vec<_>>(), Vec::<&String>::new());
    }
}
