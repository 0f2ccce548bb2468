//! What each VMM's command line means, and what no command line can do.

use proptest::prelude::*;

use super::*;
use crate::units::Tgid;

const UUID: &str = "6f1c2d3e-0000-4000-8000-0123456789ab";

fn argv(line: &str) -> Argv {
    Argv { args: line.split(' ').map(|arg| arg.as_bytes().to_vec()).collect(), truncated: false }
}

fn read(line: &str) -> Identity {
    identify(&argv(line), b"comm", None)
}

fn shape(line: &str) -> (Option<u32>, Option<u64>) {
    let vm = read(line);
    (vm.vcpus, vm.mem_bytes.map(|bytes| bytes >> 20))
}

#[test]
fn the_hypervisor_comes_from_the_executable_alone() {
    for (program, hypervisor) in [
        ("/usr/bin/qemu-system-x86_64", Hypervisor::Qemu),
        ("/usr/libexec/qemu-kvm", Hypervisor::Qemu),
        ("kvm", Hypervisor::Qemu),
        (".qemu-system-aarch64-wrapped", Hypervisor::Qemu),
        ("/firecracker", Hypervisor::Firecracker),
        ("firecracker-v1.7.0-x86_64", Hypervisor::Firecracker),
        ("cloud-hypervisor-static", Hypervisor::CloudHypervisor),
        ("crosvm", Hypervisor::Crosvm),
        ("lkvm", Hypervisor::Kvmtool),
        ("qemu-img", Hypervisor::Unknown),
        ("firecrackers", Hypervisor::Unknown),
        ("my-vmm", Hypervisor::Unknown),
    ] {
        assert_eq!(read(program).hypervisor, hypervisor, "{program}");
    }
    let disguised = identify(&argv("/x/my-vmm --id qemu-system-x86_64"), b"qemu-kvm", None);
    assert_eq!((disguised.hypervisor, disguised.vmm.as_str()), (Hypervisor::Unknown, "my-vmm"));
    let renamed = identify(&argv("guest-7 -name web"), b"x", Some(b"qemu-system-x86_64"));
    assert_eq!((renamed.hypervisor, renamed.name.as_deref()), (Hypervisor::Qemu, Some("web")));
}

#[test]
fn qemu_names_and_uuids() {
    for (line, name) in [
        ("kvm -name web", Some("web")),
        ("kvm --name web", Some("web")),
        ("kvm -name guest=web,debug-threads=on", Some("web")),
        ("kvm -name web,process=x", Some("web")),
        ("kvm -name guest=a,,b", Some("a,b")),
        ("kvm -name a -name debug-threads=on", Some("a")),
        ("kvm -name a -name b", Some("b")),
        ("kvm -append -name -name real", Some("real")),
        ("kvm -nographic -name real", Some("real")),
        ("kvm -name", None),
        ("kvm -name guest=", None),
    ] {
        assert_eq!(read(line).name.as_deref(), name, "{line}");
    }
    let upper = UUID.to_ascii_uppercase();
    assert_eq!(read(&format!("kvm -uuid {upper}")).uuid.as_deref(), Some(UUID));
    for bad in ["6f1c2d3e000040008000-0123456789ab0000", "x", "00000000-0000-0000-0000-000000000000"] {
        assert_eq!(read(&format!("kvm -uuid {bad}")).uuid, None, "{bad}");
    }
}

#[test]
fn qemu_shapes() {
    for (options, cpus, mib) in [
        ("", Some(1), Some(128)),
        ("-smp 4 -m 512", Some(4), Some(512)),
        ("-smp cpus=4,sockets=2,cores=2 -m 2G", Some(4), Some(2048)),
        ("-smp sockets=2,dies=2,cores=3,threads=2 -m size=4G,slots=2,maxmem=8G", Some(24), Some(4096)),
        ("-smp 2,maxcpus=8 -m 1.5G", Some(2), Some(1536)),
        ("-smp maxcpus=8", Some(8), Some(128)),
        ("-smp 2 -smp 3 -m 64 -m 1G -m slots=2", Some(3), Some(1024)),
        ("-m 0", Some(1), Some(128)),
        ("-smp x -m y", None, None),
        ("-smp 0", None, Some(128)),
        ("-smp sockets=65536,cores=65536", None, Some(128)),
        ("-readconfig vm.conf", None, None),
        ("-readconfig vm.conf -smp 2 -m 512", Some(2), Some(512)),
        ("-machine q35,memory-backend=mem0", Some(1), None),
        ("-machine q35,memory-backend=mem0 -object memory-backend-memfd,id=mem0,size=1G,share=on", Some(1), Some(1024)),
        ("-object memory-backend-ram,id=mem0,size=268435456 -machine memory-backend=mem0 -smp 2", Some(2), Some(256)),
        (
            "-m size=1G,slots=2,maxmem=4G -object memory-backend-ram,id=m1,size=512M -device pc-dimm,memdev=m1",
            Some(1),
            Some(1536),
        ),
        (
            r#"-m 62 -object {"qom-type":"memory-backend-ram","id":"r","size":65011712} -M pc,memory-backend=r"#,
            Some(1),
            Some(62),
        ),
        (
            r#"-m 1G -object {"qom-type":"memory-backend-ram","id":"m","size":1073741824} -device {"driver":"pc-dimm","memdev":"m"}"#,
            Some(1),
            Some(2048),
        ),
        ("-m 1G -device pc-dimm,memdev=gone", Some(1), None),
        ("-M q35,smp.cpus=3,memory.size=512M", Some(3), Some(512)),
        ("-machine q35,accel=kvm -m 256", Some(1), Some(256)),
    ] {
        assert_eq!(shape(&format!("qemu-system-x86_64 {options}")), (cpus, mib), "{options}");
    }
}

