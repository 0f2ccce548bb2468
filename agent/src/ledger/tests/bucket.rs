//! The two great laws of adding up, for any lives and any files: buckets sum to the whole, and files do not matter.

use proptest::prelude::*;
use serde_json::Value;

use super::super::rollup::{By, Order, Period};
use super::rollup::{ORDER, add_up, rows, sum};
use super::synth::{Book, HOUR};
use super::*;

/// What happens next in a life: after how long, what grew, and whether the VM is resized, or the clock set.
type Step = (u64, [u32; 4], Option<u32>, i64);

prop_compose! {
    fn steps()(steps in proptest::collection::vec(
        (
            prop_oneof![0..10 * SECOND, 0..40 * HOUR],
            any::<[u32; 4]>(),
            prop_oneof![3 => Just(None), 1 => (1..64_u32).prop_map(Some)],
            prop_oneof![9 => Just(0), 1 => -86_400_i64..86_400],
        ),
        0..12,
    )) -> Vec<Step> { steps }
}

/// What the buckets of a VM must sum to.
#[derive(Debug, Default, PartialEq)]
struct Whole {
    running: u128,
    vcpu: u128,
    mem: u128,
    cpu: u128,
    mem_used: u128,
    received: u128,
}

/// Writes a life step by step; the last step is a stop where `ends`.
fn live(book: &mut Book, n: u32, steps: &[Step], ends: bool) -> Whole {
    let (mut unix, mut mono, mut cpu, mut whole) = (T0, 50 * SECOND, 2_u32, Whole::default());
    let mut start = book.vm(Kind::VmComputeStart, n, unix, mono);
    start.shape = Shape { cpu, mem_bytes: 1 << 30, storage_bytes: 0 };
    book.write(&start);
    for (at, (after, grown, resized, set)) in steps.iter().enumerate() {
        unix = unix.saturating_add_signed(set * 1_000_000_000) + after;
        mono += after;
        whole.running += u128::from(*after);
        whole.vcpu += u128::from(*after) * u128::from(cpu);
        whole.mem += u128::from(*after) << 30;
        whole.cpu += u128::from(grown[0]) + u128::from(grown[1]);
        whole.mem_used += u128::from(grown[2]) << 60;
        whole.received += u128::from(grown[3]);
        cpu = resized.unwrap_or(cpu);
        let kind = match (ends && at + 1 == steps.len(), resized) {
            (true, _) => Kind::VmComputeStop,
            (false, Some(_)) => Kind::VmComputeResize,
            (false, None) => Kind::VmComputeUsage,
        };
        let mut line = book.vm(kind, n, unix, mono);
        line.shape = Shape { cpu, mem_bytes: 1 << 30, storage_bytes: 0 };
        line.slot = Some(at as u64 + 1);
        line.usage = Some(Usage {
            cpu_vcpu_ns: Some(u64::try_from(whole.cpu).unwrap()),
            cpu_vmm_ns: Some(0),
            mem_byte_ns: Some(whole.mem_used),
            net: vec![NetUsage {
                interface: format!("tap{}", at % 2),
                class: "external".into(),
                receive_bytes: u64::try_from(whole.received).unwrap(),
                ..NetUsage::default()
            }],
            ..Usage::default()
        });
        book.write(&line);
    }
    whole
}

