//! A backend that remembers, and laws of the trait.

use std::sync::Mutex;

use super::*;

/// Remembers every call as text.
#[derive(Clone, Debug, Default)]
pub struct Remembering(Arc<Mutex<Vec<String>>>);

impl Remembering {
    fn add(&self, call: String) {
        self.0.lock().unwrap().push(call);
    }

    /// The calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl MetricsCollector for Remembering {
    fn record_vm_boot(&self, duration_secs: f64) {
        self.add(format!("boot {duration_secs}"));
    }
    fn inc_vm_state(&self, state: VmState) {
        self.add(format!("+{}", state.as_str()));
    }
    fn dec_vm_state(&self, state: VmState) {
        self.add(format!("-{}", state.as_str()));
    }
    fn inc_vm_created(&self) {
        self.add("created".to_owned());
    }
    fn inc_vm_destroyed(&self) {
        self.add("destroyed".to_owned());
    }
    fn record_exec(&self, duration_secs: f64, success: bool) {
        self.add(format!("exec {duration_secs} {success}"));
    }
    fn record_run(&self, _: f64, outcome: Outcome) {
        self.add(format!("run {}", outcome.as_label()));
    }
    fn inc_cache_hit(&self) {
        self.add("hit".to_owned());
    }
    fn inc_cache_miss(&self) {
        self.add("miss".to_owned());
    }
}

/// One call of everything.
pub fn everything(metrics: &impl MetricsCollector) {
    metrics.record_vm_boot(0.25);
    metrics.inc_vm_state(VmState::Running);
    metrics.inc_vm_state(VmState::Running);
    metrics.dec_vm_state(VmState::Running);
    metrics.inc_vm_state(VmState::Stopped);
    metrics.inc_vm_created();
    metrics.inc_vm_destroyed();
    metrics.record_exec(0.5, true);
    metrics.record_exec(0.5, false);
    metrics.record_run(1.5, Outcome::Timeout);
    metrics.inc_cache_hit();
    metrics.inc_cache_miss();
}

fn portable<T: MetricsCollector + Clone + 'static>(metrics: &T) {
    let clone = metrics.clone();
    std::thread::spawn(move || everything(&clone)).join().unwrap();
}

#[test]
fn every_backend_goes_into_threads_by_clone() {
    portable(&NoopMetrics);
    portable(&Fanout::default());
    portable::<Shared>(&(Arc::new(NoopMetrics) as Shared));
}

#[test]
fn a_fanout_tells_every_backend_everything() {
    let (one, two) = (Remembering::default(), Remembering::default());
    everything(&Fanout::new(vec![Arc::new(one.clone()), Arc::new(two.clone())]));
    let alone = Remembering::default();
    everything(&alone);
    assert_eq!((one.calls(), two.calls()), (alone.calls(), alone.calls()));
    assert_eq!(alone.calls().len(), 12);
}

/// Leaves to the trait what it can.
#[derive(Default)]
struct Plain(Remembering);

impl MetricsCollector for Plain {
    fn record_vm_boot(&self, _: f64) {}
    fn inc_vm_state(&self, _: VmState) {}
    fn dec_vm_state(&self, _: VmState) {}
    fn inc_vm_created(&self) {}
    fn inc_vm_destroyed(&self) {}
    fn record_exec(&self, duration_secs: f64, success: bool) {
        self.0.record_exec(duration_secs, success);
    }
    fn inc_cache_hit(&self) {}
    fn inc_cache_miss(&self) {}
}

#[test]
fn a_backend_that_knows_no_outcomes_is_told_of_success_alone() {
    let plain = Plain::default();
    Outcome::ALL.iter().for_each(|outcome| plain.record_run(1.5, *outcome));
    assert_eq!(plain.0.calls(), ["exec 1.5 true", "exec 1.5 false", "exec 1.5 false", "exec 1.5 false"]);
}
