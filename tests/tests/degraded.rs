//! Law: kernel differences are probed; one missing thing costs its readings and nothing else, and is said with what to
//! do. Each test takes something away from a real agent and looks at what is left.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use kvmeter_tests::{
    bracket::cpu_is_bracketed,
    ledger::lives,
    loss::{
        Loss, assert_missing, feature, switched_off, without_bpf_rights, without_btf, without_dev_kvm, without_root,
    },
    skip::host,
    vmm::{schedstat, spawn::TestVm},
};
use nix::sys::signal::Signal;
use serde_json::Value;

fn assert_bounded(line: &Value) -> Result<()> {
    ensure!(line["time_quality"] == "bounded", "not bounded: {line}");
    let at = |key: &str| line[key].as_str().map(str::to_owned).with_context(|| format!("no {key}: {line}"));
    let (from, to, told) = (at("not_before")?, at("not_after")?, at("emitted_at")?);
    ensure!(from <= told && told <= to, "{from} <= {told} <= {to}");
    // What bills less: the later start, the earlier stop.
    let bills_less = if line["kind"] == "vm.compute.start" { to } else { from };
    ensure!(told == bills_less, "bills more than is known: {line}");
    Ok(())
}

/// Everything an agent that reads `/proc` owes: VMs old and new, exact CPU, bounded lives, a whole ledger.
fn assert_proc_serves(loss: &Loss) -> Result<()> {
    let (code, doctor) = loss.doctor()?;
    assert_eq!(
        (code, &doctor["ok"], &doctor["cpu"], &doctor["cpu_source"]),
        (Some(0), &true.into(), &true.into(), &"proc".into()),
        "{doctor:#}"
    );
    assert_missing(&doctor, "cpu")?;

    let old = TestVm::start(&["--id", "old", "--duty", "50", "--vcpus", "2", "--workers", "2", "--worker-duty", "10"])?;
    let agent = loss.agent()?;
    // /proc tells starts in ticks of 10 ms: within the agent's own it could not be said which was first.
    std::thread::sleep(Duration::from_millis(20));
    let mut new = TestVm::start(&["--id", "new", "--duty", "100"])?;
    let idle = TestVm::start(&["--id", "idle"])?;
    let began = Instant::now();
    agent.wait_vms(&["old", "new", "idle"])?;
    eprintln!("found after {:.1?}", began.elapsed());
    let status = agent.json("/v1/status")?;
    assert_eq!(status["cpu_source"], "proc");
    assert_missing(&status, "cpu")?;
    let metrics = agent.metrics()?;
    assert_eq!(metrics.one("kvmeter_feature_available", &[("feature", "cpu")]), Some(0.0));
    assert!(metrics.all("kvmeter_vm_userspace_exits_total", &[]).next().is_none(), "unmeasured is absent, never 0");
    assert_eq!(agent.json("/v1/vms/old")?["adopted"], true);
    assert_eq!(agent.json("/v1/vms/new")?["adopted"], false);
    cpu_is_bracketed(&agent, &[("old", &old), ("new", &new), ("idle", &idle)], 3)?;

    let last = schedstat::sum(new.pid())?.run_ns;
    new.signal(Signal::SIGKILL)?;
    new.wait()?;
    let stop = agent.stop_line("new")?;
    assert_bounded(&stop)?;
    assert_eq!(stop["cause"], "unknown", "nobody saw how it ended: {stop}");
    assert!(stop.get("reason").is_none(), "{stop}");
    let told: u64 = stop["usage"]["cpu_ns"].as_str().context("no usage")?.parse()?;
    eprintln!("of {last} ns before its end {told} ns are told");
    for id in ["old", "new", "idle"] {
        assert_bounded(agent.lines("vm.compute.start", id)?.first().context("no start")?)?;
    }
    lives(&agent.ledger()?)?;
    agent.verify()
}

#[test]
fn without_btf_proc_serves_and_doctor_says_so() -> Result<()> {
    const TEST: &str = "without_btf_proc_serves_and_doctor_says_so";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let loss = without_btf();
    if loss.possible(TEST) { assert_proc_serves(&loss) } else { Ok(()) }
}

#[test]
fn useless_btf_is_not_called_available() -> Result<()> {
    const TEST: &str = "useless_btf_is_not_called_available";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let loss = without_btf();
    if !loss.possible(TEST) {
        return Ok(());
    }
    let (_, doctor) = loss.doctor()?;
    assert_missing(&doctor, "btf")?;
    let advice = feature(&doctor, "cpu")?["advice"].as_str().unwrap_or("").to_owned();
    assert!(advice.contains("BTF"), "what to do is a kernel with BTF, not: {advice}");
    Ok(())
}

#[test]
fn without_the_right_to_bpf_proc_serves_and_doctor_names_the_capabilities() -> Result<()> {
    const TEST: &str = "without_the_right_to_bpf_proc_serves_and_doctor_names_the_capabilities";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let loss = without_bpf_rights();
    if !loss.possible(TEST) {
        return Ok(());
    }
    let (_, doctor) = loss.doctor()?;
    let advice = feature(&doctor, "cpu")?["advice"].as_str().unwrap_or("").to_owned();
    assert!(advice.contains("CAP_BPF") && advice.contains("CAP_PERFMON"), "{advice}");
    assert_proc_serves(&loss)
}

