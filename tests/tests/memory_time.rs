//! Laws: the integral of a VM's memory is within its stated bound and never falls; a VM whose memory stands still is not
//! read; time that nobody watched is not invented.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use kvmeter_tests::{
    agent::{Agent, Setup},
    clock::{CLOCK_PAIR_NS, boot_ns, unix_ns, unix_of},
    ledger::{ledger_in, number, only, wide},
    memory::{INTEGRAL, MIB, MemoryVm, QUIET, RESIDENT},
    skip::{host, skipped},
    vmm::spawn::TestFleet,
};
use nix::sys::signal::Signal;

/// The instant of a VM's last reading, as it is shown, on the boot clock; with its memory integral then.
fn shown(agent: &Agent, id: &str) -> Result<(u64, u128)> {
    let vm = agent.json(&format!("/v1/vms/{id}"))?;
    let (read_at, now) = (unix_ns(&vm["read_at"])?, boot_ns()?);
    Ok((now - (unix_of(now)? - read_at), wide(&vm["memory"]["byte_ns"])?))
}

/// The longest time between two samples while `during` runs, as seen from outside: looked at every few milliseconds.
fn longest_between_samples(agent: &Agent, during: impl FnOnce() -> Result<()>) -> Result<u64> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| -> Result<u64> {
            let samples = || Ok::<_, anyhow::Error>(agent.metrics()?.one("kvmeter_sample_duration_seconds_count", &[]));
            let (mut last, mut looked, mut since, mut longest) = (samples()?, boot_ns()?, boot_ns()?, 0);
            while !over.load(Ordering::Relaxed) {
                let (before, now) = (looked, samples()?);
                looked = boot_ns()?;
                if now != last {
                    // Taken since the look before: the one before that may be as old as its own look allows.
                    longest = longest.max(looked - since);
                    (last, since) = (now, before);
                }
                std::thread::sleep(Duration::from_millis(3));
            }
            Ok(longest)
        });
        let done = during();
        over.store(true, Ordering::Relaxed);
        let longest = watch.join().map_err(|_| anyhow!("the thread that looks panicked"))?;
        done.and(longest)
    })
}

#[test]
fn the_integral_of_a_vm_that_grows_and_shrinks_is_within_its_bound() -> Result<()> {
    const TEST: &str = "the_integral_of_a_vm_that_grows_and_shrinks_is_within_its_bound";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let agent = Agent::with(Setup::of(&QUIET.replace("200ms", "100ms")))?;
    let mut vm = MemoryVm::start("waves", &["--memory", "1M"])?;
    agent.wait_vms(&["waves"])?;
    agent.wait_samples(1)?;
    // On a host so busy that samples are far apart the bound says nothing.
    for _ in 0..5 {
        if waves_are_within_the_bound(&agent, &mut vm)? {
            return Ok(());
        }
    }
    skipped(TEST, "other programs take too much of the CPUs");
    Ok(())
}

/// Whether the bound said something; an error if the integral is not within it.
fn waves_are_within_the_bound(agent: &Agent, vm: &mut MemoryVm) -> Result<bool> {
    let integral = || -> Result<u128> { wide(&agent.json("/v1/vms/waves")?["memory"]["byte_ns"]) };
    let rest = vm.used()?;
    let (from, began) = (integral()?, boot_ns()?);
    // Between two orders the level is known; during one it lies between what there is at rest and the higher end.
    let (mut low, mut high, mut variation) = (0u128, 0u128, 0u128);
    let (mut level, mut since) = (rest, began);
    let area = |bytes: u64, ns: u64| u128::from(bytes) * u128::from(ns);
    let longest = longest_between_samples(agent, || {
        for (size, rest_ms) in [(16, 900), (48, 1500), (4, 700), (32, 1300), (0, 400), (40, 1650), (0, 500)] {
            let before = boot_ns()?;
            vm.orders.give(&format!("hold anon {}", size * MIB))?;
            let (after, now) = (boot_ns()?, vm.used()?);
            low += area(level, before - since) + area(rest.min(now), after - before);
            high += area(level, before - since) + area(level.max(now), after - before);
            variation += u128::from(level.abs_diff(rest) + now.abs_diff(rest));
            (level, since) = (now, after);
            std::thread::sleep(Duration::from_millis(rest_ms));
        }
        Ok(())
    })?;
    let (to, ended) = (integral()?, boot_ns()?);
    low += area(level, ended - since);
    high += area(level, ended - since);
    let grown = to - from;
    // The bound of the design, and at either end a sample that was not taken at that very instant.
    let bound = u128::from(longest) * variation / 2 + 2 * area(rest.max(level), longest);
    let share = |part: u128| part as f64 / low as f64 * 100.0;
    eprintln!(
        "integral {:.3} MiB·s; truth {:.3} to {:.3}; bound {:.1} % of it; samples {} ms apart at most",
        grown as f64 / 1e9 / MIB as f64,
        low as f64 / 1e9 / MIB as f64,
        high as f64 / 1e9 / MIB as f64,
        share(bound),
        longest / 1_000_000
    );
    ensure!(grown + bound >= low && grown <= high + bound, "{grown} is not within {bound} of {low} to {high}");
    Ok(bound < low / 3)
}

