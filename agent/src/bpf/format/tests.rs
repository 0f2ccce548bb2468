//! Laws of reading a record's layout: the right place or a refusal.

use proptest::prelude::*;

use super::{FormatError, MAX_BYTES, MAX_FIELDS, RecordLayout, Wrong};

const COMMON: [(&str, u32, u32, u32); 4] = [
    ("unsigned short common_type", 0, 2, 0),
    ("unsigned char common_flags", 2, 1, 0),
    ("unsigned char common_preempt_count", 3, 1, 0),
    ("int common_pid", 4, 4, 1),
];

/// The text of a tracepoint with these fields after the common ones: declaration, offset, size, sign.
fn text(name: &str, fields: &[(&str, u32, u32, u32)]) -> String {
    let line = |(declaration, offset, size, signed): &(&str, u32, u32, u32)| {
        format!("\tfield:{declaration};\toffset:{offset};\tsize:{size};\tsigned:{signed};\n")
    };
    let (common, own): (String, String) = (COMMON.iter().map(line).collect(), fields.iter().map(line).collect());
    format!("name: {name}\nID: 103\nformat:\n{common}\n{own}\nprint fmt: \"reason %u\", REC->exit_reason\n")
}

/// Shapes of kvm_exit over the years: before 5.16, until `requests`, and since.
fn kvm_exit() -> [(String, u32, u32); 4] {
    let old = [
        ("unsigned int exit_reason", 8, 4, 0),
        ("unsigned long guest_rip", 16, 8, 0),
        ("u32 isa", 24, 4, 0),
        ("u64 info1", 32, 8, 0),
        ("u64 info2", 40, 8, 0),
    ];
    let middle = [
        ("unsigned int vcpu_id", 8, 4, 0),
        ("unsigned int exit_reason", 12, 4, 0),
        ("unsigned long guest_rip", 16, 8, 0),
        ("u32 isa", 24, 4, 0),
        ("u64 info1", 32, 8, 0),
        ("u32 intr_info", 40, 4, 0),
    ];
    let new =
        [&old[..], &[("u32 intr_info", 48, 4, 0), ("u32 error_code", 52, 4, 0), ("unsigned int vcpu_id", 56, 4, 0)]];
    let newest = [&new.concat()[..], &[("u64 requests", 64, 8, 0)]].concat();
    [
        (text("kvm_exit", &old), 8, 24),
        (text("kvm_exit", &middle), 12, 24),
        (text("kvm_exit", &new.concat()), 8, 24),
        (text("kvm_exit", &newest), 8, 24),
    ]
}

#[test]
fn the_reason_is_found_in_each_shape_of_the_record() {
    for (text, reason, isa) in kvm_exit() {
        let layout = RecordLayout::parse(&text).unwrap();
        assert_eq!((layout.name.as_str(), layout.id), ("kvm_exit", 103));
        assert_eq!((layout.offset("exit_reason", 4), layout.offset("isa", 4)), (Ok(reason), Ok(isa)), "{text}");
    }
    let arm64 = [("int ret", 8, 4, 1), ("unsigned int esr_ec", 12, 4, 0), ("unsigned long vcpu_pc", 16, 8, 0)];
    let layout = RecordLayout::parse(&text("kvm_exit", &arm64)).unwrap();
    assert_eq!((layout.offset("ret", 4), layout.offset("esr_ec", 4)), (Ok(8), Ok(12)));
    assert!(layout.field("ret").unwrap().signed && !layout.field("esr_ec").unwrap().signed);
    assert!(layout.offset("exit_reason", 4).unwrap_err().to_string().contains("kvm_exit has no field exit_reason"));
}

#[test]
fn declarations_of_every_form_have_a_type_and_a_name() {
    let fields = [
        ("char comm[16]", 8, 16, 0),
        ("__data_loc char[] name", 24, 4, 0),
        ("struct page * page", 32, 8, 0),
        ("void *call_site", 40, 8, 0),
        ("u8 tail[]", 48, 0, 0),
    ];
    let layout = RecordLayout::parse(&text("mixed", &fields)).unwrap();
    let own: Vec<_> = layout.fields[4..].iter().map(|f| (f.kind.as_str(), f.name.as_str())).collect();
    assert_eq!(
        own,
        [
            ("char[16]", "comm"),
            ("__data_loc char[]", "name"),
            ("struct page *", "page"),
            ("void *", "call_site"),
            ("u8[]", "tail")
        ]
    );
    assert_eq!(layout.offset("page", 8), Ok(32));
    assert!(matches!(layout.offset("comm", 16), Err(FormatError::Shape { .. })), "no integer");
    assert!(matches!(layout.offset("tail", 0), Err(FormatError::Shape { .. })));
}

#[test]
fn another_size_than_the_readers_is_refused_by_name() {
    let layout = RecordLayout::parse(&text("e", &[("u64 exit_reason", 8, 8, 0), ("u32 odd", 16, 2, 0)])).unwrap();
    let error = layout.offset("exit_reason", 4).unwrap_err().to_string();
    assert_eq!(error, "field exit_reason of e is `u64`, 8 bytes at 8, not 4 bytes on their boundary");
    let crooked = RecordLayout::parse(&text("e", &[("u16 a", 8, 2, 0), ("u32 b", 10, 4, 0)])).unwrap();
    assert!(matches!(crooked.offset("b", 4), Err(FormatError::Shape { .. })));
}

