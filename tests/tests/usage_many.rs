//! Law: many VMs in one call are told what each is told by itself, and their sum.

use std::time::Duration;

use anyhow::{Context as _, Result};
use kvmeter_tests::{
    agent::{Agent, Setup},
    skip::host,
    vmm::spawn::TestVm,
};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

fn of<'a>(answer: &'a Value, vm: &str) -> Result<&'a Value> {
    let vms = answer["vms"].as_array().context("no vms")?;
    vms.iter().find(|one| one["vm_id"] == vm).with_context(|| format!("no {vm}: {answer}"))
}

#[test]
fn many_vms_are_told_as_each_is_and_their_sum() -> Result<()> {
    let Some(_host) = host("many_vms_are_told_as_each_is_and_their_sum") else { return Ok(()) };
    let agent = Agent::with(Setup::of("[history]\ninterval = \"1s\"\n"))?;
    let _vms = (TestVm::start(&["--id", "m1", "--duty", "30"])?, TestVm::start(&["--id", "m2", "--duty", "10"])?);
    agent.wait_vms(&["m1", "m2"])?;
    agent.wait_until("samples of both", PATIENCE, |agent| {
        let answer = agent.json("/v1/usage")?;
        // The first of three lies in a whole second that is over.
        for vm in ["m1", "m2"] {
            if agent.json(&format!("/v1/vms/{vm}"))?["samples"].as_u64() < Some(3) {
                return Ok(false);
            }
        }
        Ok(["m1", "m2"].iter().all(|vm| of(&answer, vm).is_ok_and(|sample| sample["cpu_percent"].is_number())))
    })?;
    // A time that is over does not change between two questions.
    let until = kvmeter::clock::now()?.unix_ns / 1_000_000_000;
    let range = format!("since={}&until={until}&resolution=10s", until - 60);
    let many = agent.json(&format!("/v1/usage/range?vms=m1,m2&{range}"))?;
    let mut sum = vec![None; many["total"]["points"].as_array().context("no total")?.len()];
    for vm in ["m1", "m2"] {
        let alone = agent.json(&format!("/v1/vms/{vm}/usage/range?{range}"))?;
        assert_eq!(of(&many, vm)?["points"], alone["points"], "{vm}");
        assert_eq!((&many["since"], &many["resolution_seconds"]), (&alone["since"], &alone["resolution_seconds"]));
        for (sum, point) in sum.iter_mut().zip(alone["points"].as_array().context("no points")?) {
            if let Some(mean) = point["cpu_percent"]["mean"].as_f64() {
                *sum = Some(sum.unwrap_or(0.0) + mean);
            }
        }
    }
    let total: Vec<Option<f64>> = many["total"]["points"]
        .as_array()
        .context("no points")?
        .iter()
        .map(|point| point["cpu_percent"]["mean"].as_f64())
        .collect();
    assert_eq!(total, sum, "the sum of what was measured, and absent where nothing was");
    assert!(sum.iter().any(Option::is_some), "{many}");
    let all = agent.json(&format!("/v1/usage/range?{range}"))?;
    assert_eq!(all, many, "without names those that run");
    agent.request("GET", "/v1/usage/range?vms=m1,nobody")?.problem(404)?;
    let bad = agent.request("GET", "/v1/usage/range?vm=m1")?.problem(400)?;
    assert_eq!(bad["parameter"], "query");
    Ok(())
}
