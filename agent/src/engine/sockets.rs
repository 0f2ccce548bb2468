//! The VMMs' own sockets: the kernel programs are put on each VM's own control group of version 2, follow it at each
//! reconcile, and are read at a sample where threads have run since.

use super::Engine;
use crate::{
    bpf::{Kernel, SocketBytes},
    host::{GroupSearch, sockets::own_group},
    units::Tgid,
    vm::Vm,
};

/// Why nothing is counted without the kernel programs.
const NO_PROGRAM: &str = "the kernel programs that count sockets are not at work";

impl Engine {
    /// Once a sample.
    pub(super) fn sample_sockets(&mut self) {
        let mut failed = 0;
        if let Some(kernel) = &self.kernel {
            for vm in self.registry.live_mut().filter(|vm| vm.sockets.moved) {
                failed += u64::from(!read(kernel, vm));
            }
        }
        self.count_error("sockets", failed);
    }

    /// Looks for a VM's group, and counts there: it may have been moved.
    pub(super) fn follow_socket_group(&mut self, search: &GroupSearch, tgid: u32) {
        let found = own_group(search, Tgid(tgid));
        let Some(vm) = self.registry.of_tgid_mut(tgid) else { return };
        let loaded = ["host_socket_receive", "host_socket_transmit"];
        let kernel = self.kernel.as_mut().filter(|kernel| loaded.iter().all(|program| kernel.has(program)));
        let Some(kernel) = kernel else {
            vm.changed |= vm.sockets.leave(NO_PROGRAM);
            return;
        };
        let dir = match found {
            Ok(dir) => dir,
            // It ends; what it has still to say is read then.
            Err(why) if why.is_gone() => return,
            Err(why) => {
                read(kernel, vm);
                vm.changed |= vm.sockets.leave(&why.to_string());
                return;
            }
        };
        if vm.sockets.group.as_ref().is_some_and(|(known, group)| *known == dir && kernel.socket_bytes(group).is_ok()) {
            return;
        }
        read(kernel, vm);
        match kernel.count_sockets(&dir) {
            Ok(group) => {
                vm.sockets.enter(dir, group);
                read(kernel, vm);
                vm.changed = true;
            }
            Err(why) => vm.changed |= vm.sockets.leave(&format!("{}: {why}", dir.display())),
        }
    }

    /// Takes a VM's last numbers and lets its group go.
    pub(super) fn settle_sockets(&mut self, tgid: u32) {
        let (Some(kernel), Some(vm)) = (&self.kernel, self.registry.of_tgid_mut(tgid)) else { return };
        read(kernel, vm);
        vm.sockets.group = None;
    }
}

/// Reads a VM's counter. A group that was removed while it is counted keeps what was read last; its sockets are gone.
fn read(kernel: &Kernel, vm: &mut Vm) -> bool {
    vm.sockets.moved = false;
    let Some((dir, group)) = &vm.sockets.group else { return true };
    let now: std::io::Result<SocketBytes> = kernel.socket_bytes(group);
    match now {
        Ok(now) => {
            vm.changed |= vm.sockets.take(now);
            true
        }
        Err(_) => !dir.exists(),
    }
}
