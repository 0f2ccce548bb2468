//! The laws of `[network.classes]`.

use super::{good, problems};

#[test]
fn classes_are_names_with_prefixes() {
    let config = good("[network.classes]\ninternal = [\"10.0.0.0/8\", \"fd00::/8\"]\nnothing = []");
    let shown: Vec<_> = config.network.classes.iter().map(|(name, prefix)| format!("{name} {prefix}")).collect();
    assert_eq!(shown, ["internal 10.0.0.0/8", "internal fd00::/8"]);
    assert!(config.network.classes.prefixes.contains_key("nothing"));
}

#[test]
fn every_mistake_in_classes_is_told_with_its_line() {
    let found = problems(
        "[network.classes]\n\
         a = [\"10.0.0.0/8\", \"10.0.0.0/33\", \"10.1.0.0/8\"]\n\
         b = [\"10.0.0.0/8\", \"x\"]\n\
         external = []\n\
         Upper = \"10.0.0.0/8\"\n\
         c = [\"::/0\", \"::/0\"]\n",
    );
    let begin = [
        "k.toml:2: network.classes.a = [\"10.0.0.0/8\", \"10.0.0.0/33\", \"10.1.0.0/8\"]: \"10.0.0.0/33\": its length",
        "k.toml:2: network.classes.a = [\"10.0.0.0/8\", \"10.0.0.0/33\", \"10.1.0.0/8\"]: \"10.1.0.0/8\": has bits set",
        "k.toml:3: network.classes.b = [\"10.0.0.0/8\", \"x\"]: 10.0.0.0/8 is in \"a\" already",
        "k.toml:3: network.classes.b = [\"10.0.0.0/8\", \"x\"]: \"x\": must be an IPv4 or IPv6 prefix",
        "k.toml:4: network.classes.external = []: \"external\" is always there",
        "k.toml:5: network.classes.Upper = \"10.0.0.0/8\": a name must be",
        "k.toml:5: network.classes.Upper = \"10.0.0.0/8\": must be a list of prefixes",
        "k.toml:6: network.classes.c = [\"::/0\", \"::/0\"]: ::/0 stands there twice",
    ];
    assert_eq!(found.len(), begin.len(), "{found:#?}");
    for begin in begin {
        assert!(found.iter().any(|text| text.starts_with(begin)), "{begin} in {found:#?}");
    }
}

#[test]
fn names_are_bounded() {
    let named = |count: usize| {
        (0..count).fold("[network.classes]\n".to_owned(), |text, n| format!("{text}c{n} = [\"10.0.{n}.0/24\"]\n"))
    };
    assert_eq!(good(&named(13)).network.classes.prefixes.len(), 13);
    let found = problems(&named(14));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("at most 13 names"), "{found:?}");
}

#[test]
fn prefixes_beyond_the_kernels_table_are_told_as_such() {
    let prefixes: Vec<_> = (0..=255).flat_map(|a| (0..32).map(move |b| format!("\"{a}.{b}.0.0/17\""))).collect();
    let found = problems(&format!("[network.classes]\nmany = [{}]", prefixes.join(",")));
    assert!(found[0].contains("8192 prefixes need more than the 4096 nodes"), "{found:?}");
}
