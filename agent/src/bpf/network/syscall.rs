//! The few requests of bpf(2) that aya has no way to make: many instances of one program, each with constants of its own.
//!
//! With `socket` the only `unsafe` of this folder. Structures are those of include/uapi/linux/bpf.h up to the last member used; the
//! kernel takes what is missing as 0 (kernel/bpf/syscall.c, `bpf_check_uarg_tail_zero`).

use std::{
    ffi::c_long,
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_insn, bpf_map_type, bpf_prog_type};

/// Requests by reference, answered in place.
#[repr(C)]
#[derive(Default)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
    relative_fd: u32,
    reserved: u32,
    expected_revision: u64,
}

#[repr(C)]
#[derive(Default)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkDetach {
    link_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct ProgQuery {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    reserved: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

#[repr(C)]
#[derive(Default)]
struct InfoByFd {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// `struct bpf_link_info` of a tcx link.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct LinkInfo {
    link_type: u32,
    id: u32,
    prog_id: u32,
    reserved: u32,
    ifindex: u32,
    attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct MapElement {
    map_fd: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Makes a request. Addresses inside must be valid while it lasts; every caller below passes those of its own arguments.
pub(super) fn request<T>(command: bpf_cmd, attributes: &mut T) -> io::Result<c_long> {
    // SAFETY: `attributes` is a C structure of the size told, which the kernel reads and may write.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command as u32, std::ptr::from_mut(attributes), size_of::<T>()) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

pub(super) fn owned(answer: c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(answer).map_err(io::Error::other)?;
    // SAFETY: the kernel has just opened it for us, nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn size<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}

fn name(text: &str) -> [u8; 16] {
    let mut name = [0; 16];
    // The last byte stays 0.
    for (to, from) in name.iter_mut().zip(text.bytes()).take(15) {
        *to = from;
    }
    name
}

/// Kind and size of a map.
pub(super) struct MapShape<'a> {
    pub name: &'static str,
    pub kind: bpf_map_type,
    pub key_bytes: u32,
    pub value_bytes: u32,
    pub entries: u32,
    pub flags: u32,
    /// A map like those that are its elements.
    pub inner: Option<BorrowedFd<'a>>,
}

/// Creates a map.
pub(super) fn create_map(shape: &MapShape<'_>) -> io::Result<OwnedFd> {
    let mut attributes = MapCreate {
        map_type: shape.kind as u32,
        key_size: shape.key_bytes,
        value_size: shape.value_bytes,
        max_entries: shape.entries,
        map_flags: shape.flags,
        inner_map_fd: shape.inner.map_or(0, number),
        map_name: name(shape.name),
        ..MapCreate::default()
    };
    owned(request(bpf_cmd::BPF_MAP_CREATE, &mut attributes)?)
}

/// Loads a program. With `log`, the verifier's words are put there.
pub(super) fn load(kind: bpf_prog_type, text: &str, code: &[bpf_insn], log: Option<&mut [u8]>) -> io::Result<OwnedFd> {
    let mut attributes = ProgLoad {
        prog_type: kind as u32,
        insn_cnt: u32::try_from(code.len()).map_err(io::Error::other)?,
        insns: code.as_ptr().expose_provenance() as u64,
        license: c"Dual MIT/GPL".as_ptr().expose_provenance() as u64,
        prog_name: name(text),
        ..ProgLoad::default()
    };
    if let Some(log) = log {
        attributes.log_level = 1;
        attributes.log_size = u32::try_from(log.len()).unwrap_or(u32::MAX);
        attributes.log_buf = log.as_mut_ptr().expose_provenance() as u64;
    }
    owned(request(bpf_cmd::BPF_PROG_LOAD, &mut attributes)?)
}

/// Puts a program on a tcx hook of a device in the calling thread's network namespace, before those that are there.
pub(super) fn link(program: BorrowedFd<'_>, ifindex: u32, hook: bpf_attach_type) -> io::Result<OwnedFd> {
    /// `BPF_F_BEFORE`: what another program drops or passes on has still reached the link.
    const BEFORE: u32 = 1 << 3;
    let mut attributes = LinkCreate {
        prog_fd: number(program),
        target_ifindex: ifindex,
        attach_type: hook as u32,
        flags: BEFORE,
        ..LinkCreate::default()
    };
    owned(request(bpf_cmd::BPF_LINK_CREATE, &mut attributes)?)
}

/// Puts another program in place of a link's, between two packets.
pub(super) fn replace(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = LinkUpdate { link_fd: number(link), new_prog_fd: number(program), ..LinkUpdate::default() };
    request(bpf_cmd::BPF_LINK_UPDATE, &mut attributes).map(drop)
}

/// Takes a link's program off its hook; afterwards it runs nowhere (kernel/bpf/tcx.c, `tcx_link_release`, waits).
pub(super) fn unlink(link: BorrowedFd<'_>) -> io::Result<()> {
    request(bpf_cmd::BPF_LINK_DETACH, &mut LinkDetach { link_fd: number(link) }).map(drop)
}

/// A tcx link: its number, and the device it is on, 0 once that is gone.
pub(super) fn linked(link: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    let mut info = LinkInfo::default();
    let mut attributes = InfoByFd {
        bpf_fd: number(link),
        info_len: size::<LinkInfo>(),
        info: std::ptr::from_mut(&mut info).expose_provenance() as u64,
    };
    request(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    // SAFETY: the kernel wrote through the address above, which the compiler did not see; integers only.
    let info = unsafe { (&raw const info).read_volatile() };
    Ok((info.id, info.ifindex))
}

/// Numbers of the links on a tcx hook of a device in the calling thread's network namespace, 64 at most.
pub(super) fn links_on(ifindex: u32, hook: bpf_attach_type) -> io::Result<Vec<u32>> {
    const MOST: u32 = 64;
    let (mut programs, mut links) = ([0_u32; MOST as usize], [0_u32; MOST as usize]);
    let mut attributes = ProgQuery {
        target_ifindex: ifindex,
        attach_type: hook as u32,
        prog_cnt: MOST,
        // The kernel fills the second list only where the first is wanted (kernel/bpf/mprog.c, `bpf_mprog_query`).
        prog_ids: programs.as_mut_ptr().expose_provenance() as u64,
        link_ids: links.as_mut_ptr().expose_provenance() as u64,
        ..ProgQuery::default()
    };
    match request(bpf_cmd::BPF_PROG_QUERY, &mut attributes) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(Vec::new()),
        Err(error) => Err(error),
        // SAFETY: the kernel wrote there, which the compiler did not see; integers, all of them set before.
        Ok(_) => Ok(unsafe { (&raw const links).read_volatile() }.into_iter().filter(|id| *id != 0).collect()),
    }
}

/// How many programs are on a tcx hook of a device.
pub(super) fn count_on(ifindex: u32, hook: bpf_attach_type) -> io::Result<u32> {
    let mut attributes = ProgQuery { target_ifindex: ifindex, attach_type: hook as u32, ..ProgQuery::default() };
    match request(bpf_cmd::BPF_PROG_QUERY, &mut attributes) {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(0),
        Err(error) => Err(error),
        // SAFETY: the kernel wrote there, which the compiler did not see; an integer.
        Ok(_) => Ok(unsafe { (&raw const attributes.prog_cnt).read_volatile() }),
    }
}

/// Puts an element of integers into a map.
pub(super) fn insert<K: Copy, V: ?Sized>(map: impl AsFd, key: &K, value: &V, flags: u64) -> io::Result<()> {
    let mut attributes = MapElement {
        map_fd: number(map.as_fd()),
        key: std::ptr::from_ref(key).expose_provenance() as u64,
        value: std::ptr::from_ref(value).cast::<u8>().expose_provenance() as u64,
        flags,
        ..MapElement::default()
    };
    request(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attributes).map(drop)
}

/// Takes an element out of a map.
pub(super) fn remove<K: Copy>(map: impl AsFd, key: &K) -> io::Result<()> {
    let mut attributes = MapElement {
        map_fd: number(map.as_fd()),
        key: std::ptr::from_ref(key).expose_provenance() as u64,
        ..MapElement::default()
    };
    request(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut attributes).map(drop)
}