/// Cuts lines into files at random places, with some lines in two files, named in any order.
fn scatter(dir: &Path, lines: &[Vec<u8>], cuts: &[proptest::sample::Index], again: bool) -> Vec<PathBuf> {
    let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(lines.len() + 1)).collect();
    ends.extend([0, lines.len()]);
    ends.sort_unstable();
    let pieces = ends.windows(2).map(|pair| &lines[pair[0].saturating_sub(usize::from(again))..pair[1]]);
    let mut files: Vec<_> = pieces
        .enumerate()
        .map(|(at, piece)| {
            let path = dir.join(format!("{at}.jsonl"));
            fs::write(&path, piece.concat()).unwrap();
            path
        })
        .collect();
    files.reverse();
    files
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn buckets_sum_to_the_whole_of_every_life(
        lives in proptest::collection::vec((steps(), any::<bool>()), 1..4), day in any::<bool>(),
    ) {
        let root = tempfile::tempdir().unwrap();
        let mut book = Book::new(1);
        let expected: Vec<_> = (0..).zip(&lives).map(|(n, (steps, ends))| live(&mut book, n, steps, *ends)).collect();
        let file = book.save(&root.path().join("ledger.jsonl"));
        let period = if day { Period::Day } else { Period::Hour };
        let (text, notes) = add_up(std::slice::from_ref(&file), Order { period, ..ORDER });
        prop_assert_eq!(notes.faults_total, 0, "{:?}", notes.faults);
        let rows = rows(&text);
        for (n, expected) in expected.into_iter().enumerate() {
            let vm = format!("vm-{n}");
            let of = |column| sum(&rows, &[("vm_id", &vm)], column).unwrap_or(0);
            let found = Whole {
                running: of("running_ns"), vcpu: of("vcpu_allocated_ns"), mem: of("mem_allocated_byte_ns"),
                cpu: of("cpu_used_ns"), mem_used: of("mem_used_byte_ns"), received: of("network_receive_bytes"),
            };
            prop_assert_eq!(found, expected);
        }
        for by in [By::Tenant, By::Host, By::All] {
            let (text, _) = add_up(std::slice::from_ref(&file), Order { period, by, ..ORDER });
            for column in ["running_ns", "cpu_used_ns", "mem_used_byte_ns", "network_receive_bytes"] {
                let together = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
                prop_assert_eq!(sum(&together, &[], column), sum(&rows, &[], column));
            }
        }
    }

    #[test]
    fn neither_cuts_nor_order_nor_repetition_of_files_change_a_byte(
        one in steps(), other in steps(), cuts in any::<[proptest::sample::Index; 3]>(), again in any::<bool>(),
    ) {
        let root = tempfile::tempdir().unwrap();
        let (mut first, mut second) = (Book::new(1), Book::new(2));
        live(&mut first, 1, &one, true);
        live(&mut first, 2, &other, false);
        live(&mut second, 1, &other, true);
        let whole = [first.save(&root.path().join("a.jsonl")), second.save(&root.path().join("b.jsonl"))];
        let (expected, _) = add_up(&whole, ORDER);
        let mixed = [second.lines.concat(), first.lines.concat()].concat();
        let together = root.path().join("c.jsonl");
        fs::write(&together, mixed).unwrap();
        prop_assert_eq!(&add_up(&[together], ORDER).0, &expected);
        let pieces = root.path().join("pieces");
        fs::create_dir(&pieces).unwrap();
        let mut files = scatter(&pieces, &first.lines, &cuts, again);
        files.insert(1, whole[1].clone());
        let (found, notes) = add_up(&files, ORDER);
        prop_assert_eq!(notes.faults_total, 0, "{:?}", notes.faults);
        prop_assert_eq!(&found, &expected);
    }
}

#[cfg(feature = "parquet")]
#[test]
fn parquet_has_the_rows_and_numbers_that_json_has() {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;

    use super::super::rollup::Form;
    use super::synth::Fleet;

    let root = tempfile::tempdir().unwrap();
    let fleet = Fleet { hosts: 2, vms: 3, hours: 5, heartbeat_s: 600 };
    fleet.write(root.path());
    let files = ledger_files(&[root.path().to_owned()]).unwrap();
    let out = root.path().join("out.parquet");
    rollup(files.clone(), Order { form: Form::Parquet, ..ORDER }, fs::File::create(&out).unwrap()).unwrap();
    let reader = SerializedFileReader::new(fs::File::open(&out).unwrap()).unwrap();
    let expected = rows(&add_up(&files, ORDER).0);
    let mut found = 0;
    for (row, expected) in reader.get_row_iter(None).unwrap().zip(&expected) {
        found += 1;
        for (name, field) in row.unwrap().get_column_iter() {
            let text = match field {
                Field::Str(text) => text.clone(),
                Field::Decimal(number) => {
                    number.data().iter().fold(0_u128, |sum, byte| sum << 8 | u128::from(*byte)).to_string()
                }
                Field::TimestampMillis(ms) => {
                    let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(u64::try_from(*ms).unwrap());
                    humantime::format_rfc3339_seconds(at).to_string()
                }
                Field::Null => String::new(),
                other => panic!("{name}: {other:?}"),
            };
            assert_eq!(text, expected[name].as_str().unwrap_or(""), "{name}");
        }
    }
    assert_eq!(found, expected.len());
}
