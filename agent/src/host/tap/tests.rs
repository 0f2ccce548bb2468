use super::{
    rig::{Holder, QUEUES, Rig},
    *,
};

fn held(tgid: u32) -> Vec<(NetNsId, String, Option<bool>)> {
    let held = ProcFs::new(Path::new("/")).held_taps(Tgid(tgid), &|_| None).expect("may be looked at");
    held.taps.into_iter().map(|tap| (tap.netns.id(), tap.name, tap.persistent)).collect()
}

#[test]
fn a_tap_is_found_in_its_own_namespace_whoever_holds_it() {
    let (one, two) = (Rig::new(), Rig::new());
    let (a, b) = (Holder::of(one.tap("same0", &[])), Holder::of(two.tap("same0", &[])));
    assert_eq!(held(a.tgid()), [(one.netns().id(), "same0".to_owned(), Some(false))]);
    assert_eq!(held(b.tgid()), [(two.netns().id(), "same0".to_owned(), Some(false))]);
    // Moved while held: the file knows.
    let elsewhere = Rig::new();
    one.move_link("same0", elsewhere.netns());
    assert_ne!(held(a.tgid())[0].0, one.netns().id());
}

#[test]
fn looking_at_a_tap_does_not_keep_it_alive() {
    let rig = Rig::new();
    let holder = Holder::of(rig.tap("short0", &[]));
    assert_eq!(held(holder.tgid()).len(), 1);
    drop(holder);
    let mut requests = crate::host::link::LinkRequests::open(rig.netns()).expect("open");
    assert!(requests.named("short0").expect("ask").is_none());
}

#[test]
fn several_files_of_one_interface_are_one_and_an_unattached_file_is_none() {
    let rig = Rig::new();
    rig.persistent("keep0");
    let files = [rig.tap("mq0", &[QUEUES]), rig.tap("mq0", &[QUEUES]), rig.tap("keep0", &[])];
    let unattached = fs::File::open("/dev/net/tun").expect("open");
    let mut mine = held(std::process::id());
    mine.retain(|(netns, ..)| *netns == rig.netns().id());
    let expected = [("keep0", true), ("mq0", false)].map(|(n, kept)| (rig.netns().id(), n.to_owned(), Some(kept)));
    assert_eq!(mine, expected);
    drop((files, unattached));
}

#[test]
fn without_the_right_to_ask_the_file_the_kernel_s_note_about_it_is_read() {
    let rig = Rig::new();
    let holder = Holder::of(rig.tap("note0", &[]));
    let procfs = ProcFs::new(Path::new("/"));
    let mut seen = HeldTaps::default();
    let candidates = procfs.candidates(Tgid(holder.tgid()), &mut seen).expect("list");
    let own = NetNs::own().expect("own");
    let told: Vec<_> = candidates.iter().filter_map(|one| one.ask(None, &own).expect("fdinfo")).collect();
    let told: Vec<_> = told.iter().map(|tap| (tap.name.as_str(), tap.netns.id(), tap.persistent)).collect();
    assert_eq!(told, [("note0", own.id(), None)]);
    assert_eq!(interface_name(b"pos:\t0\niff:\t\n"), None);
    assert_eq!(interface_name(b"pos:\t0\niff:\ttap 7\n").as_deref(), Some("tap 7"));
}

#[test]
fn a_macvtap_is_told_by_its_file_and_its_index() {
    let rig = Rig::new();
    let file = rig.macvtap("mv0");
    // Its file does not tell where it is: where its process lives.
    let holder = rig.netns().inside(|| Holder::of(file)).expect("enter");
    let link = crate::host::link::LinkRequests::open(rig.netns()).expect("open").named("mv0").expect("ask");
    let link = link.expect("exists");
    assert_eq!(link.kind, Some(InterfaceKind::Macvtap));
    let held = ProcFs::new(Path::new("/")).held_taps(Tgid(holder.tgid()), &|_| None).expect("held");
    assert_eq!(held.unseen, 0);
    let told: Vec<_> =
        held.taps.iter().map(|tap| (&*tap.name, tap.netns.id(), tap.kind, tap.ifindex, tap.persistent)).collect();
    assert_eq!(told, [("mv0", rig.netns().id(), InterfaceKind::Macvtap, Some(link.ifindex), Some(true))]);
}

#[test]
fn a_process_that_is_gone_is_gone() {
    assert!(ProcFs::new(Path::new("/")).held_taps(Tgid(u32::MAX), &|_| None).expect_err("none").is_gone());
}
