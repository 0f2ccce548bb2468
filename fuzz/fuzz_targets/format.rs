//! Format files of any text: no panic, and fields that are told follow one another, each under one name.
#![no_main]

use kvmeter::bpf::format::{MAX_FIELDS, RecordLayout};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(layout) = std::str::from_utf8(data).map_err(drop).and_then(|text| RecordLayout::parse(text).map_err(drop))
    else {
        return;
    };
    assert!(layout.fields.len() <= MAX_FIELDS);
    let mut end = 0;
    for field in &layout.fields {
        assert!(field.offset >= end && field.offset < end + 8, "{field:?}");
        end = field.offset + field.size;
        let same = layout.fields.iter().filter(|other| other.name == field.name).count();
        assert_eq!(same, 1, "{field:?}");
        for size in [0, 1, 2, 4, 8] {
            if let Ok(offset) = layout.offset(&field.name, size) {
                assert!(offset == field.offset && size == field.size && offset % size == 0, "{field:?}");
            }
        }
    }
});
