//! A kernel on this machine: its image and the modules that the checks need, under `target/kernels/SERIES`.
//!
//! What was unpacked stays until Debian has a newer one; the rest of the packages is thrown away.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::apt::{Package, Suite};
use super::list::Kernel;
use super::modules::{self, Module};
use crate::workspace::run;

/// A kernel that can be booted.
#[derive(Debug)]
pub(crate) struct Fetched {
    /// What `uname -r` says.
    pub(crate) release: String,
    pub(crate) image: PathBuf,
    /// In the order of their insertion.
    pub(crate) modules: Vec<Module>,
}

/// The newest kernel of a series.
pub(crate) fn fetch(home: &Path, kernel: &Kernel) -> Result<Fetched> {
    let suite = Suite::open(&home.join("apt"), kernel)?;
    let packages = kernel.packages.iter().map(|prefix| suite.newest(prefix)).collect::<Result<Vec<_>>>()?;
    let tree = home.join(kernel.series).join("packages");
    let stamp = tree.join("complete");
    let title: String = packages.iter().map(|package| format!("{} {}\n", package.name, package.version)).collect();
    if !fs::read_to_string(&stamp).is_ok_and(|before| before == title) {
        unpack(&suite, &packages, &tree)?;
        fs::write(&stamp, title).with_context(|| format!("cannot write {}", stamp.display()))?;
    }
    let files = modules::files(&tree)?;
    let image = files.iter().find(|path| modules::file_name(path).starts_with("vmlinuz"));
    let image = image.with_context(|| format!("no kernel image in {}", tree.display()))?.clone();
    let release = release(&files).with_context(|| format!("no modules in {}", tree.display()))?;
    Ok(Fetched { release, image, modules: modules::needed(&files)? })
}

fn unpack(suite: &Suite, packages: &[Package], tree: &Path) -> Result<()> {
    if tree.exists() {
        fs::remove_dir_all(tree).with_context(|| format!("cannot remove {}", tree.display()))?;
    }
    let downloads = tree.join("downloads");
    fs::create_dir_all(&downloads).with_context(|| format!("cannot make {}", downloads.display()))?;
    for package in packages {
        println!("kernels: downloading {} {}", package.name, package.version);
        suite.download(package, &downloads)?;
    }
    for archive in modules::files(&downloads)? {
        run(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(tree), "unpacking a kernel")?;
    }
    fs::remove_dir_all(&downloads).with_context(|| format!("cannot remove {}", downloads.display()))
}

/// The directory below `lib/modules`.
fn release(files: &[PathBuf]) -> Option<String> {
    let text = files.iter().find_map(|path| path.to_str()?.split_once("/lib/modules/"))?.1;
    Some(text.split('/').next()?.to_owned())
}
