//! Law: a wait for a CPU is told with who ran instead, and the parts sum to the whole; so do the buckets of its lengths.

use std::time::Duration;

use anyhow::{Context as _, Result};
use kvmeter_tests::{
    agent::{Agent, Setup},
    cgroup::Group,
    metrics::Metrics,
    skip::{host, skipped},
    vmm::spawn::TestVm,
    waits::{Spinner, Waited, times_run, undisturbed},
};

const DELAY: &str = "kvmeter_vm_cpu_delay_seconds_total";
const OF_VM: &str = "kvmeter_vm_run_delay_seconds";
const OF_HOST: &str = "kvmeter_run_delay_seconds";
const PATIENCE: Duration = Duration::from_secs(60);
/// The least share of a VM's waiting that is told to be for the only other one that wants its CPU.
const MOST: f64 = 0.8;
const BUSY: &str = "other programs take too much of CPU 0";

fn spinning(id: &str) -> Result<TestVm> {
    TestVm::start(&["--id", id, "--duty", "100", "--pin", "0"])
}

fn vcpu(vm: &TestVm) -> (i32, i32) {
    (vm.pid(), vm.vcpu_tids()[0])
}

#[test]
fn who_ran_instead_is_told() -> Result<()> {
    const TEST: &str = "who_ran_instead_is_told";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let agent = Agent::start()?;
    // Of a busy host they would get a part only. Without such a group, a window without others is waited for.
    let front = Group::cpu("front");
    let (left, right) = (spinning("left")?, spinning("right")?);
    if let Some(front) = &front {
        front.favour()?;
        front.add(left.pid())?;
        front.add(right.pid())?;
    }
    agent.wait_vms(&["left", "right"])?;
    let Some(waited) = undisturbed(&agent, &["left", "right"], &[vcpu(&left), vcpu(&right)])? else {
        skipped(TEST, BUSY);
        return Ok(());
    };
    for ((before, after), other) in waited.iter().zip(["right", "left"]) {
        let share = after.share(before, other);
        eprintln!("{:.1} % of the waiting was for {other}", share * 100.0);
        assert!((MOST..=1.0 + 1e-6).contains(&share), "{share} for {other}: {before:?} {after:?}");
    }
    Ok(())
}

#[test]
fn what_runs_instead_and_is_no_vm_is_the_host() -> Result<()> {
    const TEST: &str = "what_runs_instead_and_is_no_vm_is_the_host";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let agent = Agent::start()?;
    let vm = spinning("victim")?;
    let spinner = Spinner::on(0)?;
    agent.wait_vms(&["victim"])?;
    // Whoever else takes part of the CPU is the host as well, so nobody can disturb this.
    let threads = [vcpu(&vm), (spinner.pid(), spinner.pid())];
    let read = || -> Result<Waited> {
        agent.wait_samples(1)?;
        Ok(Waited::of(&agent.metrics()?, "victim"))
    };
    let before = read()?;
    std::thread::sleep(Duration::from_secs(2));
    let after = read()?;
    let share = after.share(&before, "host");
    eprintln!("{:.1} % of the waiting of {threads:?} was for the host", share * 100.0);
    assert!(after.goes_on_from(&before), "a counter fell: {before:?} {after:?}");
    assert!(after.delay - before.delay > 0.5, "it hardly waited: nothing was tested");
    assert!((MOST..=1.0 + 1e-6).contains(&share), "{share}: {before:?} {after:?}");
    Ok(())
}