/// Whether the agent has a kernel program at work.
fn is_at_work(agent: &Agent, program: &str) -> Result<bool> {
    let features = agent.json("/v1/status")?["features"].clone();
    Ok(features.as_array().into_iter().flatten().any(|f| f["name"] == program && f["available"] == true))
}

/// Read system calls of a process so far.
fn reads(pid: i32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
    let value = text.lines().find_map(|line| line.strip_prefix("syscr: "));
    Ok(value.context("no syscr")?.parse()?)
}

/// Reads a second of an agent that watches so many idle VMs; `enough`: what need not be looked at again.
fn reads_a_second(agent: &Agent, vms: u32, enough: f64) -> Result<f64> {
    let fleet = TestFleet::start(vms, &["--id", &format!("idle{vms}"), "--memory", "1M"])?;
    agent.wait_until("all", Duration::from_secs(60), |agent| {
        Ok(agent.metrics()?.all(INTEGRAL, &[]).filter(|s| s.labels["vm_id"].starts_with("idle")).count()
            >= vms as usize)
    })?;
    // Until births are over: names, groups, first readings, and the last of the looks for taps, 5 s after a birth.
    std::thread::sleep(Duration::from_secs(7));
    // On a busy host they take longer: the least of three.
    let mut least = f64::INFINITY;
    for _ in 0..3 {
        let (began, before) = (Instant::now(), reads(agent.pid())?);
        std::thread::sleep(Duration::from_secs(4));
        least = least.min((reads(agent.pid())? - before) as f64 / began.elapsed().as_secs_f64());
        if least < enough {
            break;
        }
    }
    drop(fleet);
    Ok(least)
}

#[test]
fn idle_vms_cost_no_read_of_a_file_a_sample() -> Result<()> {
    const TEST: &str = "idle_vms_cost_no_read_of_a_file_a_sample";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let agent = Agent::with(Setup::of(QUIET))?;
    if !is_at_work(&agent, "rss_stat")? {
        skipped(TEST, "rss_stat is not at work here");
        return Ok(());
    }
    // Five samples a second: one read a VM would add 250.
    let many = reads_a_second(&agent, 60, 10.0)?;
    if many < 10.0 {
        // However few some VMs take, these take no more than is asked of them.
        eprintln!("reads a second: 60 VMs {many:.1}");
        return Ok(());
    }
    let few = reads_a_second(&agent, 10, 0.0)?;
    eprintln!("reads a second: 10 VMs {few:.1}, 60 VMs {many:.1}");
    ensure!(many - few < 10.0, "{few:.1} reads a second with 10 idle VMs, {many:.1} with 60");
    Ok(())
}

#[test]
fn a_vm_that_stands_still_is_charged_to_its_end_and_not_beyond() -> Result<()> {
    const TEST: &str = "a_vm_that_stands_still_is_charged_to_its_end_and_not_beyond";
    let Some(_host) = host(TEST) else { return Ok(()) };
    // Samples so seldom that the end lies long after the last reading.
    let agent = Agent::with(Setup::of(
        &QUIET.replace("200ms", "6s").replace("[memory]", "[history]\ninterval = \"6s\"\n[memory]"),
    ))?;
    if !is_at_work(&agent, "rss_stat")? {
        skipped(TEST, "rss_stat is not at work here");
        return Ok(());
    }
    let mut vm = MemoryVm::start("still", &[])?;
    vm.orders.give(&format!("hold anon {}", 64 * MIB))?;
    agent.wait_vms(&["still"])?;
    agent.wait_samples(1)?;
    // Shown for the time up to the last sample.
    let ((sampled, integral), level) = (shown(&agent, "still")?, u128::from(vm.used()?));
    std::thread::sleep(Duration::from_secs(3));
    ensure!(shown(&agent, "still")?.1 == integral, "a sample came meanwhile: nothing was tested");
    let killed = boot_ns()?;
    drop(vm);
    let stop = agent.stop_line("still")?;
    let ended = u128::from(number(&stop["mono_ns"])?);
    let told = wide(&stop["usage"]["mem_byte_ns"])?;
    let pair = u128::from(CLOCK_PAIR_NS);
    let least = integral + level * (u128::from(killed - sampled) - pair);
    let most = integral + level * (ended - u128::from(sampled) + pair);
    eprintln!("{told} told, {least} at least, {most} at most");
    ensure!(least <= told && told <= most, "{told} is told; {least} at least, {most} at most");
    Ok(())
}

