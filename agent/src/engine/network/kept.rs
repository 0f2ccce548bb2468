//! Counting that outlives the agent: going on with what an earlier one left, and what the ledger told before it.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use super::{Counting, change, key};
use crate::{
    account::{
        class::{ClassTable, Classes, Numbers},
        network::{Continued, Traffic},
    },
    bpf::network::NetworkPrograms,
    cause,
    engine::Engine,
    ledger::{Ticket, Usage},
    sample::network::{Book, ClassChange, ClassNames, Network, Told, VmKey},
    vm::Line,
};

type Failure = Box<dyn std::error::Error>;

/// Starts it so that it outlives the agent.
pub(super) fn start(root: &Path, classes: &Classes, pins: &Path) -> Result<Counting, String> {
    let why = |error: Failure| cause::chain(error.as_ref());
    let (mut programs, book) = NetworkPrograms::load_kept(pins).map_err(|error| cause::chain(&error))?;
    let hook = programs.hook();
    let book = book.map(|bytes| Book::parse(&bytes)).transpose().map_err(|error| why(error.into()))?;
    let before = book.as_ref().map_or_else(Numbers::default, |book| Numbers::of(&book.names));
    let next = before.after(classes).map_err(|error| why(error.into()))?;
    let table = ClassTable::new(classes, &next).map_err(|error| why(error.into()))?;
    // Programs that would do the same stay: to make a thousand interfaces' anew takes ten seconds of a CPU.
    let stay = book.as_ref().is_some_and(|book| book.code == programs.code(table.as_ref())) && next == before;
    let (numbers, first) = if stay {
        programs.take_classes(table.as_ref()).map_err(|error| why(error.into()))?;
        (before, None)
    } else if book.is_none() {
        let (numbers, change) = change(&before, classes, &mut programs).map_err(why)?;
        (numbers, Some(change))
    } else {
        (before, None)
    };
    let names: ClassNames = first.map_or_else(|| numbers.names(), |change: ClassChange| change.names);
    if book.is_none() {
        // From the first moment on there is one.
        programs.save(&mut |code| Book::first(code, &names).bytes());
    }
    let bases = book.as_ref().map(Book::bases).unwrap_or_default();
    let found = book.is_some();
    let network = Network::start_from(root.to_owned(), programs, names, book).map_err(|error| cause::chain(&error))?;
    let counting = Counting { network, numbers: Arc::new(Mutex::new(numbers)), bases, over: Vec::new(), hook };
    if found && !stay {
        counting.set_classes(classes.clone());
    }
    Ok(counting)
}

/// Lets go of what an earlier agent left.
pub(super) fn let_go(pins: &Path, why: &str) {
    tracing::warn!(why, "what an earlier agent counted at interfaces cannot be gone on with");
    if let Err(error) = NetworkPrograms::remove_kept(pins) {
        tracing::warn!(%error, dir = %pins.display(), "pins cannot be removed");
    }
}

impl Engine {
    /// What the views are told of a VM that goes on, by the newest line of it.
    pub(in crate::engine) fn network_told(&self, vm: VmKey, usage: Option<&Usage>) -> Continued {
        let told = usage.iter().flat_map(|usage| &usage.net);
        let told = told.map(|net| (net.interface.as_str(), net.class.as_str(), net.traffic()));
        let Some(base) = self.counting.as_ref().and_then(|counting| counting.bases.get(&vm)) else {
            return Continued::resume(told);
        };
        Continued::resume_from(base.iter().map(|(interface, class, traffic)| (&**interface, &**class, *traffic)), told)
    }

    /// The thread is told what the ledger told of a VM before anything of it was counted, for the agent after this one.
    pub(in crate::engine) fn network_base(&self, vm: VmKey, usage: Option<&Usage>) {
        let Some(counting) = self.counting.as_ref().filter(|counting| !counting.bases.contains_key(&vm)) else {
            return;
        };
        let told = |net: &crate::ledger::NetUsage| -> Told {
            (net.interface.as_str().into(), net.class.as_str().into(), net.traffic())
        };
        let told: Vec<Told> = usage.iter().flat_map(|usage| &usage.net).map(told).collect();
        if told.iter().any(|(_, _, traffic)| *traffic != Traffic::default()) {
            counting.network.base(vm, told);
        }
    }

    /// A VM's stop line is in this turn's batch.
    pub(in crate::engine) fn network_over(&mut self, tgid: u32) {
        let tick_ns = self.tick_ns();
        let Some(vm) = self.registry.of_tgid(tgid).map(|vm| key(vm, tick_ns)) else { return };
        if let Some(counting) = &mut self.counting {
            counting.over.push((vm, Line::Queued));
        }
    }

    /// The batch was handed over.
    pub(in crate::engine) fn network_given(&mut self, ticket: Ticket) {
        if let Some(counting) = &mut self.counting {
            counting.over.iter_mut().for_each(|(_, line)| line.given(ticket));
        }
    }

    /// Stop lines that are durable by now.
    pub(in crate::engine) fn network_forget(&mut self) {
        let durable = self.ledger.durable();
        let Some(counting) = &mut self.counting else { return };
        let (done, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut counting.over).into_iter().partition(|(_, line)| line.is_durable(durable));
        counting.over = waiting;
        done.into_iter().for_each(|(vm, _)| counting.network.forget(vm));
    }
}
