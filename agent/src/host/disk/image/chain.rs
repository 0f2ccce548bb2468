//! Which held files belong to another disk: its backing file, and that one's, or the files that hold its data.

use std::path::{Component, Path, PathBuf};

use super::held::Key;
use super::{Entry, Role};
use crate::host::disk::argument::Arguments;

/// Gives each file that another's header names its role. `root` is the process's own root directory. What a header
/// names that is no file joins `unobserved`; what is named but not held is in nobody's use.
pub(super) fn follow(all: &mut [Entry], root: &Path, unobserved: &mut Vec<&'static str>) {
    // Each file is followed once, so a chain that bites its tail ends.
    let mut queue: Vec<usize> = (0..all.len()).filter(|place| all[*place].counts).collect();
    let mut followed = vec![false; all.len()];
    while let Some(place) = queue.pop() {
        let Some(done) = followed.get_mut(place) else { continue };
        if std::mem::replace(done, true) {
            continue;
        }
        for (name, role) in named(&all[place]) {
            let mut target = Arguments::default();
            target.file(&name, None, 0);
            unobserved.append(&mut target.unobserved);
            for path in target.disks.keys() {
                let path = beside(&all[place].held.path, Path::new(path));
                let Some(other) = find(all, root, &path).filter(|other| *other != place) else { continue };
                if all[other].may_count {
                    all[other].counts = true;
                    all[other].role = role;
                    queue.push(other);
                }
            }
        }
    }
}

fn named(entry: &Entry) -> Vec<(String, Role)> {
    let Some(header) = &entry.header else { return Vec::new() };
    let backing = header.backing.iter().map(|name| (name.clone(), Role::Backing));
    backing.chain(header.parts.iter().map(|name| (name.clone(), Role::Part))).collect()
}

/// A name in a header, from the directory of the file that has it.
fn beside(image: &Path, name: &Path) -> PathBuf {
    let mut path = PathBuf::new();
    for part in image.parent().unwrap_or(Path::new("/")).join(name).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                path.pop();
            }
            part => path.push(part),
        }
    }
    path
}

/// By its path, else by the file that stands there.
fn find(all: &[Entry], root: &Path, path: &Path) -> Option<usize> {
    let by_path = all.iter().position(|entry| entry.held.path == path && !entry.held.deleted);
    let key = || Key::of(&std::fs::metadata(root.join(path.strip_prefix("/").ok()?)).ok()?);
    by_path.or_else(|| key().and_then(|key| all.iter().position(|entry| entry.key == key)))
}