#[test]
fn freeing_a_large_memory_after_a_kill_is_charged_to_nobody() -> Result<()> {
    const TEST: &str = "freeing_a_large_memory_after_a_kill_is_charged_to_nobody";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let agent = Agent::with(Setup::of(
        &QUIET.replace("200ms", "6s").replace("[memory]", "[history]\ninterval = \"6s\"\n[memory]"),
    ))?;
    if !is_at_work(&agent, "rss_stat")? {
        skipped(TEST, "rss_stat is not at work here");
        return Ok(());
    }
    let mut vm = MemoryVm::start("large", &[])?;
    vm.orders.give(&format!("hold anon {}", 3072 * MIB))?;
    agent.wait_vms(&["large"])?;
    agent.wait_samples(2)?;
    let ((sampled, integral), level) = (shown(&agent, "large")?, u128::from(vm.used()?));
    std::thread::sleep(Duration::from_secs(1));
    ensure!(shown(&agent, "large")?.1 == integral, "a sample came meanwhile: nothing was tested");
    let killed = boot_ns()?;
    vm.vm.signal(Signal::SIGKILL)?;
    vm.vm.wait()?;
    let freed = boot_ns()? - killed;
    ensure!(freed > 100_000_000, "freed in {freed} ns: nothing was tested");
    let stop = agent.stop_line("large")?;
    let told = wide(&stop["usage"]["mem_byte_ns"])?;
    // After the kill: no thread lives on for a quarter of the time that freeing takes; all of it at the last level would be
    // four of them.
    let (low, high) = (integral, integral + level * u128::from(killed - sampled + freed / 4));
    let after = told.saturating_sub(integral + level * u128::from(killed - sampled));
    eprintln!(
        "{} MiB freed in {} ms; {:.1} ms of it charged after the kill",
        level / u128::from(MIB),
        freed / 1_000_000,
        after as f64 / level as f64 / 1e6
    );
    ensure!(low < told && told <= high, "{told} told, {low} at least, {high} at most");
    let ended = number(&stop["mono_ns"])?;
    ensure!(ended < killed + freed, "{stop}");
    agent.verify()
}

#[test]
fn a_restart_keeps_the_integral_and_invents_nothing() -> Result<()> {
    const HEARTBEAT: &str = "sample_interval = \"200ms\"\n[ledger]\nheartbeat = \"1s\"\n";
    let Some(_host) = host("a_restart_keeps_the_integral_and_invents_nothing") else { return Ok(()) };
    let agent = Agent::with(Setup::of(HEARTBEAT))?;
    let mut vm = MemoryVm::start("kept", &[])?;
    vm.orders.give(&format!("hold anon {}", 64 * MIB))?;
    let usage = |dir: &Path| -> Result<(u128, u128)> {
        let life = only(&ledger_in(dir)?, "kept")?;
        let usage = &life.usage.last().context("no heartbeat")?["usage"];
        Ok((wide(&usage["mem_byte_ns"])?, wide(&usage["mem_peak_bytes"])?))
    };
    agent.wait_until("an integral", Duration::from_secs(60), |agent| {
        Ok(usage(agent.dir()).is_ok_and(|(byte_ns, _)| byte_ns > u128::from(64 * MIB) * 1_000_000_000))
    })?;
    let dir = agent.kill()?;
    let told = usage(dir.path())?;
    vm.orders.give("hold anon 0")?;
    std::thread::sleep(Duration::from_secs(3));
    let back = boot_ns()?;
    let agent = Agent::with(Setup { dir: Some(dir), ..Setup::of(HEARTBEAT) })?;
    agent.wait_vms(&["kept"])?;
    agent.wait_samples(2)?;
    let memory = agent.json("/v1/vms/kept")?["memory"].clone();
    let (now, level) = (wide(&memory["byte_ns"])?, u128::from(vm.status("VmHWM")?));
    let most = told.0 + level * u128::from(boot_ns()? - back);
    ensure!(told.0 <= now && now <= most, "told {told:?} before, {now} now, {most} at most");
    ensure!(u128::from(memory["peak_bytes"].as_u64().context("no peak")?) >= told.1, "the peak fell: {memory}");
    drop(vm);
    let stop = agent.stop_line("kept")?;
    ensure!(wide(&stop["usage"]["mem_byte_ns"])? >= now, "{stop}");
    only(&agent.ledger()?, "kept")?;
    agent.wait_ended(&["kept"])?;
    let ended = agent.metrics()?;
    ensure!(ended.one(INTEGRAL, &[("vm_id", "kept")]).is_some(), "the counter stays after the end");
    ensure!(ended.all(RESIDENT, &[("vm_id", "kept")]).next().is_none(), "a size does not");
    agent.verify()
}
