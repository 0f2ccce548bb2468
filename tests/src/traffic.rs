//! What an agent tells of VMs' traffic, from each of its views, and a VM whose interface's own statistics stand beside it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::agent::Agent;
use crate::clock::CLOCK_PAIR_NS;
use crate::ledger::number;
use crate::metrics::Metrics;
use crate::net::link::{Link, LinkStats};
use crate::net::netns::Namespace;
use crate::net::sender::{Amount, Sender};
use crate::vmm::nic::client::NicVm;

/// `{interface, direction, class}`.
pub const BYTES: &str = "kvmeter_vm_network_bytes_total";
/// The same of packets.
pub const PACKETS: &str = "kvmeter_vm_network_packets_total";
const PATIENCE: Duration = Duration::from_secs(60);
/// Windows of frames that wait for the guest: what a tap's queue is sure to hold.
const WINDOW: u64 = 400;

/// Both ways, as the guest sees them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Both {
    /// Into the guest.
    pub receive: Amount,
    /// Out of the guest.
    pub transmit: Amount,
}

/// What one view tells of a VM, by interface and class; what is zero is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told(pub BTreeMap<(String, String), Both>);

impl Told {
    /// What `/metrics` and `/v1/vms/{id}` tell after a whole reading from now on; an error if they differ. To be asked
    /// while nothing moves.
    pub fn shown(agent: &Agent, vm_id: &str) -> Result<Self> {
        wait_reading(agent)?;
        let scrape = Self::scraped(&agent.metrics()?, vm_id);
        let api = Self::detailed(agent, vm_id)?;
        ensure!(scrape == api, "{vm_id}: /metrics {scrape:?}, /v1/vms {api:?}");
        Ok(scrape)
    }

    /// What a scrape tells.
    #[must_use]
    pub fn scraped(scrape: &Metrics, vm_id: &str) -> Self {
        let mut all: BTreeMap<_, Both> = BTreeMap::new();
        let words = [(PACKETS, "receive"), (PACKETS, "transmit"), (BYTES, "receive"), (BYTES, "transmit")];
        for (at, (name, direction)) in words.into_iter().enumerate() {
            for series in scrape.all(name, &[("vm_id", vm_id), ("direction", direction)]) {
                let label = |key: &str| series.labels.get(key).cloned().unwrap_or_default();
                let both = all.entry((label("interface"), label("class"))).or_default();
                let side = if at % 2 == 0 { &mut both.receive } else { &mut both.transmit };
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, never negative")]
                let value = series.value as u64;
                *if at < 2 { &mut side.packets } else { &mut side.bytes } = value;
            }
        }
        Self::of(all)
    }

    /// What `/v1/vms/{id}` tells.
    pub fn detailed(agent: &Agent, vm_id: &str) -> Result<Self> {
        let vm = agent.json(&format!("/v1/vms/{vm_id}"))?;
        let mut all = BTreeMap::new();
        for interface in vm["network"].as_array().into_iter().flatten() {
            let name = interface["interface"].as_str().context("no interface")?;
            for class in interface["classes"].as_array().into_iter().flatten() {
                all.insert((name.to_owned(), text(class, "class")?), both(class)?);
            }
        }
        Ok(Self::of(all))
    }

    /// What a ledger line tells.
    pub fn of_line(line: &Value) -> Result<Self> {
        let each = line["usage"]["net"].as_array().into_iter().flatten();
        let each = each.map(|one| Ok(((text(one, "interface")?, text(one, "class")?), both(one)?)));
        Ok(Self::of(each.collect::<Result<_>>()?))
    }

    fn of(all: BTreeMap<(String, String), Both>) -> Self {
        Self(all.into_iter().filter(|(_, both)| *both != Both::default()).collect())
    }

    /// All of it.
    #[must_use]
    pub fn all(&self) -> Both {
        self.sum(|_, _| true)
    }

    /// All of a class.
    #[must_use]
    pub fn class(&self, name: &str) -> Both {
        self.sum(|_, class| class == name)
    }

    /// All of an interface.
    #[must_use]
    pub fn interface(&self, name: &str) -> Both {
        self.sum(|interface, _| interface == name)
    }

    /// Whether no number is smaller than before.
    #[must_use]
    pub fn goes_on_from(&self, before: &Self) -> bool {
        before.0.iter().all(|(key, old)| {
            let new = self.0.get(key).copied().unwrap_or_default();
            let holds = |new: Amount, old: Amount| new.packets >= old.packets && new.bytes >= old.bytes;
            holds(new.receive, old.receive) && holds(new.transmit, old.transmit)
        })
    }

    fn sum(&self, which: impl Fn(&str, &str) -> bool) -> Both {
        let mut sum = Both::default();
        for ((interface, class), both) in &self.0 {
            if which(interface, class) {
                sum.receive.add(both.receive);
                sum.transmit.add(both.transmit);
            }
        }
        sum
    }
}

/// Waits until figures of interfaces are shown that were asked for after now: a reading that is not there in time is told a
/// sample later.
pub fn wait_reading(agent: &Agent) -> Result<()> {
    let now = SystemTime::now() + Duration::from_nanos(CLOCK_PAIR_NS);
    agent.wait_until("a reading of interfaces", 2 * PATIENCE, |agent| {
        let status = agent.json("/v1/status")?;
        let Some(read_at) = status["network"]["read_at"].as_str() else { return Ok(false) };
        Ok(humantime::parse_rfc3339(read_at)? > now)
    })
}

