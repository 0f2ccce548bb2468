//! `cargo xtask power-cuts`: an agent under load in an emulated machine whose power goes, again and again.
//!
//! The disk is served from here (`nbd`, `disk`), with a cache that a cut takes; the emulator is killed. Each machine goes
//! on with the disk that the cut before left, so the real agent recovers from every kill. On the way to a kill further
//! cuts are taken from the disk as it would be then. After each cut the ledger is read from the disk (`image`) and held
//! against what the agent had shown as durable (`verdict`).

mod dice;
mod disk;
mod image;
mod machine;
mod monitor;
mod nbd;
mod told;
mod verdict;

use std::fs;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::kernels::fetch::{self, Fetched};
use crate::kernels::{boot, list, statics};
use crate::setup::{self, Needs};
use crate::workspace::Workspace;
use dice::Dice;
use disk::Disk;
use machine::{Cut, Plan};
use told::{Mark, Told};
use verdict::{Programs, Verdict};

/// The newest of the kernels that `cargo xtask kernels` boots.
const SERIES: &str = "7.2";
/// How many writes and flushes of the disk lie between cuts of a machine under load, at most.
const APART: u64 = 300;
/// How many its agent makes while it starts, and some more.
const STARTING: u64 = 150;
/// How many machines go on from one that was saved.
const EACH: u64 = 39;

/// A disk, and what was told of it.
type Start = (Vec<u8>, Told);

#[derive(Debug, Clone, Args)]
pub(crate) struct PowerArgs {
    /// How often an emulator is killed
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub(crate) count: u64,
    /// Cuts taken from the disk of each machine before it is killed
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) between: u64,
    /// What the moments of the cuts and what they take are drawn from; the machine's own pace is another matter
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Give machines that go on a disk that answers flushes and does nothing, and fail unless that is noticed
    #[arg(long)]
    pub(crate) control: bool,
}

/// Sums over cuts.
#[derive(Debug, Default)]
struct Sum {
    kills: u64,
    cuts: u64,
    kept: u64,
    removed: u64,
    more: u64,
    torn: u64,
    holes: u64,
    dirty: u64,
}

/// `cargo xtask power-cuts`.
pub(crate) fn power(workspace: &Workspace, args: &PowerArgs) -> Result<()> {
    setup::prepare(workspace, Needs { kernels: true, ..Needs::default() })?;
    let began = Instant::now();
    let seed = args.seed.unwrap_or_else(drawn);
    println!("power-cuts: seed {seed}");
    let programs = statics::build(workspace, false)?;
    let kernel = fetch::fetch(&workspace.target("kernels"), list::named(SERIES)?)?;
    let home = workspace.target("power");
    fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    let initrd = home.join("initrd");
    fs::write(&initrd, boot::first_file_system(&kernel, &programs)?)
        .with_context(|| format!("cannot write {}", initrd.display()))?;
    let place = |name: &str| statics::built(workspace, name);
    let programs = Programs { kvmeter: place("kvmeter"), cycle: place("kvmeter-ledgercycle") };
    let mut series = Series { home, kernel, programs, dice: Dice::new(seed), noticed: 0, sum: Sum::default() };
    let outcome = series.run(args);
    println!("power-cuts: {} in {:.0} s", series.sum, began.elapsed().as_secs_f64());
    outcome?;
    if args.control {
        println!("power-cuts: {} of {} cuts were noticed", series.noticed, series.sum.cuts);
        ensure!(series.noticed > 0, "a disk that loses what it has flushed was not noticed");
    }
    Ok(())
}

/// Machines one after the other.
struct Series {
    home: PathBuf,
    kernel: Fetched,
    programs: Programs,
    dice: Dice,
    /// Cuts after which not all was as it should be, with a disk that makes it so.
    noticed: u64,
    sum: Sum,
}

