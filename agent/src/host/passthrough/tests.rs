use super::*;
use std::os::unix::fs::symlink;

fn args(line: &[&str]) -> Vec<Vec<u8>> {
    line.iter().map(|arg| arg.as_bytes().to_vec()).collect()
}

fn names(line: &[&str]) -> Vec<String> {
    let found = find(Path::new("/nowhere"), &args(line), &[]);
    assert!(found.iter().all(|one| one.kind == InterfaceKind::VhostUser && !one.reason.is_empty()));
    found.into_iter().map(|one| one.name).collect()
}

#[test]
fn vhost_user_is_told_by_the_command_line_of_each_vmm() {
    assert_eq!(names(&["qemu", "-chardev", "socket,id=c0,path=/s", "-netdev", "vhost-user,id=n0,chardev=c0"]), ["n0"]);
    assert_eq!(
        names(&["qemu", "-netdev", r#"{"type":"vhost-user","chardev":"charnet0","id":"hostnet0"}"#]),
        ["hostnet0"]
    );
    assert_eq!(names(&["qemu", "-netdev", "type=vhost-user,chardev=c1"]), ["c1"]);
    assert_eq!(
        names(&["cloud-hypervisor", "--net", "tap=t0", "vhost_user=true,socket=/run/vu.sock", "--cpus", "boot=1"]),
        ["vu.sock"]
    );
    assert_eq!(names(&["cloud-hypervisor", "--net=vhost_user=on,id=net7,socket=/s"]), ["net7"]);
    assert_eq!(names(&["crosvm", "run", "--vhost-user", "net,socket=/run/n.sock"]), ["n.sock"]);
    assert_eq!(names(&["crosvm", "run", "--vhost-user-net", "/run/o.sock"]), ["o.sock"]);
}

#[test]
fn other_network_devices_are_not_vhost_user() {
    let line = ["qemu", "-netdev", "tap,id=n0,ifname=vhost-user", "-nic", "user", "-netdev", "-name", "--net"];
    assert_eq!(names(&line), [""; 0]);
    assert_eq!(names(&["qemu", "-netdev", "{not json", "-net"]), [""; 0]);
}

struct Sys(tempfile::TempDir);

impl Sys {
    fn function(&self, group: &str, address: &str, class: &str, driver: &str, parent: Option<&str>) {
        let device = self.0.path().join("sys/devices/pci").join(address);
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("class"), format!("{class}\n")).unwrap();
        let drivers = self.0.path().join("sys/bus/pci/drivers").join(driver);
        fs::create_dir_all(&drivers).unwrap();
        symlink(&drivers, device.join("driver")).unwrap();
        if let Some(parent) = parent {
            symlink(self.0.path().join("sys/devices/pci").join(parent), device.join("physfn")).unwrap();
        }
        let members = self.0.path().join("sys/kernel/iommu_groups").join(group).join("devices");
        fs::create_dir_all(&members).unwrap();
        symlink(&device, members.join(address)).unwrap();
    }
}

#[test]
fn vfio_tells_network_functions_and_whose_they_are() {
    let sys = Sys(tempfile::tempdir().unwrap());
    sys.function("7", "0000:3b:00.0", "0x020000", "mlx5_core", None);
    sys.function("7", "0000:3b:02.1", "0x020000", "vfio-pci", Some("0000:3b:00.0"));
    sys.function("7", "0000:3b:03.0", "0x010802", "vfio-pci", None);
    sys.function("8", "0000:5e:00.0", "0x028000", "vfio-pci", None);
    let class = sys.0.path().join("sys/class/vfio-dev/vfio3");
    fs::create_dir_all(&class).unwrap();
    symlink(sys.0.path().join("sys/devices/pci/0000:5e:00.0"), class.join("device")).unwrap();
    let devices: Vec<PathBuf> = ["/dev/vfio/7", "/dev/vfio/vfio", "/dev/vfio/devices/vfio3", "/dev/vfio/99"]
        .iter()
        .map(PathBuf::from)
        .collect();
    let found = find(sys.0.path(), &[], &devices);
    let told: Vec<(&str, &str)> = found.iter().map(|one| (one.name.as_str(), one.reason.as_str())).collect();
    assert_eq!(
        told,
        [
            ("0000:3b:02.1", "vfio: virtual function of 0000:3b:00.0 (SR-IOV), passed through to the guest"),
            ("0000:5e:00.0", "vfio: network device passed through to the guest"),
        ]
    );
    assert!(found.iter().all(|one| one.kind == InterfaceKind::Vfio));
}

#[test]
fn a_vdpa_disk_is_no_network_device() {
    let devices = [PathBuf::from("/dev/vhost-vdpa-0"), PathBuf::from("/jail/dev/vhost-vdpa-1")];
    let line = args(&["qemu", "-blockdev", "node-name=d,driver=virtio-blk-vhost-vdpa,path=/dev/vhost-vdpa-0"]);
    let found = find(Path::new("/nowhere"), &line, &devices);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].name.as_str(), found[0].kind), ("vhost-vdpa-1", InterfaceKind::Vdpa));
}
