//! Laws of the reader: the right place or a refusal, whatever the bytes are, in bounded time.

use super::{Btf, BtfError, Place};

mod build;
mod mutation;

use build::{Blob, STRUCT, UNION, kernel};

/// The answer for one field of a blob made by `make`.
fn ask(make: impl Fn(&mut Blob), owner: &str, path: &str) -> Result<Place, BtfError> {
    let mut blob = Blob::default();
    make(&mut blob);
    Btf::parse(&blob.bytes()).and_then(|btf| btf.place(owner, path))
}

fn refused(make: impl Fn(&mut Blob), why: &str) {
    let error = ask(make, "task", "pid").unwrap_err().to_string();
    assert!(error.contains(why), "{error}");
}

#[test]
fn a_field_is_found_through_anonymous_members_and_qualifiers() {
    let bytes = kernel().bytes();
    let btf = Btf::parse(&bytes).unwrap();
    for (path, offset, size) in build::FIELDS {
        assert_eq!(btf.place("task_struct", path), Ok(Place { offset, size }), "{path}");
        assert_eq!(btf.offset_sized("task_struct", path, size), Ok(offset), "{path}");
    }
}

#[test]
fn a_missing_field_is_named_and_never_guessed() {
    let bytes = kernel().bytes();
    let btf = Btf::parse(&bytes).unwrap();
    for path in ["se.nothing", "pid.x", "", ".pid", "pid.", "se..depth"] {
        let error = btf.offset("task_struct", path).unwrap_err();
        assert_eq!(error, BtfError::NoField { owner: "task_struct".into(), field: path.into() });
    }
    assert_eq!(btf.offset("nobody", "x"), Err(BtfError::NoStruct("nobody".into())));
    assert_eq!(btf.offset("", "x"), Err(BtfError::NoStruct(String::new())), "anonymous structs have no name");
}

#[test]
fn a_field_of_another_size_or_off_its_boundary_is_refused() {
    let bytes = kernel().bytes();
    let btf = Btf::parse(&bytes).unwrap();
    let size = |found, offset, wanted| BtfError::Size { field: "pid".into(), found, offset, wanted };
    assert_eq!(btf.offset_sized("task_struct", "pid", 8), Err(size(4, 0, 8)));
    let crooked = |blob: &mut Blob| {
        let int = blob.int("int", 4);
        blob.aggregate(STRUCT, "task", 8, false, &[("pid", int, 16)]);
    };
    let mut blob = Blob::default();
    crooked(&mut blob);
    assert_eq!(Btf::parse(&blob.bytes()).unwrap().offset_sized("task", "pid", 4), Err(size(4, 2, 4)));
}

#[test]
fn a_bit_field_is_refused_also_where_it_begins_with_a_byte() {
    let bytes = kernel().bytes();
    let btf = Btf::parse(&bytes).unwrap();
    assert_eq!(btf.offset("task_struct", "frozen"), Err(BtfError::BitField("frozen".into())));
    let crooked = ask(
        |blob| {
            let int = blob.int("int", 4);
            blob.aggregate(STRUCT, "task", 8, false, &[("pid", int, 3)]);
        },
        "task",
        "pid",
    );
    assert_eq!(crooked, Err(BtfError::BitField("pid".into())));
    let old = |blob: &mut Blob| {
        let int = blob.int_of_bits("int", 4, 3);
        blob.aggregate(STRUCT, "task", 4, false, &[("pid", int, 0)]);
    };
    refused(old, "an integer does not fill its bytes");
}

#[test]
fn structs_that_no_compiler_makes_are_refused() {
    let with = |size, kind, members: &'static [(&'static str, u32)]| {
        move |blob: &mut Blob| {
            let int = blob.int("int", 4);
            let members: Vec<_> = members.iter().map(|(name, bits)| (*name, int, *bits)).collect();
            blob.aggregate(kind, "task", size, false, &members);
        }
    };
    refused(with(2, STRUCT, &[("pid", 0)]), "lie outside");
    refused(with(8, STRUCT, &[("pid", 64)]), "lie outside");
    refused(with(8, STRUCT, &[("pid", 0), ("tgid", 16)]), "overlap");
    refused(with(8, STRUCT, &[("pid", 32), ("tgid", 0)]), "overlap");
    refused(with(8, UNION, &[("pid", 0), ("tgid", 32)]), "overlap");
    refused(with(8, STRUCT, &[("pid", 0), ("pid", 32)]), "twice");
    assert_eq!(ask(with(8, UNION, &[("tgid", 0), ("pid", 0)]), "task", "pid"), Ok(Place { offset: 0, size: 4 }));
}

