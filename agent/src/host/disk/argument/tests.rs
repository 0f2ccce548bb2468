use super::*;
use proptest::prelude::*;

fn of(words: &[&str]) -> Arguments {
    Arguments::parse(words.join("\0").as_bytes())
}

fn disks(words: &[&str]) -> Vec<(String, Option<Format>)> {
    of(words).disks.into_iter().collect()
}

#[test]
fn disks_of_each_vmm_are_found() {
    let raw = Some(Format::Raw);
    let one = |path: &str, format| vec![(path.to_owned(), format)];
    assert_eq!(disks(&["q", "-drive", "file=/a,,b.img,format=raw,if=virtio"]), one("/a,b.img", raw));
    assert_eq!(disks(&["q", "-hda", "/a.qcow2"]), one("/a.qcow2", None));
    assert_eq!(
        disks(&["q", "-blockdev", "driver=qcow2,file.driver=file,file.filename=/a"]),
        one("/a", Some(Format::Qcow2))
    );
    assert_eq!(disks(&["ch", "--disk", "path=/a.raw", "path=/b.raw,readonly=on"]).len(), 2);
    assert_eq!(disks(&["ch", "--disk=path=/a.raw"]), one("/a.raw", None));
    assert_eq!(disks(&["crosvm", "run", "--block", "/a.img,ro"])[0].0, "/a.img");
}

#[test]
fn a_layer_gives_its_format_to_the_file_that_its_node_names() {
    let file = r#"{"driver":"file","filename":"/v/a.img","node-name":"s1"}"#;
    let layer = r#"{"node-name":"f1","driver":"raw","file":"s1"}"#;
    assert_eq!(disks(&["q", "-blockdev", file, "-blockdev", layer]), [("/v/a.img".to_owned(), Some(Format::Raw))]);
    let nested =
        r#"{"driver":"qcow2","file":{"driver":"file","filename":"/a"},"backing":{"driver":"nbd","server":{}}}"#;
    let found = of(&["q", "-blockdev", nested]);
    assert_eq!(found.disks.get("/a"), Some(&Some(Format::Qcow2)));
    assert_eq!(found.unobserved, ["nbd"]);
}

#[test]
fn storage_that_is_not_a_file_is_told_by_its_kind_alone() {
    for (value, kind) in [
        ("file=rbd:pool/image:key=SECRET,format=raw", "rbd"),
        ("file=iscsi://user%pw@host/iqn/0", "iscsi"),
        ("file=nbd:unix:/s.sock", "nbd"),
        ("file=nbd+unix:///x?socket=/s", "nbd"),
        ("file=gluster+tcp://h/v/i", "gluster"),
        ("file=https://h/i.iso,media=cdrom", "http"),
        ("file.driver=nvme,file.device=0000:01:00.0,file.namespace=1", "nvme"),
        (r#"file=json:{"driver":"raw",,"file":{"driver":"rbd"}}"#, "rbd"),
    ] {
        let found = of(&["q", "-drive", value]);
        assert_eq!((found.unobserved.as_slice(), found.disks.len()), (&[kind][..], 0), "{value}");
        assert!(KINDS.contains(&kind));
    }
    assert_eq!(of(&["q", "-device", "vhost-user-blk-pci,chardev=c"]).unobserved, ["vhost-user"]);
    assert_eq!(of(&["ch", "--disk", "vhost_user=true,socket=/s"]).unobserved, ["vhost-user"]);
    assert_eq!(of(&["q", "-device", "vfio-pci,host=0000:01:00.0"]).vfio, ["0000:01:00.0"]);
    assert!(of(&["q", "-smbios", "type=1,serial=ds=nocloud-net;s=http://10.0.2.2/"]).unobserved.is_empty());
}

#[test]
fn firmware_and_memory_are_no_disks() {
    let found = of(&[
        "q",
        "-drive",
        "if=pflash,format=raw,file=/vars.fd",
        "-bios",
        "/b",
        "-object",
        "memory-backend-file,id=m,mem-path=/dev/shm/m,size=1G",
    ]);
    assert!(found.disks.is_empty());
    assert!(["/vars.fd", "/b", "/dev/shm/m"].iter().all(|path| found.others.contains(*path)));
}

proptest! {
    #[test]
    fn no_command_line_panics(raw in prop::collection::vec(any::<u8>(), 0..200), json in "\\PC{0,80}") {
        let _ = Arguments::parse(&raw);
        let _ = of(&["q", "-blockdev", &format!("{{\"file\":{json}}}"), "-drive", &json, "-device", &json]);
    }
}