impl Series {
    /// In turns: a machine that is killed while its agent starts; one that boots from what that left and is saved under
    /// load; and many that go on from there and are killed. A machine takes half a minute to come so far, and one that
    /// goes on a second or two.
    fn run(&mut self, args: &PowerArgs) -> Result<()> {
        let (mut disk, mut told) = (image::make(&self.home)?, Told::default());
        let early = |series: &mut Self| vec![1 + series.dice.below(STARTING)];
        // What boots from a disk that has lied is nobody's affair.
        let count = if args.control { args.count.min(EACH + 1) } else { args.count };
        while self.sum.kills < count {
            let moments = early(self);
            let plan = Plan { resumes: false, after: Mark::Mounted, moments, saved: false };
            (disk, told) = self.machine(args, (disk, told), plan)?;
            let moments = vec![1 + self.dice.below(APART)];
            let plan = Plan { resumes: false, after: Mark::Busy, moments, saved: true };
            let saved = self.machine(args, (disk, told), plan)?;
            (disk, told) = saved.clone();
            for _ in 0..EACH.min(count.saturating_sub(self.sum.kills)) {
                let plan = Plan { resumes: true, after: Mark::Busy, moments: self.moments(args.between), saved: false };
                (disk, told) = self.machine(args, saved.clone(), plan)?;
            }
        }
        Ok(())
    }

    /// Lets a machine run and judges its cuts; the disk and what was told at its end.
    fn machine(&mut self, args: &PowerArgs, (disk, told): Start, plan: Plan) -> Result<Start> {
        let began = Instant::now();
        let (what, number) = (plan.to_string(), self.sum.kills + 1);
        // A machine that boots is to have a file system.
        let lies = args.control && plan.resumes;
        let disk = (Disk::new(disk, lies), told);
        let cuts = machine::run(&self.home, &self.kernel, disk, plan, &mut self.dice)
            .with_context(|| format!("kill {number}: see {}", self.home.display()))?;
        let ran = began.elapsed().as_secs_f64();
        for cut in &cuts {
            self.judge(cut, number, lies)?;
        }
        let lost: Vec<_> = cuts.iter().map(|cut| cut.loss).collect();
        let end = cuts.into_iter().next_back().context("a machine without an end")?;
        let (newest, took) = (end.told.newest(), began.elapsed().as_secs_f64());
        println!("power-cuts: {number}: {what}, lost {lost:?}: up to line {newest}, {ran:.1} of {took:.1} s");
        Ok((end.image, end.told))
    }

    /// Of a machine that goes on.
    fn moments(&mut self, between: u64) -> Vec<u64> {
        let mut at = 0;
        let moments = (0..=between).map(|_| {
            at += 1 + self.dice.below(APART);
            at
        });
        moments.collect()
    }

    fn judge(&mut self, cut: &Cut, number: u64, lies: bool) -> Result<()> {
        self.sum.cuts += 1;
        self.sum.kills += u64::from(cut.killed);
        let kind = if cut.killed { "killed" } else { "cut" };
        let judged = image::metering(&self.home, &cut.image)
            .and_then(|metering| verdict::judge(metering.as_deref(), &cut.told, &self.programs));
        match judged {
            Ok(verdict) => {
                self.sum.take(cut, &verdict);
                Ok(())
            }
            Err(error) if lies => {
                self.noticed += 1;
                println!("power-cuts: {number}: noticed, {:?} was lost: {}", cut.loss, first_line(&error));
                Ok(())
            }
            Err(error) => {
                // What went wrong counts more than that it cannot be kept, as on a disk that is full.
                let kept = self.home.join("failed.img");
                let written = fs::write(&kept, &cut.image)
                    .and_then(|()| fs::write(self.home.join("failed.told"), format!("{:#?}", cut.told)));
                if let Err(error) = written {
                    println!("power-cuts: {} cannot be kept: {error}", kept.display());
                }
                let (loss, kept) = (cut.loss, kept.display());
                Err(error.context(format!("kill {number}, {kind}, lost: {loss:?}; the disk is kept as {kept}")))
            }
        }
    }
}

impl Sum {
    fn take(&mut self, cut: &Cut, verdict: &Verdict) {
        self.kept += verdict.kept;
        self.removed += verdict.removed;
        self.more += verdict.more;
        self.torn += u64::from(verdict.torn > 0);
        self.holes += u64::from(verdict.holes);
        self.dirty += u64::from(cut.cached > 0);
    }
}

impl std::fmt::Display for Sum {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { kills, cuts, kept, removed, more, torn, holes, dirty } = self;
        write!(
            out,
            "{cuts} cuts, {kills} of them kills, {dirty} with a cache that was not empty: {kept} lines that had been told \
             were there, {removed} removed after they had been acknowledged, {more} more; {torn} ends torn, {holes} of \
             them with lines behind the tear"
        )
    }
}

fn first_line(error: &anyhow::Error) -> String {
    format!("{error:#}").lines().next().unwrap_or_default().to_owned()
}

fn drawn() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| u64::from(now.subsec_nanos()) ^ now.as_secs())
}