fn refusal(text: &str) -> (usize, Wrong) {
    match RecordLayout::parse(text) {
        Err(FormatError::Line { line, what }) => (line, what),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_cannot_be_a_record_is_refused_by_line() {
    let twice = text("e", &[("u32 a", 8, 4, 0), ("u64 a", 16, 8, 0)]);
    assert_eq!(refusal(&twice), (10, Wrong::Twice("a".into())));
    let overlap = text("e", &[("u64 a", 8, 8, 0), ("u64 b", 12, 8, 0)]);
    assert_eq!(refusal(&overlap), (10, Wrong::Place("b".into())));
    let gap = text("e", &[("u32 a", 8, 4, 0), ("u64 b", 24, 8, 0)]);
    assert_eq!(refusal(&gap), (10, Wrong::Place("b".into())));
    let backwards = text("e", &[("u32 a", 12, 4, 0), ("u32 b", 8, 4, 0)]);
    assert_eq!(refusal(&backwards), (9, Wrong::Place("a".into())));
    for (from, to) in [("\toffset:8", "\toffset:+8"), ("size:8;", "size:08;"), ("signed:0;\n\n", "signed:2;\n\n")] {
        let text = text("e", &[("u64 a", 8, 8, 0)]).replacen(from, to, 1);
        assert!(matches!(refusal(&text), (_, Wrong::Expected(_))), "{text}");
    }
    assert_eq!(RecordLayout::parse(&" ".repeat(MAX_BYTES + 1)), Err(FormatError::TooLong(MAX_BYTES + 1)));
    assert_eq!(refusal("").1, Wrong::Expected("`name:`"));
}

#[test]
fn the_number_of_fields_is_bounded() {
    let names: Vec<_> = (0..MAX_FIELDS).map(|i| format!("u8 f{i}")).collect();
    let fields: Vec<_> = names.iter().zip(8..).map(|(name, at)| (name.as_str(), at, 1, 0)).collect();
    let most = MAX_FIELDS - COMMON.len();
    assert!(RecordLayout::parse(&text("e", &fields[..most])).is_ok());
    assert_eq!(refusal(&text("e", &fields[..=most])).1, Wrong::TooMany);
}

#[test]
fn the_running_kernels_records_are_read_whole() {
    let root = "/sys/kernel/tracing/events";
    let Ok(systems) = std::fs::read_dir(root) else { return };
    let (mut read, mut refused) = (0, Vec::new());
    for system in systems.flatten().filter(|entry| entry.path().is_dir()) {
        for event in std::fs::read_dir(system.path()).unwrap().flatten() {
            let Ok(text) = std::fs::read_to_string(event.path().join("format")) else { continue };
            match RecordLayout::parse(&text) {
                Ok(layout) => {
                    assert_eq!(layout.name.as_str(), event.file_name().to_str().unwrap());
                    assert_eq!(layout.fields.len(), text.matches("\tfield:").count(), "{text}");
                    read += 1;
                }
                Err(error) => refused.push(format!("{}: {error}", event.path().display())),
            }
        }
    }
    eprintln!("{read} records read, {} refused:\n{}", refused.len(), refused.join("\n"));
    assert!(!refused.iter().any(|line| line.contains("/kvm")) && refused.len() * 100 <= read, "{refused:#?}");
    if let Ok(text) = std::fs::read_to_string(format!("{root}/kvm/kvm_exit/format")) {
        let layout = RecordLayout::parse(&text).unwrap();
        let arm64 = layout.field("esr_ec").is_some();
        let names = if arm64 { ["ret", "esr_ec"] } else { ["exit_reason", "isa"] };
        assert!(names.into_iter().all(|name| layout.offset(name, 4).is_ok()));
    }
}

/// The fields a program may ask for. No two names are one letter apart: a name that became another's tells a lie that no
/// reader sees.
const ASKED: [(&str, u32); 6] =
    [("exit_reason", 4), ("guest_rip", 8), ("isa", 4), ("info1", 8), ("error_code", 4), ("vcpu_id", 4)];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn damaged_text_gives_the_right_place_or_none(
        shape in 0usize..4, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let whole = kvm_exit()[shape].0.clone();
        let right = RecordLayout::parse(&whole).unwrap();
        let mut bytes = whole.into_bytes();
        // Digits most of all: they are what could be wrong without a sign of it.
        let letters = b"0123456789012345678901234567890123456789;:\n\t [*fx";
        for (at, letter) in changes {
            let at = at.index(bytes.len());
            bytes[at] = *letter.get(letters);
        }
        bytes.truncate(cut.map_or(usize::MAX, |cut| cut.index(bytes.len())));
        if let Ok(layout) = RecordLayout::parse(std::str::from_utf8(&bytes).unwrap()) {
            for (name, size) in ASKED {
                if let Ok(offset) = layout.offset(name, size) {
                    prop_assert_eq!(Ok(offset), right.offset(name, size), "{} in {}", name, String::from_utf8_lossy(&bytes));
                }
            }
        }
    }

    #[test]
    fn any_text_is_a_layout_or_an_error(text in "\\PC{0,200}", at in any::<prop::sample::Index>()) {
        let mut whole = kvm_exit()[3].0.clone();
        whole.insert_str(at.index(whole.len()), &text);
        let _ = RecordLayout::parse(&text);
        let _ = RecordLayout::parse(&whole);
    }
}
