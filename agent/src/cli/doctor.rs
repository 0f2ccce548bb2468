//! `doctor`: what this host can and cannot measure, why, and what to do. Tries the real thing: it loads the kernel
//! programs for a moment, opens the uevent socket and writes into the ledger's directory. What an agent that runs has
//! found not to work stands against what worked for a moment.

mod io_threads;
mod memory;
mod pins;
mod space;
mod storage;

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::{Outcome, client, print, table};
use crate::{
    account::host::InventoryState,
    app::{METERING, NoKernel, Source, start_kernel},
    bpf::{Kernel, network::NetworkPrograms},
    config::Config,
    engine::read_inventory,
    expose::{
        Status,
        status::{self, Feature},
    },
    host::{HostFacts, ProcFs, UeventSocket},
};

/// Interfaces named in a row.
const TOLD: usize = 3;

#[derive(Serialize)]
struct Diagnosis {
    /// Whether CPU and ledger work here.
    ok: bool,
    cpu: bool,
    ledger: bool,
    #[serde(flatten)]
    status: Status,
}

pub(super) fn run(source: &Source, json: bool) -> anyhow::Result<Outcome> {
    let (config, warnings) = source.load()?;
    for warning in &warnings {
        eprintln!("warning: {warning}");
    }
    let diagnosis = diagnose(&config);
    if json {
        print(&format!("{}\n", serde_json::to_string_pretty(&diagnosis)?))?;
    } else {
        print(&report(&diagnosis))?;
    }
    Ok(if diagnosis.ok { Outcome::Done } else { Outcome::Negative })
}

fn diagnose(config: &Config) -> Diagnosis {
    let root = Path::new("/");
    let facts = HostFacts::gather(root);
    let agent = client::get(&config.socket, "/v1/status").ok().filter(|a| a.status == 200).map(|answer| answer.body);
    let kernel = start_kernel(config, &facts, None);
    let uevents = UeventSocket::open().map(drop).map_err(|error| error.to_string());
    let mut status = Status::new(
        &facts,
        kernel.as_ref().map(Kernel::statuses).map_err(NoKernel::told),
        uevents.as_ref().copied().map_err(String::as_str),
    );
    status.features.extend(storage::feature(&config.pools));
    let fallback = proc_works(&facts);
    status.features.push(fallback.clone());
    status.features.push(io_threads::feature(&ProcFs::new(root), facts.sees_other_processes()));
    let network = NetworkPrograms::load().map(|programs| programs.hook()).map_err(|error| error.to_string());
    status.features.push(status::network(network.as_ref().copied().map_err(String::as_str)));
    status.features.push(memory::feature(root, config, &facts));
    status.features.push(pins::feature(config, agent.as_ref()));
    if let Some(agent) = &agent {
        heed(agent, &mut status);
        status.features.extend(unobserved(agent));
        status.features.extend(hung(agent));
    }
    status.features.extend(config.inventory.path.as_deref().map(inventory));
    let ledger = ledger_works(config, agent.as_ref());
    status.features.push(ledger.clone());
    status.features.extend(space::feature(config));
    let cpu = kernel.is_ok() || fallback.available;
    Diagnosis { ok: cpu && ledger.available, cpu, ledger: ledger.available, status }
}

/// Takes over what the agent that runs has found not to work: a program that loads may still never fire.
fn heed(agent: &Value, status: &mut Status) {
    let told = agent["features"].as_array().map(Vec::as_slice).unwrap_or_default();
    for feature in &mut status.features {
        let Some(found) = told.iter().find(|f| f["name"] == *feature.name && f["available"] == false) else { continue };
        let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
        feature.available = false;
        feature.why = format!("the agent that runs says: {}", text("why"));
        feature.advice = text("advice");
    }
    if let Some(source) = agent["cpu_source"].as_str() {
        source.clone_into(&mut status.cpu_source);
    }
}

/// The operator's inventory, as an agent would read it.
fn inventory(path: &Path) -> Feature {
    let mut state = InventoryState::new(path);
    match read_inventory(path) {
        Ok(inventory) => state.read(inventory.len(), String::new()),
        Err(error) => state.failed(error),
    }
    status::inventory(&state)
}

/// Readings of the agent that runs that do not come back; nothing where there are none.
fn hung(agent: &Value) -> Option<Feature> {
    let threads = agent["hung"].as_object().filter(|threads| !threads.is_empty())?;
    let told = threads.iter().map(|(thread, since)| format!("{thread} since {}", since.as_str().unwrap_or_default()));
    Some(Feature {
        name: "slow_readings".to_owned(),
        available: false,
        gives: "lists of disks (disks), proportional sizes (pss)".to_owned(),
        why: format!("a reading hangs in the kernel: {}", told.collect::<Vec<_>>().join(", ")),
        advice:
            "look at /proc/AGENT/task/*/stack: mostly a file system whose server is away; till then they are absent"
                .to_owned(),
    })
}

