//! What a VMM's command line says about disks: files it names as such, files it names as something else, and storage
//! that no descriptor of a file stands for. Of the latter only the kind is kept: an address can hold a password.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::format::Format;

/// Flags whose value describes a disk: QEMU's, cloud-hypervisor's, crosvm's, kvmtool's.
const DISK_FLAGS: [&str; 21] = [
    "drive",
    "blockdev",
    "hda",
    "hdb",
    "hdc",
    "hdd",
    "cdrom",
    "fda",
    "fdb",
    "sd",
    "mtdblock",
    "disk",
    "block",
    "rwdisk",
    "root",
    "rwroot",
    "pmem",
    "pmem-device",
    "rw-pmem-device",
    "d",
    "image",
];
/// Flags whose value is a file, but no disk.
const OTHER_FLAGS: [&str; 14] = [
    "pflash",
    "bios",
    "kernel",
    "k",
    "initrd",
    "i",
    "dtb",
    "firmware",
    "mem-path",
    "object",
    "memory",
    "memory-zone",
    "pidfile",
    "config-file",
];
/// Protocols and drivers that are not a file or block device of this host, and the kind each is told as.
const REMOTE: [(&str, &str); 23] = [
    ("rbd", "rbd"),
    ("iscsi", "iscsi"),
    ("iser", "iscsi"),
    ("nbd", "nbd"),
    ("nbd+tcp", "nbd"),
    ("nbd+unix", "nbd"),
    ("nbds", "nbd"),
    ("gluster", "gluster"),
    ("gluster+tcp", "gluster"),
    ("gluster+unix", "gluster"),
    ("gluster+rdma", "gluster"),
    ("http", "http"),
    ("https", "http"),
    ("ftp", "ftp"),
    ("ftps", "ftp"),
    ("ssh", "ssh"),
    ("nfs", "nfs"),
    ("sheepdog", "sheepdog"),
    ("nvme", "nvme"),
    ("nvme-io_uring", "nvme"),
    ("virtio-blk-vhost-user", "vhost-user"),
    ("virtio-blk-vhost-vdpa", "vhost-vdpa"),
    ("virtio-blk-vfio-pci", "vfio"),
];
/// Kinds that are told.
pub const KINDS: [&str; 12] =
    ["rbd", "iscsi", "nbd", "gluster", "http", "ftp", "ssh", "nfs", "sheepdog", "nvme", "vhost-user", "vfio"];
/// How deep a description of a disk may be nested.
const MAX_DEPTH: u32 = 16;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// Paths named as disks, with the format where that is said.
    pub disks: BTreeMap<String, Option<Format>>,
    /// Paths named as something else: firmware, memory, kernels.
    pub others: BTreeSet<String>,
    /// Kinds of storage that cannot be seen, one entry a disk.
    pub unobserved: Vec<&'static str>,
    /// Devices handed through by vfio, as they are spelt (`0000:01:00.0`, or a path in `/sys`).
    pub vfio: Vec<String>,
    /// Files of nodes by name, and formats of nodes, to be joined.
    nodes: BTreeMap<String, String>,
    layers: Vec<(String, Option<Format>)>,
}

