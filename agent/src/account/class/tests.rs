use core::net::IpAddr;

use proptest::prelude::*;

use super::*;

fn classes(written: &[(&str, &[&str])]) -> Classes {
    let prefix = |text: &&str| text.parse().expect("a prefix");
    let one = |(name, prefixes): &(&str, &[&str])| (Arc::from(*name), prefixes.iter().map(prefix).collect());
    Classes { prefixes: written.iter().map(one).collect() }
}

fn numbers(classes: &Classes) -> Numbers {
    Numbers::default().after(classes).expect("room")
}

fn name_of(classes: &Classes, address: &str) -> String {
    let numbers = numbers(classes);
    let table = ClassTable::new(classes, &numbers).expect("fits").expect("has prefixes");
    let number = table.class(address.parse().expect("an address"));
    numbers.name(usize::from(number)).expect("a name").to_string()
}

#[test]
fn the_longest_prefix_decides_whatever_the_order() {
    let classes = classes(&[
        ("internal", &["10.0.0.0/8", "fd00::/8"]),
        ("peering", &["10.1.0.0/16", "10.0.0.128/25", "2001:db8::/32"]),
        ("everything-v6", &["::/0"]),
        ("one", &["10.1.2.3/32", "2001:db8::1/128"]),
    ]);
    for (address, class) in [
        ("10.0.0.1", "internal"),
        ("10.0.0.128", "peering"),
        ("10.1.2.2", "peering"),
        ("10.1.2.3", "one"),
        ("11.0.0.0", "external"),
        ("9.255.255.255", "external"),
        ("fd12::1", "internal"),
        ("2001:db8::1", "one"),
        ("2001:db8::2", "peering"),
        ("2001:db9::", "everything-v6"),
    ] {
        assert_eq!(name_of(&classes, address), class, "{address}");
    }
}

#[test]
fn without_prefixes_there_is_no_table() {
    let none = classes(&[("empty", &[])]);
    assert_eq!(ClassTable::new(&none, &numbers(&none)), Ok(None));
}

#[test]
fn a_prefix_says_what_is_wrong_with_it() {
    for text in ["10.0.0.0", "10.0.0.0/", "10.0.0/8", "/8", "10.0.0.0/+8", "10.0.0.0/8 ", "x/8", "10.0.0.0/0008"] {
        assert_eq!(text.parse::<Prefix>(), Err(PrefixError::Syntax), "{text}");
    }
    assert_eq!("10.0.0.0/33".parse::<Prefix>(), Err(PrefixError::Length(32)));
    assert_eq!("::/129".parse::<Prefix>(), Err(PrefixError::Length(128)));
    let text = "10.1.0.0/8".parse::<Prefix>().expect_err("host bits").to_string();
    assert!(text.contains("\"10.0.0.0/8\""), "{text}");
}

#[test]
fn too_many_prefixes_are_refused_with_their_number() {
    let many: Vec<Prefix> =
        (0..u32::from(u16::MAX)).map(|n| format!("{}.{}.1.0/24", n >> 8, n & 255).parse().expect("a prefix")).collect();
    let classes = Classes { prefixes: [(Arc::from("many"), many)].into() };
    let error = ClassTable::new(&classes, &numbers(&classes)).expect_err("too many").to_string();
    assert!(error.starts_with("65535 prefixes"), "{error}");
}

#[test]
fn two_names_never_share_a_number_until_the_first_ones_counts_are_wiped() {
    let before = numbers(&classes(&[("a", &[]), ("b", &[])]));
    let (a, b) = (before.number("a").expect("a"), before.number("b").expect("b"));
    let mut after = before.after(&classes(&[("b", &[]), ("c", &[])])).expect("room");
    assert_eq!(after.number("b"), Some(b));
    assert_eq!(after.number("a"), None);
    assert_eq!(after.name(usize::from(a)).map(|name| &**name), Some("a"));
    assert_ne!(after.number("c"), Some(a));
    assert_eq!(after.gone().collect::<Vec<_>>(), [usize::from(a)]);
    assert_eq!(after.after(&classes(&[("a", &[])])).expect("room").number("a"), Some(a), "it came back");
    after.release(usize::from(b));
    assert_eq!(after.number("b"), Some(b), "a name that is in use keeps its number");
    after.release(usize::from(a));
    assert_eq!(after.name(usize::from(a)), None);
}