#[test]
fn proxmox_and_smbios_uuids_and_numbers() {
    let line = format!(
        "/usr/bin/kvm -id 100 -name web1,debug-threads=on -no-shutdown -chardev socket,id=qmp,path=/var/run/qemu-server/100.qmp \
         -pidfile /var/run/qemu-server/100.pid -daemonize -smbios type=1,uuid={UUID} -smp 4,sockets=2,cores=2,maxcpus=4 \
         -nodefaults -m 2048 -device vmgenid,guid=0e44be5a-ff12-52fb-9413-07b52f3593c3 -machine type=pc+pve0"
    );
    let vm = read(&line);
    assert_eq!((vm.name.as_deref(), vm.uuid.as_deref(), vm.clues.proxmox), (Some("web1"), Some(UUID), Some(100)));
    assert_eq!(shape(&line), (Some(4), Some(2048)));
}

#[test]
fn kata_sandboxes_are_named_by_their_paths() {
    let id = "39083257ece670d208aa2010c1d25d74490942858af1854c99c6f95c33b9d8d6";
    let qemu = read(&format!(
        "/opt/kata/bin/qemu-system-x86_64 -name sandbox-{id} -uuid {UUID} -machine q35,accel=kvm,nvdimm=on -cpu host,pmu=off \
         -qmp unix:/run/vc/vm/{id}/qmp.sock,server=on,wait=off -m 2048M,slots=10,maxmem=386700M -smp 1,cores=1,maxcpus=80"
    ));
    assert_eq!((qemu.sandbox.as_deref(), qemu.mem_bytes, qemu.vcpus), (Some(id), Some(2 << 30), Some(1)));
    assert_eq!(qemu.name, Some(format!("sandbox-{id}")));
    let clh = read(&format!("cloud-hypervisor --api-socket /run/vc/vm/{id}/clh-api.sock"));
    assert_eq!((clh.sandbox.as_deref(), clh.vmm_id.as_deref()), (Some(id), Some(id)));
    let own = read(&format!("firecracker --id fc-1 --config-file /run/vc/firecracker/{id}/root/fcConfig.json"));
    assert_eq!((own.sandbox.as_deref(), own.vmm_id.as_deref()), (Some(id), Some("fc-1")));
    for odd in ["/run/vc/vm/", "/run/vc/vm//x", "/run/vc/vm/a b/x", "/run/vc/vm/../x", "/run/vc/vm/x"] {
        assert_eq!(read(&format!("cloud-hypervisor --api-socket {odd}")).sandbox, None, "{odd}");
    }
    assert_eq!(read(&format!("my-vmm /run/vc/vm/{id}/x")).sandbox, None);
}

#[test]
fn clues_lead_to_files() {
    assert_eq!(read("kvm -name guest=a,,b").clues.domain.as_deref(), Some("a,b"));
    assert_eq!(read("kvm -name guest=../../etc/shadow").clues.domain, None);
    let config =
        |line: &str| read(line).clues.config.map(|config| (config.format, String::from_utf8(config.path).unwrap()));
    assert_eq!(config("kvm -readconfig /etc/vm.conf"), Some((ConfigFormat::Qemu, "/etc/vm.conf".into())));
    assert_eq!(config("firecracker --config-file=vm.json"), Some((ConfigFormat::Firecracker, "vm.json".into())));
    assert_eq!(config("crosvm run --cfg vm.json k"), Some((ConfigFormat::Crosvm, "vm.json".into())));
    assert!(read("firecracker --api-sock /x").clues.jail && !read("firecracker --id a").clues.jail);
    assert!(read("lkvm run").clues.is_empty() && read("my-vmm --id x").clues.is_empty());
    assert_eq!(jail_id("/srv/jailer/firecracker/551e7604-e35c/root").as_deref(), Some("551e7604-e35c"));
    assert_eq!(jail_id("/srv/jailer/firecracker-v0.21.1-x86_64/a/root").as_deref(), Some("a"));
    for other in ["/", "/root", "/srv/x/a/root", "/srv/jailer/firecracker/a b/root", "/firecracker//root"] {
        assert_eq!(jail_id(other), None, "{other}");
    }
}