#[test]
fn four_offenders_have_a_name_for_ever_and_the_rest_are_others() -> Result<()> {
    const TEST: &str = "four_offenders_have_a_name_for_ever_and_the_rest_are_others";
    const IDS: [&str; 7] = ["c-0", "c-1", "c-2", "c-3", "c-4", "c-5", "c-6"];
    let Some(_host) = host(TEST) else { return Ok(()) };
    let agent = Agent::start()?;
    // Equal spinners take turns in one order for ever, and each would wait for one other only: these sleep now and then,
    // each for another while.
    let restless = |(number, id): (usize, &&str)| {
        let duty = (35 + 6 * number).to_string();
        TestVm::start(&["--id", id, "--duty", &duty, "--pin", "0"])
    };
    let mut vms = IDS.iter().enumerate().map(restless).collect::<Result<Vec<_>>>()?;
    agent.wait_vms(&IDS)?;
    let read = || -> Result<Vec<Waited>> {
        agent.wait_samples(1)?;
        let scrape = agent.metrics()?;
        Ok(IDS.iter().map(|id| Waited::of(&scrape, id)).collect())
    };
    let full = |waited: &Waited| waited.by.keys().filter(|by| by.starts_with("c-")).count() == 4;
    agent.wait_until("all places to be taken", PATIENCE, |_| Ok(read()?.iter().all(full)))?;
    let first = read()?;
    // Two of six that want the same CPU have no place.
    let mut last = first.clone();
    agent.wait_until("each to wait for one without a place", PATIENCE, |_| {
        last = read()?;
        Ok(first.iter().zip(&last).all(|(before, after)| after.share(before, "other") > 0.0))
    })?;
    for ((id, before), after) in IDS.iter().zip(&first).zip(&last) {
        assert!(after.goes_on_from(before), "{id}: a counter fell: {before:?} {after:?}");
        let known = |by: &&String| IDS.contains(&by.as_str()) || ["host", "other"].contains(&by.as_str());
        assert!(after.by.keys().all(|by| known(&by)), "{id}: {after:?}");
    }
    // Those that end keep their places: whoever comes later is another.
    vms.truncate(1);
    let _newcomer = spinning("newcomer")?;
    agent.wait_vms(&["newcomer"])?;
    let before = last.swap_remove(0);
    agent.wait_samples(3)?;
    let after = Waited::of(&agent.metrics()?, IDS[0]);
    assert!(after.goes_on_from(&before), "{before:?} {after:?}");
    assert!(after.by.keys().eq(before.by.keys()), "a place was given again: {before:?} {after:?}");
    Ok(())
}

/// A histogram of waits: its count and its sum, with its buckets held against their bounds.
fn histogram(scrape: &Metrics, name: &str, labels: &[(&str, &str)]) -> Result<(f64, f64)> {
    let (bucket, count, sum) = (format!("{name}_bucket"), format!("{name}_count"), format!("{name}_sum"));
    let count = scrape.one(&count, labels).with_context(|| format!("no {count}"))?;
    let sum = scrape.one(&sum, labels).with_context(|| format!("no {sum}"))?;
    let mut buckets = Vec::new();
    for series in scrape.all(&bucket, labels) {
        buckets.push((series.labels["le"].parse::<f64>()?, series.value));
    }
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert_eq!(buckets.len(), 9, "{name}: {buckets:?}");
    for (n, (bound, _)) in buckets.iter().take(8).enumerate() {
        let due = 16e-6 * 4_f64.powi(i32::try_from(n)?);
        assert!((bound / due - 1.0).abs() < 1e-9, "{name}: {bound}, not {due}");
    }
    assert!(buckets[8].0.is_infinite() && buckets[8].1 == count, "{name}: {buckets:?} of {count}");
    assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{name}: buckets are cumulative: {buckets:?}");
    // Each wait is at most its bucket's bound long, and longer than the bound below.
    let (mut least, mut most, mut below) = (0.0, 0.0, (0.0, 0.0));
    for (bound, value) in buckets {
        let here = value - below.1;
        if here > 0.0 {
            least += here * below.0;
            most += here * bound;
        }
        below = (bound, value);
    }
    assert!(least <= sum && sum <= most, "{name}: {least} <= {sum} <= {most}");
    Ok((count, sum))
}

