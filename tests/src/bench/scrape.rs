//! What a scrape takes: CPU of the process that answers, how long it takes, how large the answer is.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::spread::Spread;
use super::watch::{Use, cpu_ns};

/// No more scrapes are made after this long, if there were some.
const PATIENCE: Duration = Duration::from_secs(20);
const AT_LEAST: usize = 3;

/// Several scrapes of one process.
#[derive(Clone, Copy, Debug)]
pub struct Scrapes {
    /// CPU of one, milliseconds.
    pub cpu_ms: Spread,
    /// From the connection to the last byte, milliseconds.
    pub latency_ms: Spread,
    /// Bytes of the last.
    pub bytes: usize,
    /// Lines of the last that are a series of a VM.
    pub series: usize,
}

impl Scrapes {
    /// How many times another one's CPU this takes.
    #[must_use]
    pub fn over(&self, other: &Self) -> Option<Spread> {
        (other.cpu_ms.median > 0.0).then(|| self.cpu_ms.times(1.0 / other.cpu_ms.median))
    }
}

/// Scrapes so often, and takes off what the processes that answer use meanwhile without being asked.
pub fn several(
    pids: &[i32],
    idle: Use,
    times: u32,
    series_with: &str,
    scrape: impl Fn() -> Result<String>,
) -> Result<Scrapes> {
    // The first one makes what later ones find ready.
    let mut text = scrape()?;
    let (mut costs, mut latencies) = (Vec::new(), Vec::new());
    let first = Instant::now();
    for _ in 0..times {
        if costs.len() >= AT_LEAST && first.elapsed() > PATIENCE {
            break;
        }
        let (began, cpu) = (Instant::now(), cpu_ns(pids)?);
        text = scrape()?;
        let latency = began.elapsed();
        // A collector of garbage works on after the answer.
        std::thread::sleep(Duration::from_millis(20));
        let own = idle.cpu_ns as f64 * began.elapsed().as_secs_f64() / idle.time.as_secs_f64();
        costs.push(((cpu_ns(pids)? - cpu) as f64 - own) * 1e-6);
        latencies.push(latency.as_secs_f64() * 1e3);
    }
    let series = text.lines().filter(|line| !line.starts_with('#') && line.contains(series_with)).count();
    ensure!(series > 0, "a scrape shows no VM at all");
    let spread = |values: &[f64]| Spread::of(values).ok_or_else(|| anyhow::anyhow!("no scrape was made"));
    Ok(Scrapes { cpu_ms: spread(&costs)?, latency_ms: spread(&latencies)?, bytes: text.len(), series })
}
