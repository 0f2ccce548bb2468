//! Laws of patterns.

use super::*;
use proptest::prelude::*;

fn image(text: &str) -> Pattern {
    Pattern::parse(text, Use::Image).unwrap()
}

fn snapshot(text: &str) -> Pattern {
    Pattern::parse(text, Use::Snapshot).unwrap()
}

fn read(pattern: &Pattern, path: &str) -> Option<(String, String)> {
    let path: Vec<&str> = path.split('/').collect();
    pattern.read(&path).map(|name| (name.vm_id, name.snapshot_id))
}

fn vm(id: &str) -> Option<(String, String)> {
    Some((id.to_owned(), String::new()))
}

#[test]
fn a_placeholder_takes_as_much_as_it_can_from_the_left() {
    assert_eq!(read(&image("{vm_id}.qcow2"), "web-1.qcow2"), vm("web-1"));
    assert_eq!(read(&image("{vm_id}-{disk}.qcow2"), "web-1-root.qcow2"), vm("web-1"));
    assert_eq!(read(&image("{vm_id}-{disk}.qcow2"), "web-1-a-b.qcow2"), vm("web-1-a"));
    let uuid = "6F1F0F6E-9d0c-4b8e-8f0a-2f5d1d7c9a11";
    let told = uuid.to_lowercase();
    assert_eq!(read(&image("{vm_id:uuid}-{disk}.qcow2"), &format!("{uuid}-a-b.qcow2")), vm(&told));
    assert_eq!(read(&image("vm-{vm_id:uuid}"), "vm-web"), None);
    assert_eq!(read(&image("{vm_id}.*"), "a.b.c"), vm("a.b"));
    assert_eq!(read(&image("template-*.img"), "template-.img"), vm(""));
    let both = Some(("web".to_owned(), "monday".to_owned()));
    assert_eq!(read(&snapshot("{vm_id}@{snapshot_id}.qcow2"), "web@monday.qcow2"), both);
}

#[test]
fn what_does_not_fit_says_nothing() {
    for name in ["web.qcow", ".qcow2", "web/1.qcow2", "wéb.qcow2", "web.qcow2 ", "a b.qcow2"] {
        assert_eq!(read(&image("{vm_id}.qcow2"), name), None, "{name}");
    }
    let long = format!("{}.qcow2", "a".repeat(65));
    assert_eq!(read(&image("{vm_id}.qcow2"), &long), None, "no vm_id is that long");
}

#[test]
fn a_directory_and_what_is_in_it_name_the_same_vm() {
    let deep = image("{vm_id}/{vm_id}-{disk}.img");
    assert_eq!(read(&deep, "a/a-0.img"), vm("a"));
    assert_eq!(read(&deep, "a/b-0.img"), None);
    assert!(deep.enters(&["a"]) && deep.enters(&[]) && !deep.enters(&["a b"]) && !deep.enters(&["a", "a-0.img"]));
}

#[test]
fn mistakes_are_told() {
    use PatternError::*;
    let of = |text: &str, is| Pattern::parse(text, is).unwrap_err();
    for (text, error) in [
        ("", Length),
        ("/a", Path),
        ("a/../b", Path),
        ("a//b", Path),
        ("a/b/c/d/e", Depth),
        ("{vm_id", Brace),
        ("vm_id}", Brace),
        ("{vm_id}{disk}", Touching),
        ("{vm_id}*", Touching),
        ("{vm_id}-{vm_id:uuid}", Twice),
        ("{snapshot_id}", Snapshot),
        ("{vm}", Unknown("vm".into())),
        (&"*a".repeat(9), Pieces),
    ] {
        assert_eq!(of(text, Use::Image), error, "{text}");
    }
    assert_eq!(of("{vm_id}", Use::Snapshot), NoSnapshot);
}

#[test]
fn a_name_made_to_be_slow_is_not() {
    let slow = image("*a*a*a*a*a*a*a*b");
    let began = std::time::Instant::now();
    assert_eq!(read(&slow, &"a".repeat(255)), None);
    // Every way to cut it up, one after the other, would take years.
    assert!(began.elapsed().as_secs() < 60);
}

proptest! {
    #[test]
    fn a_name_built_from_its_parts_gives_them_back(
        vm in "[A-Za-z0-9_.]{1,30}", snap in "[A-Za-z0-9._+-]{1,30}", deep in any::<bool>(),
    ) {
        prop_assume!(!is_uuid(&vm));
        let (pattern, path) = match deep {
            true => (snapshot("{vm_id}/{snapshot_id}.mem"), format!("{vm}/{snap}.mem")),
            false => (snapshot("{vm_id}@{snapshot_id}.mem"), format!("{vm}@{snap}.mem")),
        };
        prop_assert_eq!(read(&pattern, &path), Some((vm, snap)));
    }

    #[test]
    fn no_text_panics_and_what_fits_is_well_formed(text in "\\PC{0,20}|[{}*a-c/@]{0,20}", path in "\\PC{0,20}|[a-c/@]{0,20}") {
        for is in [Use::Image, Use::Snapshot] {
            let Ok(pattern) = Pattern::parse(&text, is) else { continue };
            prop_assert_eq!(pattern.to_string(), text.clone());
            let path: Vec<&str> = path.split('/').collect();
            let _ = pattern.enters(&path);
            if let Some(name) = pattern.read(&path) {
                prop_assert!(name.vm_id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b)));
                prop_assert!(name.vm_id.len() <= 64 && name.snapshot_id.len() <= 128);
                prop_assert_eq!(name.snapshot_id.is_empty(), is == Use::Image);
            }
        }
    }
}