#[test]
fn other_vmms_say_what_they_say() {
    assert_eq!(read("firecracker --id vm-7 --api-sock /x").vmm_id.as_deref(), Some("vm-7"));
    assert_eq!(read("firecracker --id=vm-7 -- --id no").vmm_id.as_deref(), Some("vm-7"));
    assert_eq!(read("firecracker --id anonymous-instance").vmm_id, None);
    assert_eq!(shape("cloud-hypervisor --cpus boot=2,max=4 --memory size=512M"), (Some(2), Some(512)));
    assert_eq!(shape("cloud-hypervisor --api-socket /x"), (None, None));
    assert_eq!(read(&format!("cloud-hypervisor --platform uuid={UUID}")).uuid.as_deref(), Some(UUID));
    assert_eq!(shape("crosvm run --cpus 2 --mem 512 k"), (Some(2), Some(512)));
    assert_eq!(shape("crosvm run --cpus num-cores=4 --mem size=256 k"), (Some(4), Some(256)));
    assert_eq!(shape("lkvm run -c 2 -m 512 --name x"), (Some(2), Some(512)));
    assert_eq!(read("lkvm run -c 2 -m 512 --name x").name.as_deref(), Some("x"));
    let unknown = read(&format!("vmm --id a --name b --uuid {UUID} -smp 4 -m 512"));
    assert_eq!((unknown.vmm_id.as_deref(), unknown.name.as_deref()), (Some("a"), Some("b")));
    assert_eq!((unknown.uuid.as_deref(), unknown.vcpus, unknown.mem_bytes), (Some(UUID), None, None));
}

#[test]
fn a_cut_argument_is_not_believed_and_neither_are_defaults() {
    let cut = |raw: &[u8]| identify(&Argv::parse(raw, true), b"qemu", None);
    assert_eq!(cut(b"kvm\0-name\0web-1").name, None);
    assert_eq!(cut(b"kvm\0-name\0web-1\0").name.as_deref(), Some("web-1"));
    assert_eq!((cut(b"kvm\0-smp\x002\0-m").vcpus, cut(b"kvm\0-smp\x002\0-m").mem_bytes), (Some(2), None));
    assert_eq!(cut(b"qemu-system-x86_6").hypervisor, Hypervisor::Unknown);
    assert_eq!(identify(&Argv::default(), b"kvm", Some(b"/usr/bin/kvm")).vcpus, None);
}

#[test]
fn an_unnamed_program_still_has_a_short_name() {
    assert_eq!(identify(&Argv::default(), b"my vmm", None).vmm, "myvmm");
    assert_eq!(identify(&Argv::default(), b"\xff", None).vmm, "unknown");
}

#[test]
fn the_kernels_argument_block_splits_at_nul() {
    assert_eq!(Argv::parse(b"a\0\0b\0", false).args, [b"a".to_vec(), vec![], b"b".to_vec()]);
    assert_eq!(Argv::parse(b"", false).args, Vec::<Vec<u8>>::new());
}

fn program() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["kvm", "firecracker", "cloud-hypervisor", "crosvm", "lkvm", "vmm"])
}

proptest! {
    #[test]
    fn garbage_changes_labels_and_nothing_else(
        program in program(),
        garbage in prop::collection::vec(any::<u8>(), 0..16_384),
        truncated in any::<bool>(),
    ) {
        let clean = identify(&argv(program), b"x", None);
        let mut raw = format!("{program}\0").into_bytes();
        raw.extend(&garbage);
        let vm = identify(&Argv::parse(&raw, truncated), b"x", None);
        prop_assert_eq!((vm.hypervisor, &vm.vmm), (clean.hypervisor, &clean.vmm));
        prop_assert!(is_vm_id(&vm_id(&vm, Tgid(u32::MAX), "i")));
    }

    #[test]
    fn options_with_hostile_values_never_panic(
        program in program(),
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "-name", "--name", "-uuid", "-smp", "-m", "--id", "--id=", "--cpus", "--memory", "--mem", "-append",
                "-machine", "=", ",,", ",", "guest=", "cpus=", "size=", "4", "1.5G", "99999999999999999999", "--", "",
            ]),
            0..24,
        ),
        truncated in any::<bool>(),
    ) {
        let args = std::iter::once(program).chain(pieces).map(|piece| piece.as_bytes().to_vec()).collect();
        let vm = identify(&Argv { args, truncated }, b"x", None);
        prop_assert!(vm.vcpus != Some(0) && vm.mem_bytes != Some(0));
    }

    #[test]
    fn a_longer_cut_never_unsays_a_name(line_cut in 0usize..40) {
        let raw = b"kvm\0-uuid\0x\0-name\0guest=web\0-m\x0064\0-smp\x002\0";
        let vm = identify(&Argv::parse(&raw[..line_cut.min(raw.len())], true), b"x", None);
        prop_assert!(vm.name.is_none() || vm.name.as_deref() == Some("web"));
        prop_assert!(vm.vcpus.is_none_or(|count| count == 2));
        prop_assert!(vm.mem_bytes.is_none_or(|bytes| bytes == 64 << 20));
    }
}
