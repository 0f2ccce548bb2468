//! From facts to a decision: which programs to load on this kernel, and why not the others. Pure.

use super::{
    offsets::Offsets,
    programs::{PROGRAMS, Program},
};

/// What became of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Loaded and attached.
    Attached,
    /// Not tried: the kernel lacks something it needs.
    Refused(String),
    /// Tried, and the kernel said no.
    Failed(String),
    /// Attached, but guests have run and the hook has never fired: why.
    Silent(String),
}

/// A program and what became of it; shown by `doctor`, `/v1/status` and `kvmeter_feature_available`.
#[derive(Clone, Debug)]
pub struct Status {
    /// The program's row.
    pub name: &'static str,
    /// Where it attaches.
    pub hook: String,
    /// What it gives, so what is lost without it.
    pub gives: &'static str,
    /// Whether CPU accounting by the kernel depends on it.
    pub essential: bool,
    /// What became of it.
    pub state: State,
}

impl Status {
    pub(super) fn of(program: &Program, state: State) -> Self {
        Self {
            name: program.name,
            hook: program.hook.to_string(),
            gives: program.gives,
            essential: program.essential,
            state,
        }
    }
}

/// Every program, refused for one reason that stopped them all.
#[must_use]
pub fn all_refused(why: &str) -> Vec<Status> {
    PROGRAMS.iter().map(|program| Status::of(program, State::Refused(why.to_owned()))).collect()
}

/// Which programs can be loaded, each with the reason if not.
#[must_use]
pub fn plan(offsets: &Offsets, unwanted: &[Unwanted]) -> Vec<(&'static Program, Result<(), String>)> {
    let verdict = |program: &Program| match unwanted.iter().find(|u| u.program == program.name) {
        Some(unwanted) => Err(unwanted.why.to_owned()),
        None => possible(program, offsets),
    };
    PROGRAMS.iter().map(|program| (program, verdict(program))).collect()
}

/// A program that the configuration switches off.
#[derive(Clone, Copy, Debug)]
pub struct Unwanted {
    /// Its name.
    pub program: &'static str,
    /// The key that says so.
    pub why: &'static str,
}

fn possible(program: &Program, offsets: &Offsets) -> Result<(), String> {
    for field in program.fields {
        match offsets.get(field) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error.clone()),
            None => return Err(format!("the place of {field} was never looked up")),
        }
    }
    Ok(())
}

/// Programs whose hooks only some of KVM's back ends fire, by what is known of them together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hooks {
    /// Guest entry and exit.
    Entry,
    /// The guest's page faults.
    Fault,
}

impl Hooks {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Entry, Self::Fault];

    const fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Entry => &["kvm_entry", "kvm_exit", "kvm_exit_reason"],
            Self::Fault => &["kvm_page_fault"],
        }
    }
}

/// Back ends that do.
const FIRING: [&str; 2] = ["kvm_amd", "kvm_intel"];

/// Whether any of these back ends is known to fire such hooks.
#[must_use]
pub fn fires(backends: &[String]) -> bool {
    backends.iter().any(|name| FIRING.contains(&name.as_str()))
}

/// Marks the programs on these hooks as attached in vain, or takes that back.
pub fn mark_silent(statuses: &mut [Status], hooks: Hooks, why: Option<&str>) {
    for status in statuses.iter_mut().filter(|status| hooks.programs().contains(&status.name)) {
        match (&status.state, why) {
            (State::Attached, Some(why)) => status.state = State::Silent(why.to_owned()),
            (State::Silent(_), None) => status.state = State::Attached,
            _ => {}
        }
    }
}

/// Whether the kernel can account CPU: every essential program attached, and one that finds VMs.
#[must_use]
pub fn sufficient(statuses: &[Status]) -> bool {
    statuses.iter().all(|s| !s.essential || s.state == State::Attached)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_field_refuses_that_program_by_name_and_no_other() {
        let mut offsets: Offsets = crate::bpf::offsets::FIELDS.iter().map(|f| (f.global, Ok(8))).collect();
        offsets.extend(crate::bpf::records::FIELDS.iter().map(|f| (f.global, Ok(8))));
        offsets.insert("SIGNAL_EXIT_CODE", Err("struct signal_struct has no field group_exit_code".into()));
        let refused: Vec<_> = plan(&offsets, &[]).into_iter().filter(|(_, r)| r.is_err()).collect();
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0].0.name, "sched_process_exit");
        assert!(refused[0].1.as_ref().unwrap_err().contains("group_exit_code"));
    }

    #[test]
    fn a_hook_that_never_fires_is_told_as_such_until_it_does() {
        let mut statuses: Vec<_> = PROGRAMS.iter().map(|program| Status::of(program, State::Attached)).collect();
        let silent = |statuses: &[Status]| {
            statuses.iter().filter(|status| status.state == State::Silent("why".to_owned())).count()
        };
        mark_silent(&mut statuses, Hooks::Fault, Some("why"));
        assert_eq!(silent(&statuses), 1);
        mark_silent(&mut statuses, Hooks::Entry, Some("why"));
        assert_eq!(silent(&statuses), 4);
        Hooks::ALL.into_iter().for_each(|hooks| mark_silent(&mut statuses, hooks, None));
        assert!(statuses.iter().all(|status| status.state == State::Attached));
        assert!(fires(&["kvm_intel".to_owned()]) && !fires(&["kvm_pvm".to_owned()]) && !fires(&[]));
    }

    #[test]
    fn what_the_configuration_switches_off_is_refused_with_the_key() {
        let mut offsets: Offsets = crate::bpf::offsets::FIELDS.iter().map(|f| (f.global, Ok(8))).collect();
        offsets.extend(crate::bpf::records::FIELDS.iter().map(|f| (f.global, Ok(8))));
        let off = Unwanted { program: "kvm_exit_reason", why: "bpf.exit_reasons is false" };
        let refused: Vec<_> = plan(&offsets, &[off]).into_iter().filter(|(_, r)| r.is_err()).collect();
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0].1.as_ref().unwrap_err(), off.why);
    }
}
