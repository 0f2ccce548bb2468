//! What `--nic` says: which interface, where, and how its queues are opened.

use std::path::PathBuf;
use std::str::FromStr;

use crate::net::tap::TapOptions;

/// `NAME[,queues=N][,netns=FD|PATH][,persist][,vnet][,macvtap][,closed]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicOption {
    /// The interface.
    pub name: String,
    /// How it is opened.
    pub tap: TapOptions,
    /// It is a macvtap that exists, else a tap that is made if there is none.
    pub macvtap: bool,
    /// The network namespace it is in, if not the VMM's own.
    pub netns: Option<PathBuf>,
    /// It is left alone until a command opens it.
    pub closed: bool,
}

impl FromStr for NicOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split(',');
        let name = parts.next().unwrap_or_default().to_owned();
        if !(1..=15).contains(&name.len()) {
            return Err("begin with the interface's name, 1 to 15 bytes".into());
        }
        let mut nic = Self { name, tap: TapOptions::default(), macvtap: false, netns: None, closed: false };
        for part in parts {
            match part.split_once('=').unwrap_or((part, "")) {
                ("queues", count) => nic.tap.queues = queues(count)?,
                ("netns", place) if !place.is_empty() => nic.netns = Some(namespace(place)),
                ("persist", "") => nic.tap.persist = true,
                ("vnet", "") => nic.tap.vnet = true,
                ("macvtap", "") => nic.macvtap = true,
                ("closed", "") => nic.closed = true,
                _ => {
                    let known = "queues=N, netns=FD or netns=PATH, persist, vnet, macvtap, closed";
                    return Err(format!("`{part}` means nothing here; use {known}"));
                }
            }
        }
        if nic.macvtap && nic.tap.persist {
            return Err("a macvtap stays by itself; leave out persist".into());
        }
        Ok(nic)
    }
}

fn queues(count: &str) -> Result<u32, String> {
    let count = count.parse().ok().filter(|count| (1..=256).contains(count));
    count.ok_or_else(|| "queues=N: give 1 to 256".to_owned())
}

fn namespace(place: &str) -> PathBuf {
    match place.parse::<u32>() {
        Ok(fd) => format!("/proc/self/fd/{fd}").into(),
        Err(_) => place.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_understood() {
        let nic: NicOption = "tap0,queues=4,netns=/run/netns/a,persist,vnet,closed".parse().unwrap();
        assert_eq!((nic.name.as_str(), nic.tap.queues, nic.macvtap, nic.closed), ("tap0", 4, false, true));
        assert!(nic.tap.persist && nic.tap.vnet);
        assert_eq!(nic.netns, Some("/run/netns/a".into()));
        assert_eq!("t,netns=7".parse::<NicOption>().unwrap().netns, Some("/proc/self/fd/7".into()));
    }

    #[test]
    fn a_bad_word_is_named() {
        for (text, word) in [
            ("", "name"),
            ("sixteen-letters!", "name"),
            ("t,queues=0", "queues"),
            ("t,turbo", "turbo"),
            ("t,netns=", "netns"),
            ("t,macvtap,persist", "persist"),
        ] {
            let error = text.parse::<NicOption>().unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
