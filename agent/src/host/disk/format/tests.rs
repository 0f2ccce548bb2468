use super::*;
use proptest::prelude::*;
use std::process::Command;

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..at + bytes.len()].copy_from_slice(bytes);
}

fn of(image: &[u8]) -> Option<Header> {
    read(&image).unwrap()
}

#[test]
fn a_qcow2_tells_its_size_and_its_backing_file() {
    let mut image = vec![0; 4096];
    put(&mut image, 0, b"QFI\xfb\0\0\0\x03");
    put(&mut image, 8, &512u64.to_be_bytes());
    put(&mut image, 16, &8u32.to_be_bytes());
    put(&mut image, 24, &(10u64 << 30).to_be_bytes());
    put(&mut image, 512, b"base.img");
    let header = of(&image).unwrap();
    assert_eq!((header.format, header.capacity_bytes), (Format::Qcow2, Ok(10 << 30)));
    assert_eq!(header.backing.as_deref(), Some("base.img"));
}

#[test]
fn a_header_that_is_cut_has_a_format_but_no_size() {
    assert_eq!(of(b"QFI\xfb\0\0\0\x03").unwrap().capacity_bytes, Err("its header is cut"));
    assert!(of(b"KDMV\x01\0\0\0").unwrap().capacity_bytes.is_err());
    assert!(of(b"vhdxfile").unwrap().capacity_bytes.is_err());
    let endless = b"# Disk DescriptorFile\nRW 99999999999999999999 FLAT \"x\" 0\nRW 1 FLAT \"y\" 0\n";
    assert!(of(endless).unwrap().capacity_bytes.is_err(), "no part of a sum is the sum");
    assert_eq!(of(&[0; 70_000]), None);
    assert_eq!(of(b""), None);
}

/// `qemu-img create`'s images, where it is installed; the integration tests need it anyway.
#[test]
fn sizes_are_those_that_qemu_img_tells() {
    let dir = tempfile::tempdir().unwrap();
    for (format, option) in [
        ("raw", ""),
        ("qcow", ""),
        ("qcow2", "compat=0.10"),
        ("qcow2", "compat=1.1,data_file=data.img"),
        ("vmdk", "subformat=monolithicSparse"),
        ("vmdk", "subformat=monolithicFlat"),
        ("vmdk", "subformat=twoGbMaxExtentSparse"),
        ("vmdk", "subformat=streamOptimized"),
        ("vhdx", ""),
        ("vdi", ""),
    ] {
        let path = dir.path().join(format!("{format}-{}", option.replace([',', '='], "-")));
        let size = (5u64 << 30) + (3 << 20);
        let mut command = Command::new("qemu-img");
        command.current_dir(dir.path()).args(["create", "-q", "-f", format]).arg(&path).arg(size.to_string());
        if !option.is_empty() {
            command.args(["-o", option]);
        }
        let Ok(status) = command.status() else { return };
        assert!(status.success(), "{format} {option}");
        let header = read(&File::open(&path).unwrap()).unwrap();
        let Some(header) = header else {
            assert_eq!(format, "raw");
            continue;
        };
        assert_eq!((header.format.as_str(), header.capacity_bytes), (format, Ok(size)), "{option}");
        let parts = header.parts.len();
        assert_eq!(
            parts,
            [0, 1, 3][usize::from(option.contains("data_file") || option.contains("Flat"))
                + 2 * usize::from(option.contains("twoGb"))]
        );
        assert!(header.parts.iter().all(|part| dir.path().join(part).exists()), "{:?}", header.parts);
    }
}

/// A header of each format, for hostile changes to begin from.
fn seeds() -> Vec<Vec<u8>> {
    let mut vhdx = vec![0; 1 << 20];
    put(&mut vhdx, 0, b"vhdxfile");
    put(&mut vhdx, 192 << 10, b"regi\0\0\0\0\x01\0\0\0");
    let region: [u8; 16] =
        [0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e];
    put(&mut vhdx, (192 << 10) + 16, &region);
    put(&mut vhdx, (192 << 10) + 32, &(512u64 << 10).to_le_bytes());
    put(&mut vhdx, 512 << 10, b"metadata\0\0\x01\0");
    let mut qcow = vec![0; 4096];
    put(&mut qcow, 0, b"QFI\xfb\0\0\0\x03");
    put(&mut qcow, 72, &4u64.to_be_bytes());
    put(&mut qcow, 100, &104u32.to_be_bytes());
    let mut vdi = vec![0; 512];
    put(&mut vdi, 64, &0xbeda_107fu32.to_le_bytes());
    let text = b"# Disk DescriptorFile\nRW 100 FLAT \"a\" 0\nRW 18446744073709551615 SPARSE \"b\"\n".to_vec();
    vec![vhdx, qcow, vdi, text, b"KDMV".repeat(40), b"COWD".repeat(40)]
}

proptest! {
    #[test]
    fn no_header_panics(
        seed in 0usize..6,
        changes in prop::collection::vec((0usize..4096, any::<u64>()), 0..12),
        tables in prop::collection::vec((0usize..128, any::<u8>()), 0..12),
        keep in 0usize..(1 << 20),
    ) {
        let mut image = seeds().swap_remove(seed);
        for (at, value) in changes {
            let length = image.len();
            if length >= 8 {
                put(&mut image, at % (length - 7), &value.to_le_bytes());
            }
        }
        for (at, value) in tables {
            for table in [192 << 10, 512 << 10] {
                if let Some(byte) = image.get_mut(table + at) {
                    *byte = value;
                }
            }
        }
        image.truncate(keep);
        let header = of(&image);
        prop_assert!(header.is_none_or(|header| header.parts.len() <= MAX_PARTS));
    }
}
