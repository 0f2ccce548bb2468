//! Law: one changed byte gives the right place or a refusal, unless it belongs to the very number that is asked for;
//! then the place lies inside the struct and on its boundary. Any damage at all gives an answer in bounded time.

use proptest::prelude::*;

use super::{
    super::Btf,
    build::{FIELDS, SIZE, kernel},
};

/// Where each field is said to be; nothing if the whole is refused.
fn given(bytes: &[u8]) -> Vec<Option<u32>> {
    let Ok(btf) = Btf::parse(bytes) else { return Vec::new() };
    FIELDS.iter().map(|(path, _, size)| btf.offset_sized("task_struct", path, *size).ok()).collect()
}

#[test]
fn any_one_byte_changed_gives_the_right_place_or_none() {
    let blob = kernel();
    let whole = blob.bytes();
    let (mut right, mut refused, mut moved) = (0, 0, 0);
    for at in 0..whole.len() {
        for change in 1..=u8::MAX {
            let mut bytes = whole.clone();
            bytes[at] ^= change;
            let answers = given(&bytes);
            refused += FIELDS.len() - answers.iter().flatten().count();
            for ((path, offset, size), answer) in FIELDS.iter().zip(answers) {
                let Some(answer) = answer else { continue };
                if answer == *offset {
                    right += 1;
                    continue;
                }
                assert!(blob.is_offset(at), "byte {at} ^ {change:#x}: {path} is at {answer}");
                assert!(answer + size <= SIZE && (*size == 16 || answer % size == 0), "{path} is at {answer}");
                moved += 1;
            }
        }
    }
    eprintln!("{right} right, {refused} refused, {moved} moved with their own number");
    assert!(right > 0 && refused > 0 && moved > 0);
}

#[test]
fn btf_cut_anywhere_is_refused() {
    let whole = kernel().bytes();
    for length in 0..whole.len() {
        assert!(Btf::parse(&whole[..length]).is_err(), "{length} of {} bytes", whole.len());
    }
}

proptest! {
    #[test]
    fn however_damaged_a_place_lies_inside_its_struct(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)
    ) {
        let mut bytes = kernel().bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(btf) = Btf::parse(&bytes) {
            for id in btf.structs.get(&b"task_struct"[..]).into_iter().flatten() {
                let size = btf.get(*id).unwrap().word;
                for (path, ..) in FIELDS {
                    if let Ok(place) = btf.place("task_struct", path) {
                        prop_assert!(place.offset.checked_add(place.size).is_some_and(|end| end <= size), "{} {:?}", path, place);
                    }
                }
            }
        }
    }

    #[test]
    fn bytes_of_any_kind_are_answered(header in 0u8..64, rest in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut bytes = vec![0x9f, 0xeb, 1, 0, header, 0, 0, 0];
        bytes.extend(rest);
        let _ = given(&bytes);
    }
}

/// Fields of a real kernel, with their sizes; every kernel served has them.
const REAL: [(&str, &str, u32); 6] = [
    ("task_struct", "pid", 4),
    ("task_struct", "se.sum_exec_runtime", 8),
    ("task_struct", "sched_info.run_delay", 8),
    ("task_struct", "comm", 16),
    ("signal_struct", "sum_sched_runtime", 8),
    ("mm_struct", "arg_start", 8),
];

/// Damaged near the structs asked for, in the header, or anywhere; more cases by `PROPTEST_CASES`.
#[test]
fn one_byte_changed_in_the_running_kernels_btf_gives_the_right_place_or_none() {
    let Ok(whole) = std::fs::read("/sys/kernel/btf/vmlinux") else { return };
    let places = |bytes: &[u8]| -> Vec<Option<u32>> {
        let Ok(btf) = Btf::parse(bytes) else { return Vec::new() };
        REAL.iter().map(|(owner, path, size)| btf.offset_sized(owner, path, *size).ok()).collect()
    };
    let right = places(&whole);
    assert!(right.iter().all(Option::is_some), "{right:?}");
    let btf = Btf::parse(&whole).unwrap();
    let header = usize::try_from(u32::from_le_bytes(whole[4..8].try_into().unwrap())).unwrap();
    let owners = ["task_struct", "sched_entity", "signal_struct", "mm_struct"];
    let spans: Vec<_> = owners
        .iter()
        .map(|owner| {
            let ty = btf.get(btf.structs[owner.as_bytes()][0]).unwrap();
            (header + ty.at, 12 + 12 * ty.len)
        })
        .collect();
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(24);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    });
    let inputs = (0usize..6, any::<prop::sample::Index>(), 1u8..);
    let law = |(aim, index, change): (usize, prop::sample::Index, u8)| {
        let (start, len) = spans.get(aim).copied().unwrap_or(if aim == 4 { (0, header) } else { (0, whole.len()) });
        let at = start + index.index(len);
        let mut bytes = whole.clone();
        bytes[at] ^= change;
        let number = spans.iter().any(|(from, len)| (from + 12..from + len).contains(&at) && (at - from) % 12 >= 8);
        for ((owner, path, _), (answer, right)) in REAL.iter().zip(places(&bytes).iter().zip(&right)) {
            prop_assert!(
                answer.is_none() || answer == right || number,
                "byte {}: {} {}: {:?}",
                at,
                owner,
                path,
                answer
            );
        }
        Ok(())
    };
    runner.run(&inputs, law).unwrap();
}