#[test]
fn switched_off_proc_serves_and_doctor_names_the_key() -> Result<()> {
    let Some(_host) = host("switched_off_proc_serves_and_doctor_names_the_key") else { return Ok(()) };
    let (_, doctor) = switched_off().doctor()?;
    let why = feature(&doctor, "cpu")?["why"].as_str().unwrap_or("").to_owned();
    assert!(why.contains("bpf.enabled"), "{why}");
    assert_proc_serves(&switched_off())
}

#[test]
fn an_agent_that_was_switched_off_takes_the_right_advice() -> Result<()> {
    let Some(_host) = host("an_agent_that_was_switched_off_takes_the_right_advice") else { return Ok(()) };
    let (_, doctor) = switched_off().doctor()?;
    let advice = feature(&doctor, "cpu")?["advice"].as_str().unwrap_or("").to_owned();
    assert!(
        advice.contains("bpf.enabled") || advice.contains("auto"),
        "what to do is to set bpf.enabled, not: {advice}"
    );
    Ok(())
}

#[test]
fn without_dev_kvm_every_vm_is_still_metered_exactly() -> Result<()> {
    const TEST: &str = "without_dev_kvm_every_vm_is_still_metered_exactly";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let loss = without_dev_kvm();
    if !loss.possible(TEST) {
        return Ok(());
    }
    let (code, doctor) = loss.doctor()?;
    assert_eq!((code, &doctor["ok"]), (Some(0), &true.into()), "CPU and ledger work: {doctor:#}");
    assert_missing(&doctor, "kvm")?;
    let agent = loss.agent()?;
    let mut vm = TestVm::start(&["--id", "seen", "--duty", "50", "--vcpus", "2"])?;
    agent.wait_vms(&["seen"])?;
    let metrics = agent.metrics()?;
    assert_eq!(metrics.one("kvmeter_feature_available", &[("feature", "kvm")]), Some(0.0));
    assert_eq!(metrics.one("kvmeter_feature_available", &[("feature", "cpu")]), Some(1.0));
    cpu_is_bracketed(&agent, &[("seen", &vm)], 3)?;
    vm.signal(Signal::SIGTERM)?;
    vm.wait()?;
    assert_eq!(agent.stop_line("seen")?["time_quality"], "exact");
    agent.verify()
}

#[test]
fn without_root_it_runs_bills_nothing_wrong_and_says_what_it_lacks() -> Result<()> {
    const TEST: &str = "without_root_it_runs_bills_nothing_wrong_and_says_what_it_lacks";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let loss = without_root();
    if !loss.possible(TEST) {
        return Ok(());
    }
    let (code, doctor) = loss.doctor()?;
    assert_eq!(
        (code, &doctor["ok"], &doctor["cpu"], &doctor["ledger"]),
        (Some(3), &false.into(), &false.into(), &true.into()),
        "{doctor:#}"
    );
    for name in ["cpu", "other_processes", "proc"] {
        assert_missing(&doctor, name)?;
    }
    let agent = loss.agent()?;
    // Root's VM: its descriptors are out of reach, so KVM's count shows more than /proc does; what is shown of it all the
    // same (KVM told of its process, and its guest time is public) must be right.
    let vm = TestVm::start(&["--id", "roots", "--duty", "20"])?;
    agent.wait_samples(4)?;
    let (metrics, status) = (agent.metrics()?, agent.json("/v1/status")?);
    for name in ["cpu", "other_processes"] {
        assert_eq!(metrics.one("kvmeter_feature_available", &[("feature", name)]), Some(0.0), "{name}");
        assert_missing(&status, name)?;
    }
    assert!(status["kvm"]["count"].as_u64() > status["kvm"]["held"].as_u64(), "{}", status["kvm"]);
    assert!(metrics.all("kvmeter_vm_vcpus", &[("vm_id", "roots")]).next().is_none(), "vCPUs cannot be counted: absent");
    let shown = metrics.one("kvmeter_vm_running", &[("vm_id", "roots")]).is_some();
    eprintln!("nobody's agent {} root's VM", if shown { "sees" } else { "does not see" });
    if shown {
        cpu_is_bracketed(&agent, &[("roots", &vm)], 3)?;
        drop(vm);
        assert_bounded(&agent.stop_line("roots")?)?;
    }
    lives(&agent.ledger()?)?;
    agent.verify()
}

#[test]
fn advice_fits_what_is_missing() -> Result<()> {
    const TEST: &str = "advice_fits_what_is_missing";
    let Some(_host) = host(TEST) else { return Ok(()) };
    let loss = without_root();
    if !loss.possible(TEST) {
        return Ok(());
    }
    let (_, doctor) = loss.doctor()?;
    let kvm = feature(&doctor, "kvm")?;
    // Where nobody may not open /dev/kvm, that is no missing module.
    if kvm["why"].as_str().is_some_and(|why| why.contains("ermission denied")) {
        let advice = kvm["advice"].as_str().unwrap_or("");
        assert!(!advice.contains("load the kvm module"), "{kvm}");
    }
    Ok(())
}