impl Arguments {
    /// Reads a command line: arguments that each end in NUL.
    #[must_use]
    pub fn parse(raw: &[u8]) -> Self {
        let words: Vec<String> = raw.split(|b| *b == 0).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
        let mut found = Self::default();
        let mut words = words.iter().skip(1).peekable();
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else { continue };
            if let Some((flag, value)) = flag.split_once('=') {
                found.take(flag, value);
                continue;
            }
            // cloud-hypervisor takes several values behind one flag.
            while let Some(value) = words.next_if(|next| !next.starts_with('-')) {
                found.take(flag, value);
            }
        }
        for (node, format) in std::mem::take(&mut found.layers) {
            if let Some(path) = found.nodes.get(&node) {
                found.disks.insert(path.clone(), format);
            }
        }
        found
    }

    fn take(&mut self, flag: &str, value: &str) {
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        if DISK_FLAGS.contains(&flag) {
            self.disk(value);
        } else if OTHER_FLAGS.contains(&flag) {
            self.other(value);
        } else if matches!(flag, "device" | "vfio") {
            self.device(value);
        }
    }

    fn disk(&mut self, value: &str) {
        if value.starts_with('{') {
            if let Ok(json) = serde_json::from_str(value) {
                self.node(&json, None, 0);
            }
            return;
        }
        let pairs = pairs(value);
        let get =
            |keys: &[&str]| keys.iter().find_map(|key| pairs.iter().find(|(k, _)| k == key)).map(|(_, v)| v.as_str());
        if get(&["vhost_user", "vhost-user"]).is_some_and(|value| matches!(value, "on" | "true")) {
            return self.unobserved.push("vhost-user");
        }
        if let Some(kind) = ["driver", "file.driver", "file.file.driver"].iter().find_map(|key| remote(get(&[key])?)) {
            return self.unobserved.push(kind);
        }
        let file = get(&["file.filename", "file.file.filename", "filename", "path", "file", "source"]);
        let Some(file) = file.or_else(|| pairs.iter().find(|(key, _)| key.is_empty()).map(|(_, v)| v.as_str())) else {
            return;
        };
        let driver = get(&["driver"]);
        let format = get(&["format", "driver", "image_type"]).and_then(Format::named);
        if get(&["if"]) == Some("pflash") {
            self.others.insert(file.to_owned());
        } else if get(&["file.filename", "filename", "path", "source"]).is_none()
            && driver.is_some()
            && get(&["format"]).is_none()
        {
            // `-blockdev driver=qcow2,file=NODE`.
            self.layers.push((file.to_owned(), format));
        } else {
            if let Some(node) = get(&["node-name", "file.node-name"]) {
                self.nodes.insert(node.to_owned(), file.to_owned());
            }
            self.file(file, format, 0);
        }
    }

    /// A file's name as VMMs take it: a path, or a protocol and an address.
    pub(super) fn file(&mut self, name: &str, format: Option<Format>, depth: u32) {
        if let Some(json) = name.strip_prefix("json:") {
            if let Ok(json) = serde_json::from_str(json) {
                self.node(&json, format, depth);
            }
            return;
        }
        let protocol = name.split_once(':').map(|(protocol, _)| protocol).filter(|protocol| !protocol.contains('/'));
        if let Some(kind) = protocol.and_then(remote) {
            return self.unobserved.push(kind);
        }
        let path = name.strip_prefix("file:").unwrap_or(name);
        self.disks.entry(path.to_owned()).and_modify(|known| *known = known.or(format)).or_insert(format);
    }

    /// One node of a block graph, as JSON; `format` is that of the layer above.
    fn node(&mut self, node: &Value, format: Option<Format>, depth: u32) {
        let text = |key: &str| node[key].as_str();
        if depth > MAX_DEPTH {
            return;
        }
        let driver = text("driver").or_else(|| text("file.driver"));
        if let Some(kind) = driver.and_then(remote) {
            return self.unobserved.push(kind);
        }
        let format = driver.and_then(Format::named).or(format);
        if let Some(path) = text("filename").or_else(|| text("file.filename")) {
            if let Some(name) = text("node-name") {
                self.nodes.insert(name.to_owned(), path.to_owned());
            }
            self.file(path, format, depth + 1);
        }
        match &node["file"] {
            Value::String(name) => self.layers.push((name.clone(), format)),
            Value::Object(_) => self.node(&node["file"], format, depth + 1),
            _ => {}
        }
        if node["backing"].is_object() {
            self.node(&node["backing"], None, depth + 1);
        }
    }

    fn other(&mut self, value: &str) {
        for (key, value) in pairs(value) {
            if matches!(key.as_str(), "" | "mem-path" | "file" | "path") {
                self.others.insert(value);
            }
        }
    }

    fn device(&mut self, value: &str) {
        let pairs = pairs(value);
        let first = pairs.first().map_or("", |(key, value)| if key.is_empty() { value } else { "" });
        if first.starts_with("vhost-user-blk") || first.starts_with("vhost-user-scsi") {
            self.unobserved.push("vhost-user");
        }
        let address = pairs.iter().find(|(key, _)| matches!(key.as_str(), "host" | "sysfsdev" | "path"));
        if first.starts_with("vfio-") || first.starts_with("/sys/") || pairs.iter().any(|(key, _)| key == "path") {
            let plain = (first.starts_with('/')).then(|| first.to_owned());
            self.vfio.extend(address.map(|(_, value)| value.clone()).or(plain));
        }
    }
}

/// What storage a protocol or driver stands for, if it is none of this host's files.
pub(super) fn remote(name: &str) -> Option<&'static str> {
    REMOTE.iter().find(|(protocol, _)| *protocol == name).map(|(_, kind)| *kind)
}

/// `key=value` separated by commas, a doubled comma being one; a word without `=` has an empty key.
fn pairs(text: &str) -> Vec<(String, String)> {
    let words = text.replace(",,", "\0");
    let words = words.split(',').map(|word| word.replace('\0', ","));
    words
        .map(|word| word.split_once('=').map_or((String::new(), word.clone()), |(k, v)| (k.into(), v.into())))
        .collect()
}

#[cfg(test)]
mod tests;
