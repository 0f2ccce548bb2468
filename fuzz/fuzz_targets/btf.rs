//! BTF of any bytes: no panic, no hang, and a place that is given lies inside the struct's 32 bits and on its boundary.
#![no_main]

use kvmeter::bpf::{
    btf::Btf,
    offsets::{self, FIELDS},
};
use libfuzzer_sys::fuzz_target;

/// A sound frame around these types, with every name that is asked for among the strings.
fn framed(types: &[u8]) -> Vec<u8> {
    let words = FIELDS
        .iter()
        .flat_map(|field| field.paths.iter().flat_map(|path| path.split('.')).chain([field.owner]).collect::<Vec<_>>());
    let mut strings = vec![0];
    words.for_each(|word| strings.extend(word.bytes().chain([0])));
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(0).to_le_bytes();
    let sizes = [24_u32.to_le_bytes(), [0; 4], length(types), length(types), length(&strings)];
    [&[0x9f, 0xeb, 1, 0][..], sizes.as_flattened(), types, &strings].concat()
}

fuzz_target!(|data: &[u8]| {
    let (framing, rest) = data.split_first().unwrap_or((&0, &[]));
    let bytes = if framing % 2 == 0 { framed(rest) } else { rest.to_vec() };
    let Ok(btf) = Btf::parse(&bytes) else { return };
    let all = offsets::resolve(&btf);
    assert_eq!(all.len(), FIELDS.len());
    for (field, path) in FIELDS.iter().flat_map(|field| field.paths.iter().map(move |path| (field, path))) {
        let Ok(place) = btf.place(field.owner, path) else { continue };
        assert!(place.offset.checked_add(place.size).is_some());
        assert_eq!(btf.offset(field.owner, path), Ok(place.offset));
        for size in [4, 8, 16] {
            if let Ok(offset) = btf.offset_sized(field.owner, path, size) {
                assert!(offset == place.offset && place.size == size && (size == 16 || offset % size == 0));
            }
        }
    }
});
