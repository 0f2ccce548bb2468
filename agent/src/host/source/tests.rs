//! Trees of files as each manager and VMM leaves them.

use std::fs;
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::vm::identity::{Argv, identify};

const STATE: &str = include_str!("../../../testdata/libvirt/run/libvirt/qemu/instance-0000002a.xml");
const PROJECT: &str = "d33b8c0e9b8a4a3f8d2c1b0a342d6901";

/// A tree with these files, and a process 4242 whose root is the tree's own.
fn tree(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("proc/4242")).unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

fn learn(root: &TempDir, line: &str) -> Learned {
    let args = line.split(' ').map(|arg| arg.as_bytes().to_vec()).collect();
    let identity = identify(&Argv { args, truncated: false }, b"x", None);
    Sources::new(root.path(), &ProcFs::new(root.path()), Tgid(4242), &identity.clues).read()
}

const LIBVIRT: &str = "qemu-system-x86_64 -name guest=instance-0000002a,debug-threads=on -m 512";

#[test]
fn libvirts_state_file_tells_tenant_and_live_shape() {
    let root = tree(&[("run/libvirt/qemu/instance-0000002a.xml", STATE)]);
    let learned = learn(&root, LIBVIRT);
    assert_eq!(learned.facts.owner.tenant.as_deref(), Some(PROJECT));
    assert_eq!((learned.facts.vcpus, learned.facts.mem_bytes, learned.is_live), (Some(2), Some(384 << 20), true));
    assert!(learned.errors.is_empty(), "{:?}", learned.errors);
}

#[test]
fn a_vmm_that_takes_anothers_name_gets_neither_its_tenant_nor_its_shape() {
    let other = STATE.replace("pid='4242'", "pid='4243'");
    let root = tree(&[
        ("run/libvirt/qemu/instance-0000002a.xml", &other),
        ("run/libvirt/qemu/instance-0000002a.pid", "4243\n"),
        ("etc/libvirt/qemu/instance-0000002a.xml", "<domain><name>instance-0000002a</name><title>t</title></domain>"),
        ("run/qemu-server/100.pid", "4243\n"),
        ("etc/pve/qemu-server/100.conf", "name: web1\ntags: prod\n"),
    ]);
    assert_eq!(learn(&root, LIBVIRT).facts, Facts::default());
    assert_eq!(learn(&root, "kvm -id 100 -name web1").facts, Facts::default());
}

#[test]
fn a_definition_counts_where_libvirts_pid_file_names_the_process() {
    let root = tree(&[
        ("run/libvirt/qemu/web.pid", "4242\n"),
        (
            "etc/libvirt/qemu/web.xml",
            "<domain><name>web</name><title>front</title><memory unit='MiB'>64</memory></domain>",
        ),
    ]);
    let learned = learn(&root, "kvm -name web");
    assert_eq!(learned.facts.owner.labels["libvirt.title"], "front");
    assert!(!learned.is_live, "a definition may differ from what runs");
}

#[test]
fn proxmox_tells_name_number_and_tags() {
    let conf = "cores: 2\nmemory: 2048\nname: web1\ntags: prod;web\n";
    let root = tree(&[("run/qemu-server/100.pid", "4242\n"), ("etc/pve/nodes/n1/qemu-server/100.conf", conf)]);
    symlink("nodes/n1/qemu-server", root.path().join("etc/pve/qemu-server")).unwrap();
    let learned = learn(&root, "/usr/bin/kvm -id 100 -name web1,debug-threads=on");
    assert_eq!(learned.facts.name.as_deref(), Some("web1"));
    assert_eq!((learned.facts.vcpus, learned.facts.mem_bytes), (Some(2), Some(2 << 30)));
    assert_eq!(learned.facts.owner.labels["proxmox.vmid"], "100");
}

#[test]
fn firecrackers_config_is_read_inside_its_jail_and_the_jails_path_is_its_id() {
    let shape = r#"{"machine-config":{"vcpu_count":2,"mem_size_mib":1024}}"#;
    let root = tree(&[("srv/jailer/firecracker/fc-7/root/vm.json", shape), ("outside.json", "{}")]);
    let jail = root.path().join("srv/jailer/firecracker/fc-7/root");
    symlink(&jail, root.path().join("proc/4242/root")).unwrap();
    symlink(root.path().join("outside.json"), jail.join("out.json")).unwrap();
    let learned = learn(&root, "/firecracker --config-file /vm.json --api-sock /run/fc.sock");
    assert_eq!((learned.facts.vcpus, learned.facts.mem_bytes), (Some(2), Some(1 << 30)));
    assert_eq!(learned.jail.as_deref(), Some("fc-7"));
    let out = learn(&root, "/firecracker --config-file /out.json");
    assert_eq!((out.facts, out.errors.len()), (Facts::default(), 0), "the link leads nowhere inside the jail");
}

#[test]
fn a_jail_that_was_pivoted_to_is_known_by_its_mount() {
    let mounts = "1 0 259:1 / / rw - ext4 /dev/a rw\n\
                  97 1 259:1 /srv/jailer/firecracker/551e7604/root / rw,relatime master:1 - ext4 /dev/a rw\n";
    let root = tree(&[("proc/4242/mountinfo", mounts)]);
    symlink("/", root.path().join("proc/4242/root")).unwrap();
    assert_eq!(learn(&root, "/firecracker --api-sock /run/fc.sock").jail.as_deref(), Some("551e7604"));
}

#[test]
fn hostile_files_are_errors_that_name_them() {
    let huge = "x".repeat((1 << 20) + 1);
    let root = tree(&[("run/libvirt/qemu/big.xml", &huge), ("run/libvirt/qemu/bad.xml", "<domstatus pid='4242'>")]);
    symlink(root.path(), root.path().join("proc/4242/root")).unwrap();
    fs::write(root.path().join("vm.json"), "{").unwrap();
    let told = |line: &str| learn(&root, line).errors.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(told("kvm -name big"), ["cannot read run/libvirt/qemu/big.xml"]);
    assert_eq!(told("kvm -name bad"), ["run/libvirt/qemu/bad.xml is not libvirt's"]);
    assert_eq!(told("firecracker --id a --config-file /vm.json"), ["/vm.json is no configuration file of its VMM"]);
}

#[test]
fn files_that_stand_still_have_the_same_stamps() {
    let root = tree(&[("run/libvirt/qemu/instance-0000002a.xml", STATE)]);
    let clues = Clues { domain: Some("instance-0000002a".into()), ..Clues::default() };
    let procfs = ProcFs::new(root.path());
    let sources = Sources::new(root.path(), &procfs, Tgid(4242), &clues);
    let stamps = sources.stamps();
    assert_eq!((sources.stamps(), sources.read().stamps.len()), (stamps.clone(), 3));
    fs::write(root.path().join("run/libvirt/qemu/instance-0000002a.xml"), format!("{STATE} ")).unwrap();
    assert_ne!(sources.stamps(), stamps);
}
