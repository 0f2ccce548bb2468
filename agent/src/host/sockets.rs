//! The control group of version 2 that a VM has for itself, for counting its sockets.

use std::path::PathBuf;

use super::WhyNot;
use super::cgroup::Controller;
use super::throttle::{GroupSearch, place};
use crate::units::Tgid;

/// The directory of the VM's own group, the one above all others that are its own. A group that holds another process,
/// the root and a slice are nobody's own.
///
/// # Errors
/// [`WhyNot`]: it has none.
pub fn own_group(search: &GroupSearch, tgid: Tgid) -> Result<PathBuf, WhyNot> {
    place::of(search, tgid, Controller::Sockets).map(|place| place.top.clone())
}
