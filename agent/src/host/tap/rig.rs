//! For tests: a network namespace of one's own, taps in it, and processes that hold them.

use std::{
    fs::File,
    io::Write,
    process::{Child, ChildStdin, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use crate::host::{NetNs, tun};

const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
/// A tap of several queues.
pub(crate) const QUEUES: u16 = 0x0100;

/// A namespace; gone with its last holder.
pub(crate) struct Rig {
    netns: NetNs,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let make = || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("unshare needs CAP_SYS_ADMIN");
            NetNs::own().expect("own namespace")
        };
        Self { netns: thread::spawn(make).join().expect("thread") }
    }

    pub(crate) fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// A file attached to this tap, which is made if it is not there.
    pub(crate) fn tap(&self, name: &str, flags: &[u16]) -> File {
        let flags = flags.iter().fold(IFF_TAP | IFF_NO_PI, |all, flag| all | flag);
        let begun = std::time::Instant::now();
        loop {
            match self.netns.inside(|| tun::attach(name, flags)).expect("enter") {
                Ok(file) => return file,
                // Whoever looks at a tap while its holder lets go of it keeps it for that moment.
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && begun.elapsed().as_secs() < 60 => {}
                Err(error) => panic!("{name} cannot be attached to: {error}"),
            }
        }
    }

    pub(crate) fn persistent(&self, name: &str) {
        self.persistent_with(name, &[]);
    }

    pub(crate) fn persistent_with(&self, name: &str, flags: &[u16]) {
        tun::persist(&self.tap(name, flags)).expect("TUNSETPERSIST");
    }

    /// A file attached to a new macvtap, over an end of a wire whose other end is `NAMEp`. All are up.
    pub(crate) fn macvtap(&self, name: &str) -> File {
        // Its device file is named after its index, in all namespaces alike.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let index = 500_000_000 + std::process::id() % 4_000_000 * 100 + NEXT.fetch_add(1, Ordering::Relaxed) % 100;
        let (index, lower, peer) = (index.to_string(), format!("{name}l"), format!("{name}p"));
        self.ip(&["link", "add", &lower, "type", "veth", "peer", "name", &peer]);
        let add = ["link", "add", "link", &lower, "name", name, "index", &index, "type", "macvtap", "mode", "bridge"];
        self.ip(&add);
        [&lower, &peer, name].into_iter().for_each(|link| self.ip(&["link", "set", link, "up"]));
        let file = File::options().read(true).write(true).open(format!("/dev/tap{index}"));
        let file = file.expect("the macvtap's device file");
        self.netns.inside(|| tun::set(&file, name, IFF_TAP | IFF_NO_PI)).expect("enter").expect("TUNSETIFF");
        file
    }

    /// `ip …` inside the namespace.
    pub(crate) fn ip(&self, args: &[&str]) {
        let done = self.netns.inside(|| Command::new("ip").args(args).output()).expect("enter").expect("ip");
        assert!(done.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    pub(crate) fn move_link(&self, name: &str, to: &NetNs) {
        let mut anchor = to.inside(|| Command::new("sleep").arg("60").spawn()).expect("enter").expect("sleep");
        self.ip(&["link", "set", name, "netns", &anchor.id().to_string()]);
        anchor.kill().expect("kill");
        anchor.wait().expect("wait");
    }
}

/// A process that holds a tap and writes to it what it is given.
pub(crate) struct Holder {
    child: Child,
    /// Takes what comes from the tap: the link counts a packet when it is read.
    reader: Child,
    stdin: ChildStdin,
}

impl Holder {
    /// `cat` from a pipe to the tap: one write here is one frame.
    pub(crate) fn of(tap: File) -> Self {
        let copy = tap.try_clone().expect("dup");
        let reader = Command::new("cat").stdin(copy).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("cat");
        let mut writer = Command::new("cat");
        writer.stdin(Stdio::piped()).stdout(tap).stderr(Stdio::null());
        let mut child = writer.spawn().expect("cat");
        let stdin = child.stdin.take().expect("piped");
        Self { child, reader, stdin }
    }

    pub(crate) fn tgid(&self) -> u32 {
        self.child.id()
    }

    /// False if the holder is gone.
    pub(crate) fn send(&mut self, frame: &[u8]) -> bool {
        self.stdin.write_all(frame).is_ok()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        for child in [&mut self.reader, &mut self.child] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
