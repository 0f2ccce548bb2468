//! A socket that fails.

use super::*;
use crate::host::tap::rig::Rig;

const START_NS: u64 = 1_000 * REOPEN_NS;

fn names(news: &[News]) -> Vec<String> {
    let name = |change: &LinkChange| match change {
        LinkChange::New(link) | LinkChange::Gone { link, .. } => link.name.clone(),
    };
    news.iter().flat_map(|one| &one.changes).map(name).collect()
}

#[test]
fn a_socket_that_fails_is_no_longer_waited_for_and_another_takes_its_place() {
    let (rig, mut spaces) = (Rig::new(), Spaces::default());
    assert!(spaces.watch(rig.netns()).expect("a socket"));
    let _ = spaces.news(START_NS);
    spaces.all.values_mut().for_each(|space| space.socket = Listening::To(LinkSocket::broken()));
    let news = spaces.news(START_NS);
    assert!(news.len() == 1 && news[0].failure.is_some());
    assert_eq!((spaces.sockets().count(), spaces.due_ns()), (0, Some(START_NS + REOPEN_NS)));
    assert!(spaces.news(START_NS + REOPEN_NS - 1).is_empty(), "not before its time");
    let news = spaces.news(START_NS + REOPEN_NS);
    assert!(news.len() == 1 && news[0].overflow && news[0].failure.is_none(), "all is to be listed again");
    assert_eq!((spaces.sockets().count(), spaces.due_ns()), (1, None));
    let _tap = rig.tap("heard0", &[]);
    assert!(names(&spaces.news(START_NS + REOPEN_NS)).contains(&"heard0".to_owned()));
}

#[test]
fn one_that_fails_again_and_again_is_tried_ever_less_often() {
    let (rig, mut spaces) = (Rig::new(), Spaces::default());
    assert!(spaces.watch(rig.netns()).expect("a socket"));
    let (mut now_ns, mut waits) = (START_NS, Vec::new());
    for _ in 0..9 {
        spaces.all.values_mut().for_each(|space| space.socket = Listening::To(LinkSocket::broken()));
        assert!(spaces.news(now_ns)[0].failure.is_some());
        let due_ns = spaces.due_ns().expect("another try");
        waits.push((due_ns - now_ns) / REOPEN_NS);
        now_ns = due_ns;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 64, 64]);
}