#[test]
fn a_reload_with_too_many_new_names_changes_nothing() {
    let named = |letter: char| {
        let name = |n: usize| (Arc::from(format!("{letter}{n}")), Vec::new());
        Classes { prefixes: (0..CONFIGURED).map(name).collect() }
    };
    let before = numbers(&named('a'));
    let error = before.after(&named('b')).expect_err("13 and 13 are more than 14");
    assert_eq!(error, NumbersError::NoneFree { new: CONFIGURED, free: 1 });
    let mut after = before.after(&Classes::default()).expect("fewer names");
    after.gone().collect::<Vec<_>>().into_iter().for_each(|number| after.release(number));
    assert!(after.after(&named('b')).is_ok());
}

/// The class of the longest prefix that covers an address, found by looking at every one.
fn naive(prefixes: &[(Prefix, Arc<str>)], address: IpAddr) -> Arc<str> {
    let bits = |bytes: Vec<u8>| bytes.iter().fold(0_u128, |sum, byte| sum << 8 | u128::from(*byte));
    let (address, width) = match address {
        IpAddr::V4(address) => (bits(address.octets().to_vec()), 32),
        IpAddr::V6(address) => (bits(address.octets().to_vec()), 128),
    };
    let covers = |prefix: Prefix| {
        let rest = if prefix.is_v6() { 128_u32 } else { 32 } - u32::from(prefix.length());
        let same = address.checked_shr(rest).unwrap_or(0) == bits(prefix.bytes()).checked_shr(rest).unwrap_or(0);
        prefix.is_v6() == (width == 128) && same
    };
    let covering = prefixes.iter().filter(|(prefix, _)| covers(*prefix));
    covering.max_by_key(|(prefix, _)| prefix.length()).map_or(EXTERNAL.into(), |(_, name)| Arc::clone(name))
}

/// Addresses that often lie near one another, so that prefixes nest.
fn address() -> impl Strategy<Value = IpAddr> {
    let byte = || prop_oneof![Just(0_u8), Just(1), Just(10), Just(255), any::<u8>()];
    prop_oneof![
        proptest::array::uniform4(byte()).prop_map(IpAddr::from),
        proptest::array::uniform16(byte()).prop_map(IpAddr::from),
    ]
}

fn prefix() -> impl Strategy<Value = Prefix> {
    (address(), 0..=128_u8).prop_map(|(address, length)| {
        let length = if address.is_ipv4() { length % 33 } else { length };
        match format!("{address}/{length}").parse::<Prefix>() {
            Ok(prefix) | Err(PrefixError::HostBits(prefix)) => prefix,
            Err(error) => panic!("{error}"),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_trie_says_what_looking_at_every_prefix_says(
        prefixes in proptest::collection::btree_map(prefix(), 0..CONFIGURED, 1..40),
        addresses in proptest::collection::vec(address(), 1..60),
    ) {
        let named: Vec<(Prefix, Arc<str>)> =
            prefixes.iter().map(|(prefix, class)| (*prefix, Arc::from(format!("c{class}")))).collect();
        let mut classes = Classes::default();
        for (prefix, name) in &named {
            classes.prefixes.entry(Arc::clone(name)).or_default().push(*prefix);
        }
        let numbers = numbers(&classes);
        let table = ClassTable::new(&classes, &numbers).expect("fits").expect("has prefixes");
        let ends = named.iter().map(|(prefix, _)| match <[u8; 4]>::try_from(prefix.bytes()) {
            Ok(bytes) => IpAddr::from(bytes),
            Err(bytes) => IpAddr::from(<[u8; 16]>::try_from(bytes).expect("16 bytes")),
        });
        for address in addresses.into_iter().chain(ends) {
            let number = usize::from(table.class(address));
            prop_assert_eq!(numbers.name(number), Some(&naive(&named, address)), "{}", address);
        }
        prop_assert_eq!(table.bytes().len() % 512, 0);
        prop_assert!(table.bytes().len().is_power_of_two());
    }
}
