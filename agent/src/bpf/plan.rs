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
pub fn plan(offsets: &Offsets) -> Vec<(&'static Program, Result<(), String>)> {
    PROGRAMS.iter().map(|program| (program, possible(program, offsets))).collect()
}

fn possible(program: &Program, offsets: &Offsets) -> Result<(), String> {
    for field in program.fields {
        match offsets.get(field) {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error.to_string()),
            None => return Err(format!("the place of {field} was never looked up")),
        }
    }
    Ok(())
}

/// Whether the kernel can account CPU: every essential program attached, and one that finds VMs.
#[must_use]
pub fn sufficient(statuses: &[Status]) -> bool {
    statuses.iter().all(|s| !s.essential || s.state == State::Attached)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::btf::BtfError;

    #[test]
    fn a_missing_field_refuses_that_program_by_name_and_no_other() {
        let mut offsets: Offsets = crate::bpf::offsets::FIELDS.iter().map(|f| (f.global, Ok(8))).collect();
        let gone = BtfError::NoField { owner: "signal_struct".into(), field: "group_exit_code".into() };
        offsets.insert("SIGNAL_EXIT_CODE", Err(gone));
        let refused: Vec<_> = plan(&offsets).into_iter().filter(|(_, r)| r.is_err()).collect();
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0].0.name, "sched_process_exit");
        assert!(refused[0].1.as_ref().unwrap_err().contains("group_exit_code"));
    }
}