/// Interfaces of VMs that the agent that runs sees and cannot count; nothing where there are none.
fn unobserved(agent: &Value) -> Option<Feature> {
    let list = agent["network"]["unobserved"].as_array().filter(|list| !list.is_empty())?;
    let text = |one: &Value, key: &str| one[key].as_str().unwrap_or_default().to_owned();
    let told = list.iter().take(TOLD).map(|one| {
        format!(
            "{} of {} ({}: {})",
            text(one, "interface"),
            text(one, "vm_id"),
            text(one, "kind"),
            text(one, "why_not")
        )
    });
    let more = if list.len() > TOLD { ", …" } else { "" };
    Some(Feature {
        name: "all_interfaces".to_owned(),
        available: false,
        gives: "packets of each interface of each VM".to_owned(),
        why: format!("not counted: {}{more}", told.collect::<Vec<_>>().join("; ")),
        advice: "count them at the switch or the device; here they are absent, not 0".to_owned(),
    })
}

/// Whether CPU time could be read from `/proc`.
fn proc_works(facts: &HostFacts) -> Feature {
    let sees_all = facts.sees_other_processes();
    let why = match (facts.schedstat, sees_all) {
        (false, _) => "this kernel has no /proc/PID/schedstat (CONFIG_SCHED_INFO)",
        (_, false) => "file descriptors of other users' processes cannot be seen, so no VM can be found",
        _ => "",
    };
    Feature {
        name: "proc".to_owned(),
        available: why.is_empty(),
        gives: "CPU and run-queue time from /proc at every sample, if the kernel programs cannot run".to_owned(),
        why: why.to_owned(),
        advice: if sees_all {
            String::new()
        } else {
            "run as root, or with CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH".to_owned()
        },
    }
}

/// Whether a ledger can be written: by the agent that runs, if one does, else by trying.
fn ledger_works(config: &Config, agent: Option<&Value>) -> Feature {
    let dir = config.data_dir.join(METERING);
    let by_agent = agent.map(|status| {
        let ledger = &status["ledger"];
        let bad = ledger["degraded"].as_bool().unwrap_or(true);
        if bad { ledger["last_error"].as_str().unwrap_or("it is degraded").to_owned() } else { String::new() }
    });
    let why = by_agent.unwrap_or_else(|| try_write(&dir).err().map(|error| error.to_string()).unwrap_or_default());
    Feature {
        name: "ledger".to_owned(),
        available: why.is_empty(),
        gives: format!("metering lines in {}", dir.display()),
        advice: if why.is_empty() {
            String::new()
        } else {
            "make data_dir writable for the agent, or set another".to_owned()
        },
        why,
    }
}

/// Writes and syncs a file beside the ledger, in the nearest directory that exists.
fn try_write(dir: &Path) -> std::io::Result<()> {
    let existing = dir.ancestors().find(|a| a.is_dir()).unwrap_or(Path::new("/"));
    let probe = existing.join(format!(".kvmeter-doctor-{}", std::process::id()));
    let written = std::fs::File::create_new(&probe).and_then(|file| file.sync_all());
    let removed = std::fs::remove_file(&probe);
    written.and(removed).map_err(|error| std::io::Error::new(error.kind(), format!("{}: {error}", existing.display())))
}

fn report(diagnosis: &Diagnosis) -> String {
    let status = &diagnosis.status;
    let rows = status.features.iter().map(|feature| {
        let mark = if feature.available { "yes" } else { "NO" };
        let told = if feature.available {
            feature.gives.clone()
        } else if feature.advice.is_empty() {
            feature.why.clone()
        } else {
            format!("{} → {}", feature.why, feature.advice)
        };
        vec![feature.name.clone(), mark.to_owned(), told]
    });
    let table = table::render(&["FEATURE", "WORKS", "WHAT IT GIVES, OR WHY NOT → WHAT TO DO"], rows.collect());
    let yes_no = |works| if works { "works" } else { "DOES NOT WORK" };
    format!(
        "kvmeter {} on Linux {}: CPU accounting {} (by {}), ledger {}\n\n{table}",
        status.version,
        status.kernel,
        yes_no(diagnosis.cpu),
        if status.cpu_source == "bpf" { "kernel programs" } else { "the proc file system" },
        yes_no(diagnosis.ledger)
    )
}
