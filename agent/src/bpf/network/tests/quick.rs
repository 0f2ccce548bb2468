//! Programs that count usual packets in few instructions: that they are at work, and that whoever comes between is noticed.

use std::process::{Command, Stdio};

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use super::{frames, *};
use crate::host::skip::skip;

#[test]
fn usual_packets_have_programs_of_their_own_where_this_kernel_lets_them_load_without_a_call() {
    let programs = programs();
    if programs.carrier.way != network::carrier::LOADED || programs.tasks.is_empty() {
        let test = "usual_packets_have_programs_of_their_own_where_this_kernel_lets_them_load_without_a_call";
        return skip(test, "needs bpf_rdonly_cast (Linux 6.2), and the task that runs where the agent knows to look");
    }
    assert!(programs.quick && programs.lanes.is_power_of_two());
    let mut port = Port::new(PortId(0), programs.lanes, false).expect("a page");
    port.follows = Some(0);
    let quick = ["tap_transmit_quick", "tap_receive_quick"];
    assert_eq!(programs.names(&port, false).1, quick);
    assert_eq!(programs.names(&port, true).1, ["tap_transmit", "tap_receive"], "packets are looked into");
    let constants = programs.constants(&port, None, true);
    assert!(constants.notes.is_some());
    for name in quick {
        let code = programs.templates.instance(name, &constants).expect("a template");
        let marked = |imm: i32| imm & !0xff == network::operand::MARK;
        assert!(!code.iter().any(|one| marked(one.imm)), "{name} has a mark that nothing was put in place of");
    }
}

/// Whether the program for usual packets found another task on a CPU than at the packet before.
fn looked(programs: &NetworkPrograms, port: PortId) -> bool {
    let port = programs.ports.get(&port).expect("counted");
    let first = port.notes.expect("new pages have notes");
    let at = |cpu: usize| std::mem::offset_of!(network::Note, looked) + cpu * size_of::<network::Note>();
    let word = |at: usize| port.page.u64_at(first + port::size(at / network::BLOCK_BYTES), at % network::BLOCK_BYTES);
    (0..network::LANES).any(|cpu| word(at(cpu)).expect("inside") != 0)
}

#[test]
fn a_process_that_comes_between_on_the_same_cpu_writes_to_an_account_of_its_own() {
    use std::io::Write as _;
    const TURNS: u64 = 300;
    for way in WAYS {
        let lab = Lab::new();
        let tap = lab.tap("tap0", 0);
        let mut programs = programs();
        let port = attach_as(&mut programs, &lab, tap.ifindex, way);
        let frame = &frames::kinds()[0];
        // Both on one CPU: what is noted there is of the one or the other.
        let allowed = sched_getaffinity(Pid::from_raw(0)).expect("affinity");
        let mut one = CpuSet::new();
        let cpu = (0..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap_or(false)).expect("a CPU");
        one.set(cpu).expect("a number");
        sched_setaffinity(Pid::from_raw(0), &one).expect("one CPU");
        let mut other = Command::new("dd")
            .args([&format!("bs={}", frame.len()), "iflag=fullblock", "status=none"])
            .stdin(Stdio::piped())
            .stdout(Stdio::from(tap.file.try_clone().expect("another descriptor")))
            .spawn()
            .expect("dd");
        let mut pipe = other.stdin.take().expect("a pipe");
        let sent = || lab.stats("tap0").rx_packets;
        let before = sent();
        let mut own = 0;
        for turn in 1..=TURNS {
            for _ in 0..turn % 4 {
                tap.transmit(frame);
                own += 1;
            }
            pipe.write_all(frame).expect("write to dd");
            let patience = std::time::Instant::now() + std::time::Duration::from_secs(20);
            while sent() < before + own + turn {
                assert!(std::time::Instant::now() < patience, "dd wrote nothing");
                std::thread::yield_now();
            }
        }
        drop(pipe);
        assert!(other.wait().expect("dd").success());
        assert_eq!(looked(&programs, port), programs.quick, "another task came between, {way:?}");
        let mut accounts: Vec<_> = programs.detach(port).iter().map(|a| (a.writer, sum(&a.transmit).packets)).collect();
        accounts.retain(|(_, packets)| *packets > 0);
        accounts.sort_unstable();
        let mut due = [(std::process::id(), own), (other.id(), TURNS)];
        due.sort_unstable();
        assert_eq!(accounts, due, "{way:?}");
    }
}

#[test]
fn a_cpu_beyond_those_that_a_page_was_made_for_adds_where_all_such_do() {
    const FRAMES: u64 = 100;
    let allowed = sched_getaffinity(Pid::from_raw(0)).expect("affinity");
    let Some(cpu) = (1..CpuSet::count()).find(|cpu| allowed.is_set(*cpu).unwrap_or(false)) else {
        let test = "a_cpu_beyond_those_that_a_page_was_made_for_adds_where_all_such_do";
        return skip(test, "needs a second CPU");
    };
    for way in WAYS {
        let lab = Lab::new();
        let tap = lab.tap("tap0", 0);
        let mut programs = programs();
        // As when an earlier agent made it while one CPU was online.
        programs.lanes = 1;
        let port = attach_as(&mut programs, &lab, tap.ifindex, way);
        let sender = lab.sender(tap.ifindex);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut one = CpuSet::new();
                one.set(cpu).expect("a number");
                sched_setaffinity(Pid::from_raw(0), &one).expect("a CPU of its own");
                for _ in 0..FRAMES {
                    tap.transmit(&frames::kinds()[0]);
                    sender.send(&frames::kinds()[0]);
                    tap.drain();
                }
            });
        });
        let page = &programs.ports.get(&port).expect("counted").page;
        let lane = |lane: usize, direction: usize| -> u64 {
            let blocks = (0..network::ACCOUNTS)
                .filter_map(|account| page.get(u32::try_from(network::block(lane, account)).expect("few")));
            blocks.map(|block| sum(&block[direction]).packets).sum()
        };
        let (transmit, receive) = (network::direction::TRANSMIT, network::direction::RECEIVE);
        assert_eq!((lane(0, transmit), lane(1, transmit)), (0, FRAMES), "{way:?}");
        assert!(lane(1, receive) >= FRAMES, "{way:?}");
        assert_eq!(totals(&programs.detach(port)).0.packets, FRAMES);
    }
}
