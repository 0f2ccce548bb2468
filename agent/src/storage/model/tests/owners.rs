//! Whose a file is, whatever VMs hold, write, let go and end: nobody's twice but those that hold it at once.

use std::collections::BTreeMap;

use super::*;
use proptest::prelude::*;

fn check(lines: &[Draft], open: &mut BTreeMap<String, (u64, Vec<String>)>) -> Result<(), TestCaseError> {
    for line in lines {
        let subject = line.subject.text("").to_owned();
        let known = open.remove(&subject);
        let starts = line.kind.as_str().ends_with(".start");
        prop_assert_eq!(starts, known.is_none(), "{} of {}", line.kind, subject);
        prop_assert!(known.is_none_or(|(last, _)| last <= line.mono_ns), "{} goes back", subject);
        if !line.kind.as_str().ends_with(".stop") {
            let sum: u64 = line.files.iter().filter_map(|file| file.bytes).sum();
            prop_assert_eq!(line.shape.storage_bytes, sum);
            open.insert(subject, (line.mono_ns, line.files.iter().map(|file| file.file.clone()).collect()));
        }
    }
    Ok(())
}

/// VM 0 to 2 holds these of four files, each for reading or writing; or it ends; or the pool is looked at.
type Step = (u8, Option<Vec<(u8, bool)>>, bool);

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn a_file_has_one_owner_but_for_those_that_hold_it_at_once(
        steps in prop::collection::vec(
            (0u8..3, prop::option::of(prop::collection::vec((0u8..4, any::<bool>()), 0..4)), any::<bool>()), 1..40),
    ) {
        let steps: Vec<Step> = steps;
        let mut model = model();
        let mut open = BTreeMap::new();
        // Two files of the pool, one named for VM 0 and one a snapshot's, and two outside.
        let paths = ["/pool/vm0.img", "/pool/vm0@s.img", "/d/2", "/d/3"];
        let mut holds: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
        let mut second = 20;
        for (vm, held, look) in steps {
            second += 1;
            if look {
                let files = (0..2).map(|n| found(id(n as u64, 12), paths[n], 1 << n, FileState::There)).collect();
                let lines = pool(&mut model, second, files);
                check(&lines, &mut open)?;
                second += 1;
            }
            let name = format!("vm{vm}");
            match held {
                Some(mut list) => {
                    list.sort_unstable();
                    list.dedup_by_key(|(n, _)| *n);
                    holds.insert(vm, list.iter().map(|(n, _)| *n).collect());
                    let disks: Vec<Disk> = list
                        .iter()
                        .map(|(n, writes)| disk(id(u64::from(*n), 12), paths[usize::from(*n)], 1 << n, *writes))
                        .collect();
                    check(&hold(&mut model, &name, &disks, second), &mut open)?;
                }
                None => {
                    holds.remove(&vm);
                    model.stopped(&name, at(second));
                    check(&model.settle(), &mut open)?;
                }
            }
            for n in 0..4u8 {
                let file = id(u64::from(n), 12).to_string();
                let owners = open.iter().filter(|(_, (_, files))| files.contains(&file)).map(|(vm, _)| vm.clone());
                let idle = owners.filter(|vm| !holds.iter().any(|(k, held)| *vm == format!("vm{k}") && held.contains(&n)));
                prop_assert!(idle.count() <= 1, "file {} is billed to several that do not hold it", n);
            }
        }
    }
}
