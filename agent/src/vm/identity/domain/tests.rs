//! Captured and hostile documents of libvirt's.

use proptest::prelude::*;

use super::*;

const STATE: &[u8] = include_bytes!("../../../../testdata/libvirt/run/libvirt/qemu/instance-0000002a.xml");
const PROJECT: &str = "d33b8c0e9b8a4a3f8d2c1b0a342d6901";

#[test]
fn a_state_file_tells_process_shape_and_owner() {
    let domain = parse(STATE).unwrap();
    assert_eq!((domain.pid, domain.vcpus, domain.mem_bytes), (Some(4242), Some(2), Some(384 << 20)));
    assert_eq!(domain.name.as_deref(), Some("instance-0000002a"));
    assert_eq!(domain.uuid.as_deref(), Some("6f1c2d3e-0000-4000-8000-0123456789ab"));
    assert_eq!(domain.owner.tenant.as_deref(), Some(PROJECT));
    let labels: Vec<_> = domain.owner.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(
        labels,
        [
            ("libosinfo.os", "http://debian.org/debian/12"),
            ("libvirt.title", "front end"),
            ("openstack.flavor", "m1.small"),
            ("openstack.image", "69f2991b-5c6f-4d3a-8f5e-0a1b2c3d4e5f"),
            ("openstack.name", "demo1vm"),
            ("openstack.project", "acmecorp"),
            ("openstack.user", "joe"),
        ]
    );
}

#[test]
fn a_definition_has_no_process_whatever_it_says() {
    let domain = parse(b"<domain pid='7'><name>a</name><vcpu>4</vcpu><memory unit='GiB'>2</memory></domain>");
    let domain = domain.unwrap();
    assert_eq!((domain.pid, domain.vcpus, domain.mem_bytes), (None, Some(4), Some(2 << 30)));
}

#[test]
fn what_libvirt_would_not_write_is_an_error_or_nothing() {
    let error = |raw: &[u8]| parse(raw).unwrap_err().to_string();
    assert_eq!(error(b"\xff"), "it is not UTF-8");
    assert_eq!(error(b"<domain>"), "it is no XML that is read here");
    assert_eq!(error(b"<network/>"), "it describes no domain");
    assert_eq!(error(b"<domstatus pid='1'/>"), "it describes no domain");
    let bomb = b"<!DOCTYPE d [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;&a;'>]><domain><name>&b;</name></domain>";
    assert_eq!(error(bomb), "it is no XML that is read here");
    let odd = "<domain><vcpu current='0'>4</vcpu><memory unit='parsec'>1</memory><uuid>x</uuid><name/></domain>";
    assert_eq!(parse(odd.as_bytes()).unwrap(), Facts::default());
    let huge = "<domain><memory unit='TiB'>18446744073709551615</memory></domain>";
    assert_eq!(parse(huge.as_bytes()).unwrap().mem_bytes, None);
    let many = format!("<domain>{}</domain>", "<a/>".repeat(200_001));
    assert_eq!(error(many.as_bytes()), "it is no XML that is read here");
    let deep = format!("{}{}", "<domain>".repeat(50_000), "</domain>".repeat(50_000));
    drop(parse(deep.as_bytes()));
}

#[test]
fn metadata_of_another_namespace_names_no_tenant() {
    let xml = "<domain><metadata><n:instance xmlns:n='http://example.org/nova/'><n:owner><n:project uuid='x'>y\
               </n:project></n:owner></n:instance></metadata></domain>";
    assert_eq!(parse(xml.as_bytes()).unwrap().owner, Owner::default());
}

#[test]
fn a_name_that_leads_elsewhere_is_no_files() {
    for name in ["", ".", "..", "../x", "a/b", ".hidden", "a\0b"] {
        assert_eq!(file_stem(name.as_bytes()), None, "{name:?}");
    }
    assert_eq!(file_stem(b"\xff"), None);
    assert_eq!(file_stem(b"web 1"), Some("web 1"));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(at in 0usize..STATE.len(), with in prop::collection::vec(any::<u8>(), 0..40)) {
        let mut raw = STATE.to_vec();
        let end = (at + with.len()).min(raw.len());
        raw.splice(at..end, with);
        if let Ok(domain) = parse(&raw) {
            prop_assert!(domain.vcpus != Some(0) && domain.mem_bytes != Some(0));
            prop_assert!(domain.owner.labels.values().all(|value| value.len() <= 128));
        }
    }
}
