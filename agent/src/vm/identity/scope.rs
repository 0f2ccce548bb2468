//! What the control group of a VMM says of its VM: the name a machine was registered under, and the pod it belongs to.
//!
//! Who puts a process into a group is the host's manager, not the VM's owner, so its word counts for more than the
//! command line's. Sources: systemd's unit-name escapes (systemd-escape), libvirt's `machine-qemu\x2d1\x2dname.scope`
//! and `qemu-1-name.libvirt-qemu`, the kubelet's `kubepods` slices of both drivers.

use super::text;

/// What a group's path says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The machine's name, where it was registered as a VM's.
    pub name: Option<String>,
    /// The UID of its pod.
    pub pod_uid: Option<String>,
}

/// Reads the path of a control group.
#[must_use]
pub fn read(path: &str) -> Scope {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    Scope { name: parts.iter().rev().find_map(|part| machine(part)), pod_uid: pod(&parts) }
}

/// `machine-qemu\x2d1\x2dname.scope`, or without systemd `qemu-1-name.libvirt-qemu`.
fn machine(part: &str) -> Option<String> {
    let registered = match (part.strip_prefix("machine-"), part.strip_suffix(".libvirt-qemu")) {
        (Some(unit), _) => unescape(unit.strip_suffix(".scope")?)?,
        (_, Some(plain)) => plain.as_bytes().to_vec(),
        _ => return None,
    };
    // The driver, and the number it gave this life.
    let rest = registered.strip_prefix(b"qemu-")?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    text(rest.get(digits..)?.strip_prefix(b"-").filter(|_| digits > 0)?)
}

/// systemd writes what may not stand in a unit's name as `\x` and two hexadecimal digits.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(1..3).filter(|_| rest.first() == Some(&b'x'))?).ok()?;
        out.push(u8::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))?);
        rest = rest.get(3..)?;
    }
    Some(out)
}

/// `kubepods.slice/…/kubepods-burstable-pod<uid>.slice` with `_` for `-`, or `kubepods/burstable/pod<uid>`.
fn pod(parts: &[&str]) -> Option<String> {
    let (first, below) =
        parts.iter().position(|part| part.starts_with("kubepods")).map(|at| parts.split_at(at))?.1.split_first()?;
    std::iter::once(first).chain(below).find_map(|part| {
        let uid = match part.strip_suffix(".slice") {
            Some(unit) => unit.strip_prefix("kubepods-")?.rsplit('-').next()?.strip_prefix("pod")?.replace('_', "-"),
            None => part.strip_prefix("pod")?.to_owned(),
        };
        let shaped = (1..=64).contains(&uid.len()) && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        shaped.then_some(uid)
    })
}

/// The namespace in KubeVirt's name of a domain, `<namespace>_<name>`; neither part can have an underscore.
#[must_use]
pub fn kubevirt_namespace(name: &str) -> Option<&str> {
    let (namespace, vm) = name.split_once('_')?;
    let is_label = |text: &str| {
        (1..=63).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-')
    };
    // A VM's name is a subdomain: labels joined by dots.
    (is_label(namespace) && vm.split('.').all(is_label)).then_some(namespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn machines_of_libvirt_have_their_names_back() {
        for (path, name) in [
            (r"/machine.slice/machine-qemu\x2d1\x2dweb\x2d1.scope", Some("web-1")),
            (
                r"/machine.slice/machine-qemu\x2d12\x2dinstance\x2d0000002a.scope/libvirt/emulator",
                Some("instance-0000002a"),
            ),
            (r"/machine.slice/machine-qemu\x2d1\x2da\x20b.scope", Some("a b")),
            ("/machine/qemu-3-db.libvirt-qemu/vcpu0", Some("db")),
            (r"/machine.slice/machine-lxc\x2d1\x2dx.scope", None),
            (r"/machine.slice/machine-qemu\x2d\x2dx.scope", None),
            (r"/machine.slice/machine-qemu\x2d1\x2d.scope", None),
            (r"/machine.slice/machine-qemu\x2d1\x2dx\xzz.scope", None),
            (r"/machine.slice/machine-qemu\x2d1\x2dx\x2", None),
            ("/system.slice/kvmeter.service", None),
            ("", None),
        ] {
            assert_eq!(read(path).name.as_deref(), name, "{path}");
        }
    }

    #[test]
    fn pods_of_both_cgroup_drivers_are_known() {
        let uid = "82e8dbfd-6679-4ecb-ba20-c3389d04414d";
        for path in [
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod82e8dbfd_6679_4ecb_ba20_c3389d04414d.slice/cri-containerd-0a1b.scope",
            "/kubepods.slice/kubepods-pod82e8dbfd_6679_4ecb_ba20_c3389d04414d.slice/crio-1.scope",
            "/kubepods/besteffort/pod82e8dbfd-6679-4ecb-ba20-c3389d04414d/0a1b2c",
            "/system.slice/k3s.service/kubepods/pod82e8dbfd-6679-4ecb-ba20-c3389d04414d",
        ] {
            assert_eq!(read(path).pod_uid.as_deref(), Some(uid), "{path}");
        }
        for path in ["/pod1234", "/kubepods/podgarbage!", "/kubepods/burstable", "/kubepods.slice/kubepods-pod.slice"] {
            assert_eq!(read(path).pod_uid, None, "{path}");
        }
    }

    #[test]
    fn kubevirts_names_have_their_namespace_in_front() {
        assert_eq!(kubevirt_namespace("default_testvm-2"), Some("default"));
        assert_eq!(kubevirt_namespace("hc-zone-cz-2-10291_vm-s2qh4m65"), Some("hc-zone-cz-2-10291"));
        for name in ["web", "Default_x", "a_b_c", "_x", "x_", "-a_b"] {
            assert_eq!(kubevirt_namespace(name), None, "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_path_makes_it_panic(path in r"(/|machine-qemu|\\x2d|\\x|kubepods|\.slice|-pod|\.scope|[a-f0-9_-]|\PC){0,40}") {
            let scope = read(&path);
            prop_assert!(scope.name.is_none_or(|name| !name.is_empty() && name.len() <= 128));
            prop_assert!(scope.pod_uid.is_none_or(|uid| uid.len() <= 64));
        }
    }
}
