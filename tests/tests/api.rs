//! Law: the API only reads, in the shapes of the contract; an error is a problem that says what is wrong.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, Result};
use kvmeter_tests::{
    agent::{Agent, Setup},
    skip::host,
    vmm::spawn::TestVm,
};
use nix::sys::signal::Signal;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn every_error_is_a_problem_that_says_what_is_wrong() -> Result<()> {
    let Some(_host) = host("every_error_is_a_problem_that_says_what_is_wrong") else { return Ok(()) };
    let agent = Agent::start()?;
    for path in ["/v1/vms/nobody", "/v1/vms/nobody/usage", "/v1/vms/a%2Fb%20c"] {
        agent.request("GET", path)?.problem(404)?;
    }
    let unknown = agent.request("GET", "/v1/nothing")?.problem(404)?;
    assert!(unknown["detail"].as_str().unwrap_or("").contains("/v1/nothing"));
    for (method, path) in [("POST", "/metrics"), ("DELETE", "/v1/vms"), ("PUT", "/v1/vms/x")] {
        let answer = agent.request(method, path)?;
        answer.problem(405)?;
        assert!(
            answer.header("allow").is_some_and(|allowed| allowed.contains("GET")),
            "405 names what is allowed: {}",
            answer.head
        );
    }
    let bad = agent.request("GET", "/v1/vms?detail=perhaps")?.problem(400)?;
    assert_eq!(bad["parameter"], "detail");
    assert_eq!(agent.request("HEAD", "/metrics")?.code, 200);
    Ok(())
}

#[test]
fn a_path_that_is_no_text_is_a_problem_too() -> Result<()> {
    let Some(_host) = host("a_path_that_is_no_text_is_a_problem_too") else { return Ok(()) };
    let agent = Agent::start()?;
    let answer = agent.request("GET", "/v1/vms/%FF%FE")?;
    let code = if answer.code == 404 { 404 } else { 400 };
    answer.problem(code).map(drop)
}

const ENTRY: [&str; 11] = [
    "vm_id",
    "incarnation",
    "name",
    "uuid",
    "tenant",
    "labels",
    "hypervisor",
    "state",
    "shape",
    "started_at",
    "stopped_at",
];

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect()
}

fn is_instant(value: &Value) -> bool {
    // RFC 3339 with nine decimals and Z.
    value.as_str().is_some_and(|text| text.len() == 30 && text.ends_with('Z') && text.as_bytes().get(10) == Some(&b'T'))
}

#[test]
fn the_api_shows_a_vm_in_the_shape_of_the_contract() -> Result<()> {
    let Some(_host) = host("the_api_shows_a_vm_in_the_shape_of_the_contract") else { return Ok(()) };
    let agent = Agent::start()?;
    let uuid = "0b5e1b70-7d0f-4c2e-9d5c-0d7a3f1f2a01";
    let mut vm = TestVm::start(&["--id", "a:b.c", "--vcpus", "2"])?;
    let _other = TestVm::start(&["--id", "x", "--uuid", &uuid.to_uppercase(), "--name", "with uuid"])?;
    agent.wait_vms(&[uuid, "a:b.c"])?;
    let list = agent.json("/v1/vms")?;
    assert_eq!(keys(&list), BTreeSet::from(["vms"]));
    let all = list["vms"].as_array().context("no list")?;
    assert!(all.is_sorted_by_key(|entry| entry["vm_id"].as_str()), "{list}");
    let entries: Vec<_> = all.iter().filter(|e| e["vm_id"] == uuid || e["vm_id"] == "a:b.c").collect();
    assert_eq!(entries.len(), 2, "{list}");
    for entry in &entries {
        assert_eq!(keys(entry), BTreeSet::from(ENTRY), "{entry}");
        assert!(
            is_instant(&entry["started_at"]) && entry["stopped_at"].is_null() && entry["labels"].is_object(),
            "{entry}"
        );
        assert_eq!((&entry["state"], &entry["hypervisor"]), (&"running".into(), &"unknown".into()));
    }
    assert_eq!((&entries[0]["uuid"], &entries[0]["name"]), (&uuid.into(), &"with uuid".into()));
    assert_eq!(entries[1]["shape"], serde_json::json!({ "cpu": 2 }), "zeros are left out");
    for path in ["/v1/vms/a:b.c", "/v1/vms/a%3Ab%2Ec", "/v1/vms/%61%3a%62.c"] {
        let one = agent.json(path)?;
        for key in ENTRY {
            assert_eq!(one[key], entries[1][key], "{path} {key}");
        }
        assert_eq!(one["pid"], vm.pid());
    }
    let start = agent.lines("vm.compute.start", "a:b.c")?;
    assert_eq!(
        (&start[0]["incarnation"], &start[0]["emitted_at"]),
        (&entries[1]["incarnation"], &entries[1]["started_at"])
    );
    vm.signal(Signal::SIGKILL)?;
    vm.wait()?;
    agent.wait_until("its end", PATIENCE, |a| Ok(a.json("/v1/vms/a:b.c")?["state"] == "stopped"))?;
    let ended = agent.json("/v1/vms/a:b.c")?;
    assert_eq!(ended["stopped_at"], agent.stop_line("a:b.c")?["emitted_at"]);
    assert!(is_instant(&ended["stopped_at"]));
    Ok(())
}

#[test]
fn usage_is_204_before_the_first_sample_and_then_the_latest_one() -> Result<()> {
    let Some(_host) = host("usage_is_204_before_the_first_sample_and_then_the_latest_one") else { return Ok(()) };
    let agent = Agent::with(Setup::of("[history]\ninterval = \"4s\"\n"))?;
    // Asked from before it is there, so that the answer between its first reading and its first sample is not missed.
    let mut codes = Vec::new();
    let mut vm = None;
    agent.wait_until("a sample", PATIENCE, |a| {
        let answer = a.request("GET", "/v1/vms/u/usage")?;
        assert!(answer.code != 204 || answer.body.is_empty(), "{}", answer.body);
        codes.push(answer.code);
        if vm.is_none() {
            vm = Some(TestVm::start(&["--id", "u", "--duty", "50"])?);
        }
        Ok(answer.code == 200)
    })?;
    codes.dedup();
    assert_eq!(codes, [404, 204, 200]);
    let sample = agent.json("/v1/vms/u/usage")?;
    let known = [
        "at",
        "cpu_percent",
        "cpu_delay_percent",
        "memory_used_bytes",
        "memory_limit_bytes",
        "network_in_bytes_per_sec",
        "network_out_bytes_per_sec",
        "disk_read_bytes_per_sec",
        "disk_write_bytes_per_sec",
    ];
    assert!(keys(&sample).is_subset(&BTreeSet::from(known)), "{sample}");
    assert!(is_instant(&sample["at"]), "{sample}");
    assert!(keys(&sample).iter().all(|key| !sample[*key].is_null()), "absent, not null: {sample}");
    assert!(!keys(&sample).contains("memory_limit_bytes"), "this VMM does not tell its memory: {sample}");
    let percent = sample["cpu_percent"].as_f64().context("no cpu_percent")?;
    assert!(percent > 1.0 && percent < 150.0, "half of a core is used: {sample}");
    agent.wait_until("the next sample", PATIENCE, |a| Ok(a.json("/v1/vms/u/usage")?["at"] != sample["at"]))
}
