use super::*;
use crate::host::{NetNs, tap::rig::Rig};
use proptest::prelude::*;

fn drain(socket: &LinkSocket) -> Vec<LinkChange> {
    let mut all = Vec::new();
    loop {
        match socket.recv().expect("receive") {
            LinkOutcome::Changes(changes) => all.extend(changes),
            LinkOutcome::Empty => return all,
            LinkOutcome::Overflow => panic!("a handful of announcements overflowed"),
        }
    }
}

#[test]
fn a_tap_is_announced_listed_and_counted_in_its_own_namespace_only() {
    let (rig, other) = (Rig::new(), Rig::new());
    let socket = LinkSocket::open(rig.netns()).expect("subscribe");
    let elsewhere = LinkSocket::open(other.netns()).expect("subscribe");
    let file = rig.tap("kvt0", &[]);
    let mut requests = LinkRequests::open(rig.netns()).expect("open");
    let link = requests.named("kvt0").expect("ask").expect("exists");
    assert_eq!((link.kind, link.name.as_str()), (Some(InterfaceKind::Tap), "kvt0"));
    assert!(link.stats.is_some() && link.carrier);
    assert_eq!(requests.indexed(link.ifindex).expect("ask").expect("exists").name, "kvt0");
    assert!(requests.named("none").expect("ask").is_none());
    assert!(requests.links().expect("list").iter().any(|one| one.name == "kvt0"));
    assert_eq!(requests.stats().expect("stats").get(&link.ifindex), link.stats.as_ref());
    let index = |change: &LinkChange| matches!(change, LinkChange::New(new) if new.ifindex == link.ifindex);
    assert!(drain(&socket).iter().any(index));
    drop(file);
    let changes = drain(&socket);
    let gone =
        |change: &LinkChange| matches!(change, LinkChange::Gone { link: old, moved: false } if old.name == "kvt0");
    assert!(changes.iter().any(gone), "{changes:?}");
    assert!(requests.named("kvt0").expect("ask").is_none());
    assert_eq!(drain(&elsewhere), []);
}

#[test]
fn a_move_to_another_namespace_is_told_as_one() {
    let (rig, other) = (Rig::new(), Rig::new());
    let socket = LinkSocket::open(rig.netns()).expect("subscribe");
    let _file = rig.tap("kvt1", &[]);
    rig.move_link("kvt1", other.netns());
    let changes = drain(&socket);
    let moved = |change: &LinkChange| matches!(change, LinkChange::Gone { link, moved: true } if link.name == "kvt1");
    assert!(changes.iter().any(moved), "{changes:?}");
}

#[test]
fn a_lost_announcement_is_noticed() {
    let rig = Rig::new();
    let socket = LinkSocket::open(rig.netns()).expect("subscribe");
    socket.shrink();
    for _ in 0..64 {
        drop(rig.tap("kvt2", &[]));
    }
    let mut overflow = false;
    loop {
        match socket.recv().expect("receive") {
            LinkOutcome::Overflow => overflow = true,
            LinkOutcome::Empty => break,
            LinkOutcome::Changes(_) => {}
        }
    }
    assert!(overflow);
}

#[test]
fn how_often_a_persistent_tap_was_taken_shows_in_its_carrier_count() {
    let rig = Rig::new();
    rig.persistent("kvt3");
    let mut requests = LinkRequests::open(rig.netns()).expect("open");
    let mut ups = || {
        let link = requests.named("kvt3").expect("ask").expect("exists");
        (link.carrier, link.carrier_ups.expect("Linux 4.16"))
    };
    assert_eq!(ups(), (false, 0));
    let first = rig.tap("kvt3", &[]);
    assert_eq!(ups(), (true, 1));
    drop(first);
    assert_eq!(ups(), (false, 1));
    let _second = rig.tap("kvt3", &[]);
    assert_eq!(ups(), (true, 2));
}

#[test]
fn the_own_namespace_can_be_asked() {
    let own = NetNs::own().expect("own");
    let mut requests = LinkRequests::open(&own).expect("open");
    let lo = requests.named("lo").expect("ask").expect("every namespace has one");
    assert_eq!((lo.ifindex, lo.kind), (1, None));
}

proptest! {
    #[test]
    fn no_message_can_hurt_the_reader(data in proptest::collection::vec(any::<u8>(), 0..400), kind in 0_u16..100) {
        let _ = message::parts(&data);
        let mut framed = u32::try_from(data.len() + 16).unwrap().to_ne_bytes().to_vec();
        framed.extend(kind.to_ne_bytes());
        framed.extend([0; 10]);
        framed.extend(&data);
        prop_assert_eq!(message::parts(&framed).len(), 1);
    }
}
