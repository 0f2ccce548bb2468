//! The queues of a tap or macvtap: opened by whoever plays the VMM, in the namespace of the calling thread.

use std::fs::File;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::link::Link;
use super::netns::Namespace;
use super::raw::{self, IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TAP, IFF_VNET_HDR};

/// How an interface's queues are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TapOptions {
    /// Queues; more than one makes a tap with `IFF_MULTI_QUEUE`.
    pub queues: u32,
    /// A virtio_net_hdr of 10 bytes before each frame, and frames with segmentation left to do.
    pub vnet: bool,
    /// The tap stays when its queues are closed.
    pub persist: bool,
}

impl Default for TapOptions {
    fn default() -> Self {
        Self { queues: 1, vnet: false, persist: false }
    }
}

/// Opens the queues of the tap of this name, which is made if there is none. Without `persist` it goes with them.
pub fn open(name: &str, options: TapOptions) -> Result<Vec<File>> {
    let many = if options.queues > 1 { IFF_MULTI_QUEUE } else { 0 };
    let flags = IFF_TAP | IFF_NO_PI | many | vnet_flag(options);
    let queues = (0..options.queues).map(|_| {
        let queue = device(Path::new("/dev/net/tun"))?;
        raw::set_interface(&queue, name, flags).with_context(|| format!("TUNSETIFF {name}"))?;
        set_up(queue, options)
    });
    let queues = queues.collect::<Result<Vec<_>>>()?;
    if options.persist {
        raw::set_persistent(&queues[0], true).with_context(|| format!("TUNSETPERSIST {name}"))?;
    }
    Ok(queues)
}

/// Opens queues of the macvtap of this name.
pub fn open_macvtap(name: &str, options: TapOptions) -> Result<Vec<File>> {
    let index = Link::find(&Namespace::own()?, name)?.index();
    let queues = (0..options.queues).map(|_| {
        let queue = macvtap_device(name, index)?;
        let flags = IFF_TAP | IFF_NO_PI | vnet_flag(options);
        raw::set_interface(&queue, name, flags).with_context(|| format!("TUNSETIFF {name}"))?;
        set_up(queue, options)
    });
    queues.collect()
}

/// A tap that stays until it is deleted, nobody having it open.
pub fn make_persistent(namespace: &Namespace, name: &str, options: TapOptions) -> Result<Link> {
    namespace.inside(|| open(name, TapOptions { persist: true, ..options }).map(drop))?;
    Link::find(namespace, name)
}

fn vnet_flag(options: TapOptions) -> i16 {
    if options.vnet { IFF_VNET_HDR } else { 0 }
}

fn set_up(queue: File, options: TapOptions) -> Result<File> {
    if options.vnet {
        raw::set_offload(&queue, raw::OFFLOADS).context("TUNSETOFFLOAD")?;
    }
    Ok(queue)
}

fn device(path: &Path) -> Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path);
    file.with_context(|| format!("cannot open {}", path.display()))
}

/// Opens the macvtap's character device. Its name in `/dev` has only the index, which two namespaces may both have, so
/// its number is read from a sysfs of the interface's own namespace: a mount that only this thread sees.
fn macvtap_device(name: &str, index: u32) -> Result<File> {
    let namespace = Namespace::own()?;
    namespace.inside(|| {
        unshare(CloneFlags::CLONE_NEWNS).context("unshare(CLONE_NEWNS)")?;
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("making mounts private")?;
        let room = tempfile::tempdir()?;
        mount(Some("sysfs"), room.path(), Some("sysfs"), MsFlags::MS_RDONLY, none).context("mounting sysfs")?;
        let number = room.path().join(format!("class/net/{name}/tap{index}/dev"));
        let number = std::fs::read_to_string(&number).with_context(|| format!("{name} is no macvtap"))?;
        let Some((major, minor)) = number.trim().split_once(':') else { bail!("not a device number: {number}") };
        nix::mount::umount(room.path())?;
        // A file system of its own, since /tmp may refuse devices.
        mount(Some("tmpfs"), room.path(), Some("tmpfs"), MsFlags::empty(), none).context("mounting tmpfs")?;
        // Named as udev names it.
        let node = room.path().join(format!("tap{index}"));
        mknod(&node, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, makedev(major.parse()?, minor.parse()?))?;
        let file = device(&node);
        std::fs::remove_file(&node)?;
        nix::mount::umount2(room.path(), nix::mount::MntFlags::MNT_DETACH)?;
        file
    })
}
