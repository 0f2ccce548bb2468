//! libvirt's exporter on libvirt's VMs, beside the agent on the same ones; as far as libvirt runs here.

use std::time::Duration;

use anyhow::Result;

use crate::agent::Agent;
use crate::libvirt::Libvirt;
use crate::skip::host;

use super::exporter::Exporter;
use super::fleet::scraped;
use super::scrape;
use super::table::{Row, Section};
use super::watch;
use super::{HOST_BUSY, Options};

/// How long QEMU may take until it is a VM.
const PATIENCE: Duration = Duration::from_secs(60);

/// The table.
pub fn section(options: &Options) -> Result<Section> {
    const TITLE: &str = "libvirt's exporter";
    let Some(_host) = host("libvirt's exporter") else { return Ok(Section::missing(TITLE, HOST_BUSY)) };
    let count = options.domains();
    // libvirt is no part of kvmeter: where it does not run, that is what the table says.
    let rows = compare(options, count)
        .unwrap_or_else(|error| vec![Row::missing(format!("libvirt-exporter, {count} VMs"), format!("{error:#}"))]);
    let method = format!(
        "{count} QEMU VMs made by libvirt (whose firmware runs: QEMU has no disk), scraped by `prometheus-libvirt-exporter`, \
         and by the agent. The exporter asks libvirtd, whose CPU is therefore added to its own."
    );
    Ok(Section { title: TITLE, method, rows })
}

fn compare(options: &Options, count: u32) -> Result<Vec<Row>> {
    let mut libvirt = Libvirt::start()?;
    for number in 0..count {
        libvirt.create(&format!("bench-{number}"))?;
    }
    let agent = Agent::start()?;
    agent.wait_running(count, PATIENCE)?;
    let idle = |pids: &[i32]| {
        watch::during(pids, || {
            std::thread::sleep(options.window() / 6);
            Ok(())
        })
    };
    let pids = [agent.pid()];
    let ours = scrape::several(&pids, idle(&pids)?, options.scrapes(), "vm_id=", || agent.scrape())?;
    drop(agent);
    let exporter = Exporter::of_libvirt(libvirt.pid())?;
    let pids = [exporter.pid(), libvirt.pid()];
    let theirs = scrape::several(&pids, idle(&pids)?, options.scrapes(), "domain=", || exporter.scrape())?;
    let whose = format!("libvirt-exporter with libvirtd, {count} VMs");
    let mut rows = [scraped(&format!("agent, {count} VMs"), ours), scraped(&whose, theirs)].concat();
    rows.push(Row::new(format!("{whose}: CPU of a scrape over the agent's"), "×", theirs.over(&ours)));
    Ok(rows)
}
