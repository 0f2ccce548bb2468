//! Between agents, where the hooks are filters, which are found in their namespace alone.

use super::*;
use crate::{
    bpf::{network::Hook, pin::rig::Bpffs},
    host::NetNs,
};

/// An agent with pins in `dir`, going on from what one before left.
fn kept(dir: &Path) -> Network<NetworkPrograms> {
    let (programs, book) = NetworkPrograms::load_kept_on(Hook::Clsact, dir).expect("the programs load");
    let book = book.map(|bytes| Book::parse(&bytes).expect("a book"));
    Network::start_from(PathBuf::from("/"), programs, names(), book).expect("the thread starts")
}

/// What passes before an agent, between two, and behind them is told once; `meanwhile` may move the tap.
fn over(meanwhile: impl FnOnce(&Rig, &NetNs)) {
    let bpffs = Bpffs::mount();
    let dir = bpffs.network();
    let (rig, other) = (quiet(), quiet());
    let mut holder = Holder::of(rig.tap("kept0", &[]));
    rig.ip(&["link", "set", "kept0", "up"]);
    let vm = key(&holder);
    let first = kept(&dir);
    first.born(vm);
    counted(&first, 1);
    transmit(&rig, "kept0", &mut holder, 7);
    sample(&first);
    drop(first);
    transmit(&rig, "kept0", &mut holder, 5);
    meanwhile(&rig, other.netns());
    let here = if stats_of(&rig).is_some() { &rig } else { &other };
    here.ip(&["link", "set", "kept0", "up"]);
    let next = kept(&dir);
    next.born(vm);
    counted(&next, 1);
    transmit(here, "kept0", &mut holder, 3);
    until("all of it is told", || {
        sample(&next);
        next.usage(vm).is_some_and(|usage| sum(&usage)[1] >= 15)
    });
    sample(&next);
    let usage = next.usage(vm).expect("usage");
    assert_eq!(sum(&usage), of_link(stats(here, "kept0")), "{usage:?}");
}

fn stats_of(rig: &Rig) -> Option<LinkStats> {
    LinkRequests::open(rig.netns()).expect("open").named("kept0").expect("ask").and_then(|link| link.stats)
}

#[test]
fn what_a_tap_counts_between_agents_is_told_once() {
    over(|_, _| {});
}

#[test]
fn a_tap_that_goes_to_another_namespace_between_agents_is_told_once() {
    over(|rig, other| rig.move_link("kept0", other));
}
