//! Programs on the same hook at the same time, in another order each round, under the same load.
//!
//! All of them see the same events, so what disturbs one disturbs all; the order changes because the first to run pays
//! for the cache lines that the others find warm. A figure is the difference to an empty program in the same round.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;

use super::object::{Hook, Link, Object, Placed, Runs};
use super::spread::{Order, Spread};

/// What makes the hook fire.
pub trait Load {
    /// Begins.
    fn begin(&mut self) -> Result<()>;
    /// Ends; all that it caused has happened when this returns.
    fn finish(&mut self) -> Result<()>;
    /// How many events it has caused so far, as far as that is known.
    fn caused(&self) -> Result<u64>;
}

/// How many rounds, and how long or how many requests each.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rounds with each load.
    pub rounds: u32,
    /// How long a load works in a round.
    pub slice: Duration,
    /// Requests a round of each program that runs on request.
    pub requests: u32,
}

/// Nanoseconds a run, by program, one of each round.
#[derive(Debug, Default)]
pub struct Results {
    rounds: Vec<BTreeMap<&'static str, f64>>,
    shares: Vec<f64>,
}

impl Results {
    /// The sum of some programs less the sum of others, over the rounds in which all ran.
    #[must_use]
    pub fn difference(&self, plus: &[&str], minus: &[&str]) -> Option<Spread> {
        let sum = |round: &BTreeMap<&str, f64>, names: &[&str]| -> Option<f64> {
            names.iter().map(|name| round.get(*name).copied()).sum()
        };
        let values: Vec<f64> =
            self.rounds.iter().filter_map(|round| Some(sum(round, plus)? - sum(round, minus)?)).collect();
        Spread::of(&values)
    }

    /// How much of what the programs saw was the load's, in percent, where that is known.
    #[must_use]
    pub fn share(&self) -> Option<Spread> {
        Spread::of(&self.shares).filter(|share| share.median > 0.0)
    }

    fn add(&mut self, before: &Readings, after: &Readings, caused: u64) {
        let mean = |(name, after): (&&'static str, &Runs)| Some((*name, after.mean_since(*before.get(name)?)?));
        self.rounds.push(after.iter().filter_map(mean).collect());
        let runs = after.iter().filter_map(|(name, runs)| runs.count.checked_sub(before.get(name)?.count)).max();
        if let Some(runs) = runs.filter(|runs| *runs > 0) {
            self.shares.push(100.0 * caused as f64 / runs as f64);
        }
    }
}

/// Loadings of the object that a contest is spread over.
const LOADINGS: u32 = 5;

/// A contest held several times by `once`, which loads the object anew: where the kernel happens to put code and maps
/// moves a program's cost by some nanoseconds, and is the same for all rounds of one loading.
pub fn spread_over_loadings(
    effort: Effort,
    mut once: impl FnMut(Effort) -> Result<Vec<Results>>,
) -> Result<Vec<Results>> {
    let part = Effort { rounds: effort.rounds.div_ceil(LOADINGS), ..effort };
    let mut all = once(part)?;
    for _ in 1..LOADINGS {
        for (sum, more) in all.iter_mut().zip(once(part)?) {
            sum.rounds.extend(more.rounds);
            sum.shares.extend(more.shares);
        }
    }
    Ok(all)
}

/// Rounds of one load each, the loads in turn and shuffled, so that the machine's mood is the same for all.
pub fn hold(
    object: &mut Object,
    programs: &[Placed],
    loads: &mut [&mut dyn Load],
    effort: Effort,
    order: &mut Order,
) -> Result<Vec<Results>> {
    for program in programs {
        object.prepare(*program)?;
    }
    let mut results: Vec<Results> = loads.iter().map(|_| Results::default()).collect();
    let mut turns: Vec<usize> = (0..loads.len()).collect();
    let mut lineup = programs.to_vec();
    for _ in 0..effort.rounds {
        order.shuffle(&mut turns);
        for turn in &turns {
            order.shuffle(&mut lineup);
            let links: Vec<(Placed, Link)> =
                lineup.iter().map(|placed| Ok((*placed, object.attach(*placed)?))).collect::<Result<_>>()?;
            let (before, caused) = (readings(object, programs)?, loads[*turn].caused()?);
            let worked = work(object, &lineup, loads[*turn], effort);
            let (after, caused) = (readings(object, programs)?, loads[*turn].caused()? - caused);
            for (placed, link) in links {
                object.detach(placed, link)?;
            }
            worked?;
            results[*turn].add(&before, &after, caused);
        }
    }
    Ok(results)
}

/// What is attached is run by the load; what runs on request is asked for, in turns, while the load works.
fn work(object: &mut Object, lineup: &[Placed], load: &mut dyn Load, effort: Effort) -> Result<()> {
    let asked = |placed: &&Placed| matches!(placed.hook, Hook::Request(_) | Hook::Walk);
    let asked: Vec<Placed> = lineup.iter().filter(asked).copied().collect();
    load.begin()?;
    if asked.is_empty() {
        std::thread::sleep(effort.slice);
    }
    for _ in 0..effort.requests {
        for placed in &asked {
            object.request(*placed)?;
        }
    }
    load.finish()
}

type Readings = BTreeMap<&'static str, Runs>;

fn readings(object: &mut Object, programs: &[Placed]) -> Result<Readings> {
    programs.iter().map(|placed| Ok((placed.name, object.runs(placed.name)?))).collect()
}
