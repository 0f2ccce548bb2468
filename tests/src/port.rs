//! TCP ports of one's own for programs that a test starts: below those the kernel gives to connections, so that none is
//! taken by a stranger between the look and the start.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU16, Ordering},
};

use anyhow::{Context as _, Result};

/// The lowest that is tried, and how many.
const FIRST: u16 = 15_000;
const COUNT: u16 = 10_000;

/// A port on 127.0.0.1 that nobody listens on.
pub fn free() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Runs beside this one begin elsewhere.
    let begin = u16::try_from(std::process::id() % 997)?.wrapping_mul(61);
    let candidates = (0..COUNT).map(|_| FIRST + begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT);
    let mut free = candidates.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.next().context("no port is free")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_free_never_given_twice_and_none_of_the_kernels() {
        let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let lowest: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
        let (one, two) = (free().unwrap(), free().unwrap());
        assert_ne!(one, two);
        for port in [one, two] {
            TcpListener::bind(("127.0.0.1", port)).unwrap();
            assert!(port < lowest, "{port}, and the kernel gives away {lowest} and more");
        }
    }
}
