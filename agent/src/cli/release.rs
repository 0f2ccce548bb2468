//! `release`: everything that agents have pinned is let go, so that nothing of kvmeter is in the kernel once no agent
//! runs, and KVM's modules can be unloaded.

use std::path::Path;

use anyhow::Context as _;

use super::{Outcome, client, print};
use crate::{
    app::Source,
    bpf::{network, pin},
};

pub(super) const HELP: &str = "Ends with 0 if something was let go, with 3 if nothing was pinned. What VMs do from then \
    on is counted by nobody until an\nagent starts. An agent that runs keeps its programs until it ends, and pins nothing \
    more.\n\nExample:\n  systemctl stop kvmeter && kvmeter release && rmmod kvm_intel kvm";

pub(super) fn run(source: &Source) -> anyhow::Result<Outcome> {
    let (config, _) = source.load()?;
    let Some(dir) = &config.bpf.pin_dir else {
        print("nothing is pinned: bpf.pin_dir is \"off\"\n")?;
        return Ok(Outcome::Negative);
    };
    let released =
        pin::release(dir).with_context(|| format!("what is pinned in {} cannot be let go", dir.display()))?;
    let runs = client::get(&config.socket, "/v1/status").is_ok();
    let filters = if runs { 0 } else { network::release_filters(Path::new("/")) };
    if released.pins == 0 && filters == 0 {
        print(&format!("nothing is pinned in {}\n", dir.display()))?;
        return Ok(Outcome::Negative);
    }
    print(&format!("{} pins of {} ledgers in {} are let go\n", released.pins, released.ledgers, dir.display()))?;
    if filters > 0 {
        print(&format!("{filters} filters of interfaces are taken away\n"))?;
    }
    if runs {
        print("an agent runs: it keeps its kernel programs until it ends\n")?;
    }
    Ok(Outcome::Done)
}
