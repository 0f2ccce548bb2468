use proptest::prelude::*;

use super::*;

fn traffic(n: u64) -> Traffic {
    Traffic { receive_bytes: n * 100, receive_packets: n, transmit_bytes: n * 10, transmit_packets: n / 2 }
}

fn interface(name: &str, classes: &[(&str, u64)]) -> Interface {
    Interface {
        name: name.into(),
        kind: InterfaceKind::Tap,
        unobserved: None,
        held: true,
        classes: classes.iter().map(|(class, n)| ((*class).into(), traffic(*n))).collect(),
        receive_dropped: Some(0),
        transmit_dropped: None,
    }
}

fn usage(interfaces: impl IntoIterator<Item = Interface>) -> NetworkUsage {
    NetworkUsage { interfaces: interfaces.into_iter().collect() }
}

fn class(usage: &NetworkUsage, name: &str, class: &str) -> Option<Traffic> {
    usage.interfaces.iter().find(|i| &*i.name == name)?.classes.get(class).copied()
}

fn sum(usage: &NetworkUsage) -> Traffic {
    let classes = usage.interfaces.iter().flat_map(|i| i.classes.values());
    classes.fold(Traffic::default(), |sum, traffic| sum.plus(traffic))
}

#[test]
fn after_a_restart_the_links_total_is_told_once_and_classes_go_on() {
    let mut vm = Continued::resume([("tap0", "external", traffic(50)), ("tap0", UNCLASSIFIED, traffic(10))]);
    // The link had counted 70 when the new agent came, 10 of them while nobody looked; 5 passed since.
    vm.take(&usage([interface("tap0", &[("external", 5), (UNCLASSIFIED, 70)])]));
    let now = vm.last().expect("measured");
    assert_eq!(class(now, "tap0", "external"), Some(traffic(55)));
    assert_eq!(class(now, "tap0", UNCLASSIFIED), Some(traffic(20)));
    assert_eq!(sum(now), traffic(75));
}

#[test]
fn what_was_told_stays_when_the_interface_is_gone_or_was_made_anew() {
    let mut vm = Continued::resume([("tap0", "external", traffic(50))]);
    assert_eq!(vm.last().map(|now| sum(now)), Some(traffic(50)), "before any reading");
    vm.take(&usage([]));
    assert_eq!(vm.last().map(|now| sum(now)), Some(traffic(50)));
    vm.take(&usage([interface("tap0", &[("external", 4), (UNCLASSIFIED, 8)])]));
    assert_eq!(vm.last().map(|now| sum(now)), Some(traffic(54)), "never told twice");
}

#[test]
fn the_first_sixteen_interfaces_keep_their_names_and_the_rest_are_told_together() {
    let mut vm = Continued::default();
    let some = |from: usize, to: usize| usage((from..to).map(|n| interface(&format!("tap{n}"), &[("external", 2)])));
    vm.take(&some(10, 26));
    vm.take(&some(0, 26));
    let now = vm.last().expect("measured");
    assert_eq!(now.interfaces.len(), NAMED + 1);
    assert_eq!(class(now, OTHER, "external"), Some(traffic(20)));
    assert_eq!(class(now, "tap10", "external"), Some(traffic(2)));
    assert_eq!(class(now, "tap9", "external"), None);
}

#[test]
fn a_lower_reading_is_told_of_and_not_taken() {
    let mut vm = Continued::default();
    assert!(!vm.take(&usage([interface("tap0", &[("external", 9)])])));
    assert!(vm.take(&usage([interface("tap0", &[("external", 8)])])));
    assert_eq!(vm.last().map(|now| sum(now)), Some(traffic(9)));
}

proptest! {
    #[test]
    fn no_number_ever_falls(
        told in prop::collection::vec((0_usize..20, 0_usize..3, 0_u64..1000), 0..10),
        readings in prop::collection::vec(prop::collection::vec((0_usize..20, 0_usize..3, 0_u64..1000), 0..30), 1..6),
    ) {
        let classes = ["external", "internal", UNCLASSIFIED];
        let names: Vec<String> = (0..20).map(|n| format!("tap{n}")).collect();
        let mut vm = Continued::resume(told.iter().map(|(i, c, n)| (names[*i].as_str(), classes[*c], traffic(*n))));
        let mut before = vm.last().cloned().unwrap_or_default();
        for reading in readings {
            let interfaces = reading.iter().map(|(i, c, n)| interface(&names[*i], &[(classes[*c], *n)]));
            vm.take(&usage(interfaces));
            let now = vm.last().cloned().expect("taken");
            for old in &before.interfaces {
                for (name, traffic) in &old.classes {
                    let new = class(&now, &old.name, name).expect("stays");
                    prop_assert_eq!(new.at_least(traffic), new);
                }
            }
            prop_assert!(now.interfaces.len() <= NAMED + 1);
            before = now;
        }
    }
}
