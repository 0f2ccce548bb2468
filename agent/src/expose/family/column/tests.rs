//! Families about VMs against their lines told one by one.

use kvmeter_common::limits;
use proptest::prelude::*;

use super::*;
use crate::{
    account::{Histogram, Role},
    expose::{catalog, family::Family},
};

/// A family's text, in pieces of about so many bytes.
fn text(column: &Column, known: &Known, piece: usize) -> String {
    let (mut all, mut next) = (Vec::new(), Some(0));
    // A piece may be full before the family begins.
    let mut text = vec![b'-'; piece];
    while let Some(from) = next {
        next = column.write(from, piece, known, &mut text);
        all.append(&mut text);
    }
    all.drain(..piece);
    String::from_utf8(all).unwrap()
}

fn known<'a>(vms: impl IntoIterator<Item = &'a str>) -> Known {
    let mut known = Known::default();
    vms.into_iter().for_each(|vm| known.labels.push_vm(vm, "x"));
    known
}

proptest! {
    #[test]
    fn a_family_is_its_lines_one_behind_the_other_whatever_its_labels_are_and_in_whatever_pieces_it_is_taken(
        vms in prop::collection::vec(prop::collection::vec(("[a-c\\\\\"\n]{0,3}|[a-z]{8}", "[ab]", any::<u32>()), 0..9), 0..60),
        piece in 1usize..3_000,
    ) {
        let metric = &catalog::VM_NETWORK_INTERFACES;
        let ids: Vec<String> = (0..vms.len()).map(|vm| vm.to_string()).collect();
        let known = known(ids.iter().map(String::as_str));
        let mut column = Column::new(metric);
        let mut due = Vec::new();
        for (vm, lines) in (0..).zip(&vms) {
            column.vm(vm);
            for (kind, observed, value) in lines {
                column.push_of(&[kind, observed], u64::from(*value));
                let kind = kind.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                due.push(format!("{}{{vm_id=\"{vm}\",name=\"x\",kind=\"{kind}\",observed=\"{observed}\"}} {value}\n", metric.name));
            }
        }
        let text = text(&column, &known, piece);
        let told = due.concat();
        prop_assert_eq!(text.is_empty(), told.is_empty());
        let lines: String = text.split_inclusive('\n').filter(|line| !line.starts_with('#')).collect();
        prop_assert_eq!(lines, told);
        prop_assert_eq!(text.matches("# TYPE").count(), usize::from(!due.is_empty()));
    }
}

proptest! {
    #[test]
    fn words_are_told_whichever_of_them_a_vm_has_and_in_whatever_order(
        vms in prop::collection::vec(prop::collection::vec((0usize..Role::ALL.len(), any::<bool>(), any::<u32>()), 0..6), 0..20),
    ) {
        let ids: Vec<String> = (0..vms.len()).map(|vm| vm.to_string()).collect();
        let mut column = Column::new(&catalog::VM_CPU);
        let mut due = String::new();
        for (vm, lines) in (0..).zip(&vms) {
            column.vm(vm);
            for (role, time, number) in lines {
                let word = Role::ALL[*role].as_label();
                let number = if *time {
                    column.push_word_ns(word, u64::from(*number) * 1_000_000_000);
                    number
                } else {
                    column.push_word(word, u64::from(*number));
                    number
                };
                let line = format!("{}{{vm_id=\"{vm}\",name=\"x\",role=\"{word}\"}} {number}\n", catalog::VM_CPU.name);
                due.push_str(&line);
            }
        }
        let text = text(&column, &known(ids.iter().map(String::as_str)), 500);
        let lines: String = text.split_inclusive('\n').filter(|line| !line.starts_with('#')).collect();
        prop_assert_eq!(lines, due);
    }
}

#[test]
fn a_number_of_a_time_and_a_plain_one_of_the_same_labels_are_told_apart() {
    let mut column = Column::new(&catalog::VM_CPU);
    column.push_word("vcpu", 7);
    column.push_word_ns("vcpu", 7);
    column.push_ns_of(&["vcpu"], 8);
    column.push(9);
    column.push_real(0.5);
    column.push_ns(10);
    let text = text(&column, &known(["a"]), 1_000);
    let lines: Vec<&str> = text.lines().skip(2).filter_map(|line| Some(line.split_once("name=\"x\"")?.1)).collect();
    let due = [
        ",role=\"vcpu\"} 7",
        ",role=\"vcpu\"} 0.000000007",
        ",role=\"vcpu\"} 0.000000008",
        "} 9",
        "} 0.5",
        "} 0.00000001",
    ];
    assert_eq!(lines, due);
}

#[test]
fn a_histogram_of_a_vm_has_its_buckets_the_one_without_bound_sum_and_count_as_any_other_has() {
    let (metric, bounds_ns) = (&catalog::VM_RUN_DELAY, &limits::RUN_DELAY_BOUNDS_NS);
    let mut column = Column::new(metric);
    let mut due = String::new();
    for vm in 0..2 {
        let (counts, sum_ns) = ([1 + u64::from(vm), 0, 2, 0, 0, 0, 0, 0, 3], 1_500_000_007);
        column.vm(vm);
        column.push_histogram(bounds_ns, &counts, sum_ns);
        let mut family = Family::new(metric);
        family.push_histogram(&[&vm.to_string(), "x"], &Histogram::of(bounds_ns, &counts, sum_ns));
        let text = String::from_utf8(family.done().0).unwrap();
        due.extend(text.split_inclusive('\n').filter(|line| vm == 0 || !line.starts_with('#')));
    }
    assert!(due.contains("_sum{vm_id=\"1\",name=\"x\"} 1.500000007\n"), "{due}");
    assert_eq!(text(&column, &known(["0", "1"]), 100), due);
}