fn text(value: &Value, key: &str) -> Result<String> {
    value[key].as_str().map(str::to_owned).with_context(|| format!("no {key} in {value}"))
}

fn both(value: &Value) -> Result<Both> {
    let word = |key: &str| number(&value[key]);
    Ok(Both {
        receive: Amount { packets: word("receive_packets")?, bytes: word("receive_bytes")? },
        transmit: Amount { packets: word("transmit_packets")?, bytes: word("transmit_bytes")? },
    })
}

/// A VM and its interface.
#[derive(Debug)]
pub struct Wired {
    /// Its vm_id.
    pub id: String,
    /// The VM.
    pub vm: NicVm,
    /// Its interface.
    pub link: Link,
    /// Where frames for the guest are sent: the interface, or what a macvtap hangs on.
    pub from: Link,
    /// It is a macvtap.
    pub macvtap: bool,
    /// Its queues take packets that are still to be segmented.
    pub vnet: bool,
}

impl Wired {
    /// A VM whose tap `tap0` is in a namespace of its own, with more words for `--nic`.
    pub fn tap(id: &str, options: &str) -> Result<Self> {
        Self::tap_in(&Namespace::new()?, id, options)
    }

    /// The same in this namespace.
    pub fn tap_in(namespace: &Namespace, id: &str, options: &str) -> Result<Self> {
        let nic = format!("tap0,netns={}{options}", namespace.path().display());
        Self::around(NicVm::start(&nic, &["--id", id])?, id, namespace, options)
    }

    /// A VM that is in its tap's namespace itself, as a jailer would have it.
    pub fn jailed(id: &str) -> Result<Self> {
        let namespace = Namespace::new()?;
        Self::around(NicVm::start_in(&namespace, "tap0", &["--id", id])?, id, &namespace, "")
    }

    fn around(vm: NicVm, id: &str, namespace: &Namespace, options: &str) -> Result<Self> {
        let link = Link::find(namespace, "tap0")?;
        link.set_mtu(9000)?;
        link.set_up()?;
        let vnet = options.contains("vnet");
        Ok(Self { id: id.to_owned(), vm, from: link.clone(), link, macvtap: false, vnet })
    }

    /// A VM with a macvtap above one end of a virtual cable, all in one namespace: of a macvtap elsewhere the kernel does
    /// not tell where it is.
    pub fn macvtap(id: &str, options: &str) -> Result<Self> {
        let namespace = Namespace::new()?;
        let (lower, from) = Link::veth(&namespace, "veth0", "veth1")?;
        let link = lower.macvtap("macvtap0")?;
        for link in [&lower, &from, &link] {
            link.set_mtu(9000)?;
            link.set_up()?;
        }
        link.hear_all_multicast()?;
        let vm = NicVm::start_in(&namespace, &format!("macvtap0,macvtap{options}"), &["--id", id])?;
        Ok(Self { id: id.to_owned(), vm, link, from, macvtap: true, vnet: options.contains("vnet") })
    }

    /// A sender of frames for the guest.
    pub fn sender(&self) -> Result<Sender> {
        if self.vnet { Sender::vnet(&self.from) } else { Sender::new(&self.from) }
    }

    /// Waits until its interface is counted: what passes from now on has its class.
    pub fn counted(&self, agent: &Agent) -> Result<()> {
        agent.wait_until(&format!("{} to be counted", self.id), PATIENCE, |agent| {
            let labels = [("vm_id", self.id.as_str()), ("observed", "true")];
            let scrape = agent.metrics()?;
            let held = scrape.one("kvmeter_vm_network_interfaces", &labels) == Some(1.0);
            Ok(held && scrape.all(PACKETS, &labels[..1]).count() > 0)
        })
    }

    /// Sends a frame to the guest so often, as it takes them.
    pub fn feed(&mut self, sender: &mut Sender, frame: &crate::net::frame::Frame, count: u64) -> Result<()> {
        let mut left = count;
        while left > 0 {
            let window = left.min(WINDOW);
            self.vm.say(&format!("receive {window}"))?;
            sender.send(frame, window)?;
            self.vm.answer()?;
            left -= window;
        }
        Ok(())
    }

    /// What the link says, as the guest sees it. What a tap dropped has no bytes there.
    pub fn by_link(&self) -> Result<Both> {
        Ok(as_guest(self.link.stats()?, self.macvtap))
    }

    /// What the guest's own program says.
    pub fn by_guest(&mut self) -> Result<Both> {
        let counters = self.vm.counters()?;
        Ok(Both { receive: counters.received(), transmit: counters.sent() })
    }
}

/// A link's statistics as the guest sees them.
#[must_use]
pub fn as_guest(stats: LinkStats, macvtap: bool) -> Both {
    let rx = Amount { packets: stats.rx_packets, bytes: stats.rx_bytes };
    let tx = Amount { packets: stats.tx_packets + stats.tx_dropped, bytes: stats.tx_bytes };
    if macvtap { Both { receive: rx, transmit: tx } } else { Both { receive: tx, transmit: rx } }
}
