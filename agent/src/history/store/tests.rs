use super::*;
use crate::history::{BLOCK, column::value};
use proptest::{collection::vec, prelude::*};

const STEP_NS: u64 = 10_000_000_000;

fn store(samples: usize, max_bytes: u64) -> Store {
    Store::new(Limits { samples, max_bytes })
}

fn sample(cpu: Option<f64>, memory: Option<u64>) -> Sample {
    Sample { cpu_percent: cpu, memory_used_bytes: memory, memory_limit_bytes: Some(1 << 30), ..Sample::default() }
}

/// Noise that does not compress well, the same at each call.
fn noise(n: u64) -> f64 {
    (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f64 / 1e4
}

fn fill(store: &Store, vm_id: &str, samples: u64) {
    let line = store.track(vm_id);
    for n in 0..samples {
        store.push(&line, n * STEP_NS, &sample(Some(noise(n)), Some(n << 12)));
    }
}

#[test]
fn tracking_twice_is_tracking_once_and_a_vm_that_begins_again_goes_on_with_its_line() {
    let store = store(1_000, 1 << 20);
    fill(&store, "a", 5);
    store.stopped("a", 100);
    store.stopped("a", 900);
    store.expire(99);
    fill(&store, "a", 5);
    store.expire(1_000);
    assert_eq!(store.len("a"), 10, "it runs again");
}

#[test]
fn a_stopped_vm_keeps_its_line_for_its_time_and_leaves_nothing_behind() {
    let store = store(100_000, 1 << 30);
    fill(&store, "a", 3 * BLOCK as u64);
    store.stopped("a", 100);
    store.stopped("a", 900);
    store.expire(99);
    assert_eq!(store.len("a"), 3 * BLOCK);
    store.expire(100);
    assert_eq!((store.len("a"), store.kept()), (0, account::past::Kept::default()));
}

#[test]
fn memory_is_bounded_and_what_the_bound_cost_is_counted() {
    let names: Vec<String> = (0..10).map(|n| format!("vm-{n}")).collect();
    // What the open blocks take, which cannot be let go: 16 bytes a row is more than these do.
    let open = names.len() as u64 * (BLOCK * 16) as u64;
    let most = open + 200_000;
    let store = store(1_000_000, most);
    let pushed = 20 * BLOCK as u64;
    for name in &names {
        fill(&store, name, pushed);
    }
    let stats = store.kept();
    let kept: usize = names.iter().map(|name| store.len(name)).sum();
    assert!(stats.bytes <= most + open, "{stats:?}");
    assert_eq!(stats.evicted + kept as u64, pushed * names.len() as u64, "each sample is kept or counted");
    assert!(stats.evicted > 0);
    let lengths: Vec<usize> = names.iter().map(|name| store.len(name)).collect();
    assert!(lengths[9] > lengths[0], "the oldest went first: {lengths:?}, {stats:?}");
}

#[test]
fn blocks_that_a_line_let_go_by_itself_are_not_remembered() {
    let store = store(BLOCK, 1 << 30);
    fill(&store, "a", 200 * BLOCK as u64);
    assert!(lock(&store.order).len() <= 4, "{}", lock(&store.order).len());
    assert_eq!(store.kept().evicted, 0, "its own bound is no loss");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// The reference keeps every row as it is and adds up by definition.
    #[test]
    fn answers_are_those_of_an_uncompressed_line(
        values in vec((0u64..20, proptest::option::of(0.0..1e9f64), proptest::option::of(any::<u32>())), 1..3 * BLOCK),
        since_s in 0u64..15_000, span_s in 1u64..30_000, resolution_s in 1u64..2_000,
    ) {
        let store = store(1_000_000, 1 << 30);
        let line = store.track("a");
        let mut reference = Vec::new();
        let mut at_s = 0;
        for (gap, cpu, memory) in values {
            at_s += gap;
            let taken = sample(cpu, memory.map(u64::from));
            store.push(&line, at_s * 1_000_000_000, &taken);
            reference.push(Row { at_ms: at_s * 1_000, codes: codes(&taken) });
        }
        let Ok(range) = Range::new(since_s * 1_000, (since_s + span_s) * 1_000, Some(resolution_s * 1_000), 1) else {
            return Ok(());
        };
        let told = store.range("a", &range).unwrap();
        prop_assert_eq!(told.len() as u64, range.count());
        for point in told {
            let end_ms = point.at_ms + range.resolution_ms;
            let within: Vec<&Row> = reference.iter().filter(|row| {
                (range.since_ms..range.until_ms).contains(&row.at_ms) && (point.at_ms..end_ms).contains(&row.at_ms)
            }).collect();
            prop_assert_eq!(point.count, within.len() as u64);
            for column in [0, 2] {
                let due: Vec<f64> = within.iter().filter_map(|row| value(column, row.codes[column])).collect();
                let Some(stat) = point.values[column] else {
                    prop_assert!(due.is_empty());
                    continue;
                };
                prop_assert_eq!(stat.min, due.iter().copied().fold(f64::INFINITY, f64::min));
                prop_assert_eq!(stat.max, due.iter().copied().fold(0.0, f64::max));
                prop_assert_eq!(Some(&stat.last), due.last());
                let mean = due.iter().sum::<f64>() / due.len() as f64;
                prop_assert!((stat.mean - mean).abs() <= mean.abs() * 1e-12);
            }
        }
    }
}
