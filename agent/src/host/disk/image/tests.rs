use super::*;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, symlink};
use std::process::Command;

/// This process's disks below a directory: it is a VMM as good as any.
fn mine(dir: &Path) -> Disks {
    let root = Path::new("/");
    let mut disks = list(root, &ProcFs::new(root), Tgid(std::process::id())).unwrap();
    disks.images.retain(|image| image.path.starts_with(dir));
    disks
}

fn create(path: &Path, bytes: u64) -> File {
    let file = File::create_new(path).unwrap();
    file.set_len(bytes).unwrap();
    file
}

fn scratch() -> tempfile::TempDir {
    // Not in a directory that may be a tmpfs, which counts as memory.
    tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap()
}

#[test]
fn a_raw_file_needs_evidence() {
    let dir = scratch();
    let at = |name: &str| dir.path().join(name);
    for name in ["rw", "log", "pid", "readonly", "rom.fd", "cd.iso", "direct"] {
        create(&at(name), if name == "pid" { 7 } else { 1 << 20 });
    }
    let open = OpenOptions::new().read(true).write(true).clone();
    let _held = [
        open.open(at("rw")).unwrap(),
        OpenOptions::new().append(true).open(at("log")).unwrap(),
        open.open(at("pid")).unwrap(),
        File::open(at("readonly")).unwrap(),
        open.open(at("rom.fd")).unwrap(),
        File::open(at("cd.iso")).unwrap(),
        OpenOptions::new().read(true).custom_flags(nix::libc::O_DIRECT).open(at("direct")).unwrap(),
    ];
    let found = mine(dir.path()).images;
    let names: Vec<_> = found.iter().map(|image| image.path.file_name().unwrap().to_str().unwrap()).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, ["cd.iso", "direct", "rw"]);
    assert!(found.iter().all(|image| image.format == Some(Format::Raw) && image.capacity_bytes == Some(1 << 20)));
    assert!(found.iter().all(|image| image.read_only != (image.path == at("rw"))));
}

#[test]
fn two_descriptors_are_one_disk_and_a_deleted_one_still_is() {
    let dir = scratch();
    let path = dir.path().join("a.img");
    create(&path, 3 << 20).write_all_at(&[7; 8192], 0).unwrap();
    let _reader = File::open(&path).unwrap();
    let _writer = OpenOptions::new().write(true).open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let found = mine(dir.path()).images;
    assert_eq!(found.len(), 1);
    let image = &found[0];
    assert!((image.deleted, image.read_only) == (true, false) && image.path == path, "{image:?}");
    assert_eq!((image.capacity_bytes, image.allocated_bytes), (Some(3 << 20), Some(8192)));
}

#[test]
fn a_chain_counts_its_capacity_once() {
    let dir = scratch();
    let at = |name: &str| dir.path().join(name);
    let create = |name: &str, more: &[&str]| {
        let mut command = Command::new("qemu-img");
        command.current_dir(dir.path()).args(["create", "-q", "-f", "qcow2"]).args(more).arg(name).arg("1G");
        command.status().is_ok_and(|status| status.success())
    };
    if !create("base", &[]) || !create("middle", &["-b", "base", "-F", "qcow2"]) {
        return;
    }
    symlink("middle", at("link")).unwrap();
    assert!(create("top", &["-b", "link", "-F", "qcow2"]));
    let _held = ["base", "middle", "top"].map(|name| File::open(at(name)).unwrap());
    let mut roles: Vec<_> = mine(dir.path()).images.iter().map(|i| (i.path.clone(), i.role)).collect();
    roles.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(roles, [(at("base"), Role::Backing), (at("middle"), Role::Backing), (at("top"), Role::Disk)]);
}

#[test]
fn a_guest_cannot_make_its_raw_disk_larger_by_writing_a_header() {
    let mut header = vec![0; 4096];
    header[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    header[24..32].copy_from_slice(&u64::MAX.to_be_bytes());
    let held = || Held {
        id: None,
        via: "/v".into(),
        path: "/d.img".into(),
        deleted: false,
        is_block: false,
        readable: true,
        writable: true,
        direct: false,
        append: false,
        filesystem: 0,
        size_bytes: 4096,
        allocated_bytes: 4096,
        header: super::super::format::read(&header.as_slice()).map_err(|e| e.to_string()),
    };
    let key = Key { is_block: false, dev: 1, inode: 1 };
    let told = Arguments::parse(b"q\0-drive\0file=/d.img,format=raw\0");
    for entry in [Entry::new(key, held(), &told, false), Entry::new(key, held(), &Arguments::default(), true)] {
        let image = entry.image();
        assert_eq!((image.format, image.capacity_bytes), (Some(Format::Raw), Some(4096)));
    }
    let probed = Entry::new(key, held(), &Arguments::default(), false).image();
    assert_eq!(probed.format, Some(Format::Qcow2), "where nobody says, a VMM believes the header as well");
}

#[test]
fn only_mass_storage_handed_through_is_storage() {
    let root = tempfile::tempdir().unwrap();
    for (address, class) in [("0000:01:00.0", "0x010802"), ("0000:02:00.0", "0x020000")] {
        let dir = root.path().join("sys/bus/pci/devices").join(address);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("class"), class).unwrap();
    }
    let is = |device| is_storage(root.path(), device);
    assert!(is("01:00.0") && is("0000:01:00.0") && is("/sys/bus/pci/devices/0000:01:00.0/"));
    assert!(!is("02:00.0") && !is("03:00.0") && !is("../../../etc"));
}
