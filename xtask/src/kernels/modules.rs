//! A kernel's modules: finding them in the unpacked packages, and in which order they are inserted.
//!
//! Debian writes `modules.dep` only when a kernel is installed, so what a module depends on is read from itself. A module
//! that is not there is built in, or this kernel has none; the checks tell which.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// KVM on AMD, what the checks' machines and VMs use besides, and the hooks of interfaces before tcx.
const WANTED: [&str; 9] =
    ["virtio_pci", "virtio_blk", "kvm_amd", "tun", "vhost_net", "veth", "macvtap", "sch_ingress", "cls_bpf"];

/// A module as the kernel takes it.
#[derive(Debug)]
pub(crate) struct Module {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// All files below a directory.
pub(crate) fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let list = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in list {
        let path = entry.with_context(|| format!("cannot list {}", directory.display()))?.path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

pub(crate) fn file_name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

/// The wanted modules among the files, each after what it depends on.
pub(crate) fn needed(files: &[PathBuf]) -> Result<Vec<Module>> {
    let named = files.iter().filter_map(|path| Some((module_name(&file_name(path))?, path.as_path())));
    let known: BTreeMap<_, _> = named.collect();
    let mut order = Vec::new();
    for name in WANTED {
        add(name, &known, &mut order)?;
    }
    Ok(order)
}

fn add(name: &str, known: &BTreeMap<String, &Path>, order: &mut Vec<Module>) -> Result<()> {
    let Some(path) = known.get(name) else { return Ok(()) };
    if order.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let bytes = contents(path)?;
    for dependency in depends(&bytes).with_context(|| format!("{} says no dependencies", path.display()))? {
        add(&dependency, known, order)?;
    }
    order.push(Module { name: name.to_owned(), bytes });
    Ok(())
}

/// `kvm_amd` of `kvm-amd.ko.xz`.
fn module_name(file: &str) -> Option<String> {
    Some(file.split_once(".ko")?.0.replace('-', "_"))
}

fn contents(path: &Path) -> Result<Vec<u8>> {
    let unpacker = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _plain => return fs::read(path).with_context(|| format!("cannot read {}", path.display())),
    };
    let ran = Command::new(unpacker).arg("-dc").arg(path).output().with_context(|| format!("cannot run {unpacker}"))?;
    if !ran.status.success() {
        bail!("{unpacker} cannot unpack {}: {}", path.display(), String::from_utf8_lossy(&ran.stderr).trim());
    }
    Ok(ran.stdout)
}

/// The value of `depends=` in a module's own information, whose entries are ended by zeros.
fn depends(module: &[u8]) -> Option<Vec<String>> {
    let key = b"\0depends=";
    let start = module.windows(key.len()).position(|window| window == key)? + key.len();
    let value = module[start..].split(|byte| *byte == 0).next()?;
    let value = String::from_utf8_lossy(value).into_owned();
    Some(value.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_come_first_and_once() {
        let directory = std::env::temp_dir().join(format!("xtask-modules-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        for (file, depends) in
            [("kvm-amd.ko", "kvm,ccp"), ("kvm.ko", "irqbypass"), ("irqbypass.ko", ""), ("tun.ko", "kvm")]
        {
            fs::write(directory.join(file), format!("\x7fELF\0depends={depends}\0name=x\0")).unwrap();
        }
        let order: Vec<_> =
            needed(&files(&directory).unwrap()).unwrap().into_iter().map(|module| module.name).collect();
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(order, ["irqbypass", "kvm", "kvm_amd", "tun"]);
    }
}
