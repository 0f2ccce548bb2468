//! Making links: pairs, bridges and macvtaps, by rtnetlink.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::OpenOptionsExt as _,
    sync::atomic::{AtomicU32, Ordering},
};

use super::lab::{Lab, Tap, ask_socket, ifindex, up};
use crate::bpf::network::netlink::{Message, Route};

const NEW_LINK: u16 = 16;
const SET_LINK: u16 = 19;
/// `IFLA_IFNAME`, `IFLA_LINK`, `IFLA_MASTER`, `IFLA_LINKINFO`
const NAME: u16 = 3;
const LINK: u16 = 5;
const MASTER: u16 = 10;
const INFO: u16 = 18;
/// `IFLA_INFO_KIND`, `IFLA_INFO_DATA`
const KIND: u16 = 1;
const DATA: u16 = 2;

/// `struct ifinfomsg`
fn message(kind: u16, flags: u16, family: u32, index: u32) -> Message {
    let mut message = Message::new(kind, flags);
    for word in [family, index, 0, 0] {
        message.word(word);
    }
    message
}

fn ask(lab: &Lab, message: &Message) {
    lab.inside(|| Route::open().expect("a socket").ask(message)).expect("a link message");
}

impl Lab {
    /// Two ends of a wire, both up.
    pub(in super::super) fn pair(&self, one: &str, other: &str) {
        let mut new = message(NEW_LINK, Message::CREATE, 0, 0);
        new.text(NAME, one.as_bytes());
        new.nest(INFO, |info| {
            info.text(KIND, b"veth");
            info.nest(DATA, |data| {
                data.nest(1, |peer| {
                    [0; 4].into_iter().for_each(|word| peer.word(word));
                    peer.text(NAME, other.as_bytes());
                });
            });
        });
        ask(self, &new);
        self.inside(|| [one, other].into_iter().for_each(up));
    }

    /// A bridge with these links in it; tags pass beside the frames.
    pub(in super::super) fn bridge(&self, name: &str, links: &[&str]) {
        let mut new = message(NEW_LINK, Message::CREATE, 0, 0);
        new.text(NAME, name.as_bytes());
        new.nest(INFO, |info| {
            info.text(KIND, b"bridge");
        });
        ask(self, &new);
        self.inside(|| up(name));
        for link in links {
            let (bridge, index) = self.inside(|| (ifindex(name), ifindex(link)));
            let mut enslave = message(SET_LINK, 0, 0, index);
            enslave.number(MASTER, bridge);
            ask(self, &enslave);
        }
    }

    /// A macvtap over a link, and its queue.
    pub(in super::super) fn macvtap(&self, name: &str, lower: &str) -> Tap {
        // Its device file is named after its index, which must be nobody else's then.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let index = 1_000_000 + std::process::id() % 1_000_000 * 100 + NEXT.fetch_add(1, Ordering::Relaxed);
        let mut new = message(NEW_LINK, Message::CREATE, 0, index);
        new.text(NAME, name.as_bytes());
        new.number(LINK, self.inside(|| ifindex(lower)));
        new.nest(INFO, |info| {
            info.text(KIND, b"macvtap");
            // `IFLA_MACVLAN_MODE`: bridge
            info.nest(DATA, |data| data.number(1, 4));
        });
        ask(self, &new);
        self.inside(|| up(name));
        let mut open = OpenOptions::new();
        let file = open.read(true).write(true).custom_flags(libc::O_NONBLOCK).open(format!("/dev/tap{index}"));
        let file: File = file.expect("the macvtap's device file");
        ask_socket(&file, name, libc::IFF_TAP | libc::IFF_NO_PI);
        Tap { file, ifindex: index }
    }
}