#[test]
fn the_histogram_of_waits_counts_each_wait_once_and_sums_to_the_delay() -> Result<()> {
    const TEST: &str = "the_histogram_of_waits_counts_each_wait_once_and_sums_to_the_delay";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let agent = Agent::with(Setup::of("[metrics]\nhistograms = true\n"))?;
    let vms = [("left", spinning("left")?), ("right", spinning("right")?)];
    agent.wait_vms(&["left", "right"])?;
    let read = |id: &str, vm: &TestVm| -> Result<(u64, f64, u64, f64)> {
        let before = times_run(vm.pid())?;
        agent.wait_samples(1)?;
        let scrape = agent.metrics()?;
        let after = times_run(vm.pid())?;
        let (count, sum) = histogram(&scrape, OF_VM, &[("vm_id", id)])?;
        // What it waited before it was seen entering a guest is in the delay only.
        let unseen = scrape.sum(DELAY, &[("vm_id", id)]) - sum;
        Ok((before, count, after, unseen))
    };
    for (id, vm) in &vms {
        let first = read(id, vm)?;
        std::thread::sleep(Duration::from_secs(2));
        let second = read(id, vm)?;
        let (waits, least, most) = (second.1 - first.1, second.0 - first.2, second.2 - first.0);
        assert!((first.3 - second.3).abs() <= 1e-6, "{id}: {} s and {} s of waits are in no bucket", first.3, second.3);
        assert!(first.3 >= -1e-6, "{id}: {} s more in the buckets than in all", -first.3);
        eprintln!("{id}: {waits} waits, given a CPU {least} to {most} times");
        // A thread that finds its CPU idle is given it without a wait; a vCPU that fights for one seldom does.
        assert!(waits >= 0.9 * least as f64 && waits <= most as f64 + 1.0, "{id}: {least} <= {waits} <= {most}");
    }
    Ok(())
}

#[test]
fn the_hosts_waits_are_all_vms_waits_and_stay_when_a_vm_goes() -> Result<()> {
    const TEST: &str = "the_hosts_waits_are_all_vms_waits_and_stay_when_a_vm_goes";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let agent = Agent::with(Setup::of("[metrics]\nhistograms = true\nlinger = \"1s\"\n"))?;
    let (left, right) = (spinning("left")?, spinning("right")?);
    agent.wait_vms(&["left", "right"])?;
    agent.wait_samples(2)?;
    let scrape = agent.metrics()?;
    let (count, sum) = histogram(&scrape, OF_HOST, &[])?;
    let (counts, sums) = (scrape.sum(&format!("{OF_VM}_count"), &[]), scrape.sum(&format!("{OF_VM}_sum"), &[]));
    assert!(count == counts && (sum - sums).abs() <= 1e-6, "{count} of {counts}, {sum} s of {sums} s");
    drop((left, right));
    agent.wait_until("them to be forgotten", PATIENCE, |a| {
        let scrape = a.metrics()?;
        let (now_count, now_sum) = histogram(&scrape, OF_HOST, &[])?;
        assert!(now_count >= count && now_sum >= sum, "{now_count} after {count}, {now_sum} s after {sum} s");
        Ok(scrape.all(&format!("{OF_VM}_count"), &[("vm_id", "left")]).count() == 0)
    })
}

#[test]
fn only_the_hosts_histogram_is_always_on() -> Result<()> {
    const TEST: &str = "only_the_hosts_histogram_is_always_on";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let agent = Agent::start()?;
    let _vm = spinning("plain")?;
    agent.wait_vms(&["plain"])?;
    agent.wait_samples(2)?;
    let scrape = agent.metrics()?;
    let (count, _) = histogram(&scrape, OF_HOST, &[])?;
    assert!(count > 0.0, "nobody ever waited");
    assert!(!scrape.0.iter().any(|series| series.name.starts_with(OF_VM)), "histograms of VMs are off by default");
    Ok(())
}
