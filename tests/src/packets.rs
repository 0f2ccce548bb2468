//! Truths about packets: their IP lengths as a packet socket saw them, and programs on a control group as the kernel
//! lists them.

use std::{
    os::fd::AsRawFd as _,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use anyhow::{Result, anyhow, ensure};
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket, sockopt,
};

/// IP lengths of packets on the loopback device to a port and from it, while this lives.
#[derive(Debug)]
pub struct Packets {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Result<(u64, u64)>>,
}

impl Packets {
    /// Begins to listen.
    pub fn on_loopback(port: u16) -> Result<Self> {
        let wire = socket(AddressFamily::Packet, SockType::Datagram, SockFlag::empty(), SockProtocol::EthAll)?;
        setsockopt(&wire, sockopt::RcvBufForce, &(256 << 20))?;
        setsockopt(&wire, sockopt::ReceiveTimeout, &nix::sys::time::TimeVal::new(0, 50_000))?;
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let (mut to, mut from) = (0, 0);
            let mut head = [0; 128];
            loop {
                // Read before the socket is found empty: what was sent before the end is not missed.
                let last = ended.load(Ordering::SeqCst);
                match recvfrom::<LinkAddr>(wire.as_raw_fd(), &mut head) {
                    Ok((length, Some(address))) if length > 24 && address.pkttype() == libc::PACKET_OUTGOING => {
                        let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
                        let ports = usize::from(head[0] & 15) * 4;
                        // Version 4, TCP.
                        if head[0] >> 4 == 4 && head[9] == 6 {
                            let bytes = u64::from(word(2));
                            to += if word(ports + 2) == port { bytes } else { 0 };
                            from += if word(ports) == port { bytes } else { 0 };
                        }
                    }
                    Ok(_) => {}
                    Err(nix::Error::EAGAIN | nix::Error::EINTR) if last => return Ok((to, from)),
                    Err(nix::Error::EAGAIN | nix::Error::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        });
        Ok(Self { over, thread })
    }

    /// Ends it; bytes to the port and from it.
    pub fn done(self) -> Result<(u64, u64)> {
        // What was sent so far lies in the socket already.
        self.over.store(true, Ordering::SeqCst);
        self.thread.join().map_err(|_| anyhow!("the capture panicked"))?
    }
}

/// How many programs stand on a control group itself, by `bpftool cgroup show`.
pub fn cgroup_programs(dir: &Path) -> Result<usize> {
    let output = Command::new("bpftool").args(["-j", "cgroup", "show"]).arg(dir).output()?;
    ensure!(output.status.success(), "bpftool: {}", String::from_utf8_lossy(&output.stderr));
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Ok(list.as_array().map_or(0, Vec::len))
}
