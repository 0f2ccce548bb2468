//! A real control group of this machine, which has version 1.

use super::super::*;
use crate::host::skip::skip;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// A real group with a quota of 20 %, and a process in it that spins.
struct Spinner {
    child: Child,
    dir: PathBuf,
}

impl Spinner {
    fn start(mount: &Path, name: &str) -> io::Result<Self> {
        let dir = mount.join(format!("kvmeter-{name}-{}", std::process::id()));
        limited(&dir)?;
        let script = "echo $$ > \"$0\" && while :; do :; done";
        let child = Command::new("sh").args(["-c", script]).arg(dir.join("cgroup.procs")).spawn()?;
        let spinner = Self { child, dir };
        let end = Instant::now() + Duration::from_secs(60);
        while fs::read(spinner.dir.join("cgroup.procs"))?.is_empty() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(spinner)
    }

    fn counted_ns(&self) -> u64 {
        parse(&fs::read(self.dir.join(STAT)).unwrap()).unwrap()
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        remove(&self.dir);
    }
}

/// A group that may use 20 % of one CPU.
fn limited(dir: &Path) -> io::Result<()> {
    fs::create_dir(dir)?;
    fs::write(dir.join("cpu.cfs_period_us"), "50000")?;
    fs::write(dir.join("cpu.cfs_quota_us"), "10000")
}

fn remove(dir: &Path) {
    // Its last task may still be on its way out.
    for _ in 0..100 {
        if fs::remove_dir(dir).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Where version 1 has its quotas, if a group can be made there; else says where skipped tests are counted.
fn real_spinner(test: &str) -> Option<Spinner> {
    let mount = Path::new("/sys/fs/cgroup/cpu");
    let why = if mount.join("cgroup.procs").exists() {
        match Spinner::start(mount, test) {
            Ok(spinner) => return Some(spinner),
            Err(error) => format!("no control group can be made: {error}"),
        }
    } else {
        "needs control groups of version 1 with the cpu controller".to_owned()
    };
    skip(test, &why);
    None
}

#[test]
fn a_spinner_under_a_quota_is_throttled_as_its_group_says() {
    let Some(spinner) = real_spinner("a_spinner_under_a_quota_is_throttled_as_its_group_says") else { return };
    let (root, tgid) = (Path::new("/"), Tgid(spinner.child.id()));
    let mut source = ThrottleSource::find(&GroupSearch::new(root), tgid).unwrap();
    let (began, mut told) = (Instant::now(), Vec::new());
    // It is held for as long as it gets its part of a CPU, which is less where others want it too.
    let grown = |told: &[u64]| told.last().zip(told.first()).map_or(0, |(last, first)| u128::from(last - first));
    while told.len() < 100 || grown(&told) <= 300_000_000 {
        assert!(began.elapsed() < Duration::from_secs(60), "it is hardly held: {told:?}");
        let before = spinner.counted_ns();
        let value = source.read().unwrap();
        assert!(before <= value && value <= spinner.counted_ns(), "{before} <= {value}");
        told.push(value);
        std::thread::sleep(Duration::from_millis(10));
    }
    told.dedup();
    assert!(told.is_sorted() && told.len() > 5, "it grows period by period: {told:?}");
    let grown = grown(&told);
    // Ten milliseconds of fifty are its own; the period under way at the first reading is counted when it ends.
    let most = began.elapsed().as_nanos() + 50_000_000;
    assert!(grown <= most, "{grown} ns in {:?}", began.elapsed());
    let (rounds, began) = (10_000, Instant::now());
    for _ in 0..rounds {
        source.read().unwrap();
    }
    eprintln!("a reading takes {:?}", began.elapsed() / rounds);
}

/// Waits until it was held for longer than this.
fn more_than(source: &mut ThrottleSource, least: u64) -> u64 {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let value = source.read().unwrap();
        if value > least {
            return value;
        }
        assert!(Instant::now() < end, "it is held no more");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_process_that_left_a_real_group_keeps_what_it_was_throttled_there() {
    let Some(mut spinner) = real_spinner("a_process_that_left_a_real_group_keeps_what_it_was_throttled_there") else {
        return;
    };
    let (root, tgid) = (Path::new("/"), Tgid(spinner.child.id()));
    let mut source = ThrottleSource::find(&GroupSearch::new(root), tgid).unwrap();
    let there = more_than(&mut source, 0);

    let old = spinner.dir.clone();
    spinner.dir = old.with_extension("new");
    limited(&spinner.dir).unwrap();
    fs::write(spinner.dir.join("cgroup.procs"), tgid.to_string()).unwrap();
    remove(&old);
    assert!(!old.exists());
    let kept = source.read().unwrap();
    assert!(kept >= there, "{kept} ns after {there}: the group is gone, what it counted is not");

    assert!(source.follow(&GroupSearch::new(root), tgid).unwrap());
    let later = more_than(&mut source, kept);
    assert!(later <= kept + spinner.counted_ns(), "{kept} ns, then {later}");
}