#[test]
fn types_that_are_not_there_or_never_end_are_refused() {
    let absent = |blob: &mut Blob| _ = blob.aggregate(STRUCT, "task", 8, false, &[("pid", 77, 0)]);
    refused(absent, "not there");
    let void = |blob: &mut Blob| _ = blob.aggregate(STRUCT, "task", 8, false, &[("pid", 0, 0)]);
    refused(void, "not there");
    // A typedef of itself, as a field's type and as an anonymous member's.
    for name in ["pid", ""] {
        refused(
            move |blob| {
                blob.wrap(8, 1);
                blob.aggregate(STRUCT, "task", 8, false, &[(name, 1, 0)]);
            },
            "refers to itself",
        );
    }
    // A struct that lies in itself.
    refused(|blob| _ = blob.aggregate(STRUCT, "task", 8, false, &[("", 1, 0)]), "refers to itself");
    // Anonymous structs as wide as they are deep would take a lookup ages.
    let wide = |blob: &mut Blob| {
        let mut inner = blob.aggregate(UNION, "", 0, false, &[]);
        for _ in 0..8 {
            inner = blob.aggregate(UNION, "", 0, false, &[("", inner, 0); 1000]);
        }
        blob.aggregate(UNION, "task", 0, false, &[("", inner, 0)]);
    };
    refused(wide, "too many members");
    let vast = |blob: &mut Blob| {
        let int = blob.int("int", 4);
        let array = blob.array(int, u32::MAX);
        blob.aggregate(STRUCT, "task", u32::MAX, false, &[("pid", array, 0)]);
    };
    refused(vast, "too large");
    let function = |blob: &mut Blob| {
        let function = blob.wrap(13, 0);
        blob.aggregate(STRUCT, "task", 8, false, &[("pid", function, 0)]);
    };
    refused(function, "has no size");
}

#[test]
fn two_structs_of_one_name_must_agree() {
    let two = |second: &'static str, at: u32| {
        move |blob: &mut Blob| {
            let int = blob.int("int", 4);
            blob.aggregate(STRUCT, "task", 8, false, &[("pid", int, 0)]);
            blob.aggregate(STRUCT, "task", 8, false, &[(second, int, at)]);
        }
    };
    assert_eq!(ask(two("pid", 0), "task", "pid"), Ok(Place { offset: 0, size: 4 }));
    let ambiguous = BtfError::Ambiguous { owner: "task".into(), field: "pid".into() };
    assert_eq!(ask(two("pid", 32), "task", "pid"), Err(ambiguous));
    assert!(matches!(ask(two("tgid", 0), "task", "pid"), Err(BtfError::NoField { .. })));
}

#[test]
fn a_damaged_frame_is_refused() {
    let whole = kernel().bytes();
    let changed = |at: usize, word: u32| {
        let mut bytes = whole.clone();
        bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        Btf::parse(&bytes).err().map(|error| error.to_string()).unwrap_or_default()
    };
    let word = |at: usize| u32::from_le_bytes(whole[at..at + 4].try_into().unwrap());
    let (types, strings) = (word(12), word(20));
    assert!(changed(0, 0x0100_9feb).contains("magic"), "the other byte order");
    assert!(changed(0, 0x0002_eb9f).contains("version"));
    for (at, value, why) in [
        (4, 23, "header"),
        (4, u32::MAX, "header"),
        (8, u32::MAX, "type section"),
        (12, u32::MAX, "type section"),
        (16, u32::MAX, "string section"),
        (20, u32::MAX, "string section"),
        (16, types - 1, "overlap"),
        (20, strings - 1, "more than the two"),
        (24, strings, "a name lies outside"),
        (28, 31 << 24, "kind"),
        (28, 1 << 24 | 1 << 16, "bits"),
    ] {
        let said = changed(at, value);
        assert!(said.contains(why), "{at} {value:#x}: {said:?}");
    }
    let mut open = whole.clone();
    *open.last_mut().unwrap() = b'x';
    assert!(Btf::parse(&open).is_err_and(|e| e.to_string().contains("empty name")));
}

#[test]
fn a_longer_header_may_tell_of_sections_that_are_not_read() {
    let whole = kernel().bytes();
    let mut longer = whole[..24].to_vec();
    longer[4..8].copy_from_slice(&32_u32.to_le_bytes());
    longer.extend([7; 8]);
    longer.extend(&whole[24..]);
    longer.extend([9; 40]);
    assert_eq!(Btf::parse(&longer).unwrap().offset("task_struct", "lost"), Ok(8));
}

#[test]
fn a_name_longer_than_the_kernel_allows_is_refused() {
    let mut blob = Blob::default();
    for _ in 0..1000 {
        blob.aggregate(STRUCT, "task", 0, false, &[]);
    }
    let long = blob.name(&"x".repeat(1_000_000));
    let mut bytes = blob.bytes();
    // The first struct is called that.
    bytes[24..28].copy_from_slice(&long.to_le_bytes());
    assert_eq!(Btf::parse(&bytes).err(), Some(BtfError::Format("a name is too long")));
}
