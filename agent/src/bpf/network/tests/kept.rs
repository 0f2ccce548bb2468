//! Filters that outlive the agent, as links do: the next one finds them in their namespace and goes on with them.

use std::path::Path;

use super::{frames, lab::Tap, *};
use crate::{
    bpf::{network::clsact, pin::rig::Bpffs},
    host::{
        link::LinkRequests,
        tap::rig::{Holder, Rig},
    },
};

fn load(dir: &Path) -> (NetworkPrograms, Option<Vec<u8>>) {
    NetworkPrograms::load_kept_on(Hook::Clsact, dir).expect("network programs")
}

fn packets(programs: &NetworkPrograms, port: PortId) -> u64 {
    totals(&programs.read(port)).0.packets
}

fn send(tap: &Tap, count: u64) {
    (0..count).for_each(|_| tap.transmit(&frames::kinds()[0]));
}

/// An agent that counted a packet and is there no more, and one that comes after it.
fn left(lab: &Lab, tap: &Tap, dir: &Path, end: impl FnOnce(NetworkPrograms)) -> (NetworkPrograms, PortId) {
    let (mut first, book) = load(dir);
    assert_eq!(book, None);
    let port = first.attach(&lab.netns, tap.ifindex, false).expect("attach");
    first.save(&mut |_| b"book".to_vec());
    send(tap, 1);
    end(first);
    let (mut next, book) = load(dir);
    assert_eq!(book.as_deref(), Some(&b"book"[..]));
    assert_eq!(next.left(port.number()), Some(port));
    next.take_up(&[(port.number(), Vec::new())]);
    (next, port)
}

#[test]
fn filters_count_between_agents_and_the_next_goes_on_with_them() {
    for end in [drop::<NetworkPrograms>, std::mem::forget::<NetworkPrograms>] {
        let (lab, bpffs) = (Lab::new(), Bpffs::mount());
        let tap = lab.tap("tap0", 0);
        let (mut next, port) = left(&lab, &tap, &bpffs.network(), |first| {
            end(first);
            send(&tap, 2);
        });
        assert!(!next.is_attached(port), "its namespace is not entered yet");
        assert_eq!(packets(&next, port), 3);
        assert_eq!(next.sweep(&lab.netns).expect("a sweep"), 0, "what is gone on with stays");
        assert!(next.adopt(port, &lab.netns, tap.ifindex) && next.is_attached(port));
        send(&tap, 1);
        next.set_classes(None).expect("other programs");
        send(&tap, 1);
        assert_eq!(packets(&next, port), 5);
        assert_eq!(totals(&next.detach(port)).0.packets, 5);
        let there = lab.inside(|| clsact::is_clsact(&mut netlink::Route::open().expect("a socket"), tap.ifindex));
        assert!(!there.unwrap_or(false), "the first one brought the discipline, the last takes it away");
    }
}

#[test]
fn claims_of_a_page_that_is_gone_are_taken_back_and_those_of_others_stay() {
    let (lab, bpffs) = (Lab::new(), Bpffs::mount());
    let tap = lab.tap("tap0", 0);
    let (mut first, _) = load(&bpffs.network());
    let port = first.attach(&lab.netns, tap.ifindex, false).expect("attach");
    first.save(&mut |_| b"book".to_vec());
    // Killed before its page was pinned; and one whose programs are at work all the same.
    let gone = Port::new(PortId(77), first.lanes, false).expect("a page");
    let at_work = Port::new(PortId(77), first.lanes, false).expect("a page");
    let claim = |page: &Port| page.claim(first.claims.as_fd(), 3);
    assert!(claim(&gone) && claim(&at_work), "one number of the agent's is no hindrance");
    let key = gone.claim_key(3, 0);
    drop(gone);
    std::mem::forget(first);
    let (mut next, _) = load(&bpffs.network());
    assert!(syscall::remove(next.claims.as_fd(), &key).is_err(), "nobody has it any more");
    assert!(!at_work.claim(next.claims.as_fd(), 3), "it is still claimed");
    next.take_up(&[(port.number(), Vec::new())]);
    let kept = next.ports.get(&port).expect("it was left");
    assert!(!kept.claim(next.claims.as_fd(), 0), "the account in use is claimed");
}

#[test]
fn what_filters_of_a_device_that_is_gone_counted_stays() {
    let (lab, bpffs) = (Lab::new(), Bpffs::mount());
    let tap = lab.tap("tap0", 0);
    let ifindex = tap.ifindex;
    let (mut next, port) = left(&lab, &tap, &bpffs.network(), drop);
    lab.delete(tap);
    assert!(!next.adopt(port, &lab.netns, ifindex) && next.is_gone(port));
    assert_eq!(totals(&next.detach(port)).0.packets, 1);
}

#[test]
fn a_device_whose_filters_others_took_away_is_not_said_to_be_gone() {
    let (lab, bpffs) = (Lab::new(), Bpffs::mount());
    let tap = lab.tap("tap0", 0);
    let (mut next, port) = left(&lab, &tap, &bpffs.network(), drop);
    lab.inside(|| clsact::sweep(&[])).expect("a sweep");
    assert!(!next.adopt(port, &lab.netns, tap.ifindex) && !next.is_gone(port));
    // Filters of our name that count to another page are not taken for these.
    let mut other = NetworkPrograms::load_for(Hook::Clsact, Writer::probe()).expect("network programs");
    let theirs = other.attach(&lab.netns, tap.ifindex, false).expect("attach");
    assert_eq!(theirs, port, "of the same number");
    assert!(!next.adopt(port, &lab.netns, tap.ifindex) && !next.is_gone(port));
    send(&tap, 1);
    assert_eq!((packets(&next, port), packets(&other, theirs)), (1, 1));
}

#[test]
fn releasing_takes_filters_away_where_a_process_has_a_tap_in_another_namespace() {
    let rig = Rig::new();
    let holder = Holder::of(rig.tap("tap0", &[]));
    let link = LinkRequests::open(rig.netns()).expect("open").named("tap0").expect("ask").expect("there");
    let mut killed = NetworkPrograms::load_for(Hook::Clsact, Writer::probe()).expect("network programs");
    let port = killed.attach(rig.netns(), link.ifindex, false).expect("attach");
    // Only this process is looked at: other tests have filters of their own.
    let root = tempfile::tempdir().expect("directory");
    std::fs::create_dir(root.path().join("proc")).expect("a directory");
    let of = |root: &Path| root.join(format!("proc/{}", holder.tgid()));
    std::os::unix::fs::symlink(of(Path::new("/")), of(root.path())).expect("a link");
    assert_eq!(release_filters(root.path()), 2);
    assert!(!killed.is_attached(port));
}
