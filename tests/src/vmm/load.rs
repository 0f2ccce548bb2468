//! What a VMM does besides its vCPUs: worker threads with a duty cycle of their own, and threads born and dead.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::pace::{DEFAULT_PERIOD_NS, Pace};
use super::shared::{Shared, cpu_ns, sleep_sharply, wall_ns};

/// Enough for these threads; most of it is never touched.
pub const STACK_BYTES: usize = 256 << 10;
/// CPU time that a churned thread burns.
const CHURN_NS: u64 = 200_000;

/// Starts a named thread.
pub fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> Result<()> {
    let builder = std::thread::Builder::new().stack_size(STACK_BYTES).name(name.clone());
    builder.spawn(body).map(drop).with_context(|| format!("cannot start thread {name}"))
}

/// Starts `count` threads `worker0…` and one of each other name, each using this share of a CPU in user space.
pub fn start_workers(count: u32, others: &[String], duty_percent: u32, shared: &Arc<Shared>) -> Result<()> {
    let numbered = (0..count).map(|number| format!("worker{number}"));
    for name in numbered.chain(others.iter().cloned()) {
        let shared = Arc::clone(shared);
        spawn(name, move || work(duty_percent, &shared))?;
    }
    Ok(())
}

/// Starts a thread `churn` that starts `per_second` threads `churned` a second, each burning about 200 µs.
pub fn start_churn(per_second: u32, shared: &Arc<Shared>) -> Result<()> {
    if per_second == 0 {
        return Ok(());
    }
    let shared = Arc::clone(shared);
    spawn("churn".into(), move || churn(per_second, &shared))
}

fn work(duty_percent: u32, shared: &Shared) {
    if duty_percent == 0 {
        shared.sleep(None);
        return;
    }
    sleep_sharply();
    let mut pace = Pace::new(duty_percent, DEFAULT_PERIOD_NS, wall_ns(), cpu_ns());
    loop {
        let now = cpu_ns();
        burn_until(now + pace.burn_ns(now));
        if shared.sleep(Some(Duration::from_nanos(pace.sleep_ns(wall_ns(), cpu_ns())))) {
            return;
        }
    }
}

fn churn(per_second: u32, shared: &Shared) {
    sleep_sharply();
    let mut pace = Pace::new(0, 1_000_000_000 / u64::from(per_second), wall_ns(), cpu_ns());
    while !shared.sleep(Some(Duration::from_nanos(pace.sleep_ns(wall_ns(), cpu_ns())))) {
        if let Err(error) = spawn("churned".into(), || burn_until(CHURN_NS)) {
            eprintln!("kvmeter-testvm: --churn: {error:#}");
        }
    }
}

fn burn_until(cpu_end_ns: u64) {
    while cpu_ns() < cpu_end_ns {
        for _ in 0..500 {
            std::hint::spin_loop();
        }
    }
}
