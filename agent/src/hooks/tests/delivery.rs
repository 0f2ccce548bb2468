//! Deliveries: retries, how many at once, what is lost, and changes of configuration.

use super::*;

fn hook(name: &str, script: &str, keys: &str) -> String {
    let me = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap();
    format!(
        "[[hooks]]\nname = {name:?}\nuser = {:?}\ncommand = [\"/bin/sh\", \"-c\", {script:?}]\nbackoff = \"20ms\"\n{keys}\n",
        me.name
    )
}

#[test]
fn a_failure_is_tried_again_until_it_succeeds() {
    let rig = Rig::new(&hook("h", "echo x >> DIR/tries; [ $(wc -l < DIR/tries) -ge 3 ]", "retries = 5"));
    rig.bus.publish(start(1));
    until("the third try", || rig.runs("success") == 1);
    assert_eq!((rig.runs("failure"), rig.lost(GIVEN_UP)), (2, 0));
    assert_eq!(rig.text("tries").lines().count(), 3);
}

#[test]
fn a_failure_is_given_up_after_its_retries_and_counted() {
    let rig = Rig::new(&hook("h", "date +%s%N >> DIR/tries; exit 1", "retries = 3"));
    rig.bus.publish(start(1));
    until("the end", || rig.lost(GIVEN_UP) == 1);
    assert_eq!((rig.runs("failure"), rig.runs("success")), (4, 0));
    let times: Vec<u64> = rig.text("tries").lines().map(|line| line.parse().unwrap()).collect();
    let pauses: Vec<u64> = times.windows(2).map(|pair| (pair[1] - pair[0]) / 1_000_000).collect();
    for (at, pause) in pauses.iter().enumerate() {
        assert!(*pause >= 10 << at, "{pauses:?} ms: half of 20 ms doubled each time at least");
    }
}

#[test]
fn only_what_is_asked_for_is_told() {
    let rig = Rig::new(
        &(hook("h", "cat >> DIR/h", "max_concurrent = 1")
            + &hook("all", "cat >> DIR/all", "max_concurrent = 1\nkinds = [\"vm.compute.usage\", \"agent.up\"]")),
    );
    let kinds = [Kind::AgentUp, Kind::VmComputeStart, Kind::VmComputeUsage, Kind::VmComputeStop];
    rig.bus.publish(kinds.iter().zip(1..).map(|(kind, seq)| line(*kind, seq)).collect());
    until("four runs", || rig.runs("success") == 4);
    let seqs = |name: &str| -> Vec<u64> {
        let lines = rig.text(name);
        lines.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["seq"].as_u64().unwrap()).collect()
    };
    assert_eq!((seqs("h"), seqs("all")), (vec![2, 4], vec![1, 3]), "in order, because one runs at a time");
}

#[test]
fn no_more_run_at_once_than_may() {
    let script = "mkdir DIR/$KVMETER_SEQ; ls DIR | wc -l >> /dev/shm/NAME; sleep 0.3; rmdir DIR/$KVMETER_SEQ";
    let counts = tempfile::NamedTempFile::new_in("/dev/shm").unwrap();
    let script = script.replace("/dev/shm/NAME", counts.path().to_str().unwrap());
    let rig = Rig::new(&hook("h", &script, "max_concurrent = 3"));
    (1..=12).for_each(|seq| rig.bus.publish(start(seq)));
    until("all", || rig.runs("success") == 12);
    let seen: Vec<u64> =
        fs::read_to_string(counts.path()).unwrap().lines().map(|l| l.trim().parse().unwrap()).collect();
    assert!(seen.iter().all(|count| *count <= 3) && seen.iter().any(|count| *count > 1), "{seen:?}");
}

#[test]
fn a_flood_beyond_the_queue_is_lost_and_counted_and_publishing_waits_for_nobody() {
    let rig = Rig::new(&hook("h", "sleep 1000", "max_concurrent = 2\nqueue = 10\ntimeout = \"1h\""));
    rig.bus.publish(start(1));
    rig.bus.publish(start(2));
    until("two to run", || rig.hooks.workers[0].subscription.waiting() == 0);
    let began = Instant::now();
    (3..=10_002).for_each(|seq| rig.bus.publish(start(seq)));
    let took = began.elapsed();
    assert_eq!(rig.lost(LOST), 9_990, "two run, ten wait");
    assert!(took < Duration::from_secs(60), "10,000 lines took {took:?}");
    let (_, bus, metrics) = rig.shutdown(Duration::ZERO);
    assert_eq!(metrics.calls(), ["run canceled", "run canceled"]);
    assert_eq!(bus.lost()[LOST], 10_000, "and those that waited at the end");
}

#[test]
fn at_the_end_what_waits_is_told_and_what_hangs_is_cancelled_with_its_children() {
    let toml = hook("quick", "cat >> DIR/quick", "max_concurrent = 1")
        + &hook("hangs", "sleep 1000 & echo $! > DIR/child; wait", "timeout = \"1h\"");
    let rig = Rig::new(&toml);
    (1..=5).for_each(|seq| rig.bus.publish(start(seq)));
    until("the child", || !rig.text("child").trim().is_empty());
    let began = Instant::now();
    let (dir, _, metrics) = rig.shutdown(Duration::from_secs(2));
    assert!(began.elapsed() < Duration::from_secs(50), "{:?}", began.elapsed());
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(read("quick").lines().count(), 5);
    assert!(metrics.calls().contains(&"run canceled".to_owned()), "{:?}", metrics.calls());
    until("the child's end", || !is_alive(&read("child")));
}

#[test]
fn a_shutdown_without_hooks_or_with_idle_ones_waits_for_nothing() {
    for toml in [String::new(), hook("h", "true", "")] {
        let began = Instant::now();
        Rig::new(&toml).shutdown(Duration::from_secs(60));
        assert!(began.elapsed() < Duration::from_secs(50), "{:?}", began.elapsed());
    }
}

#[test]
fn a_reload_leaves_what_stays_hands_a_queue_on_and_ends_what_is_gone() {
    let stays = hook("stays", "echo $$ >> DIR/stays; sleep 0.5; echo done >> DIR/stays", "");
    let changes = |script: &str| hook("changes", script, "max_concurrent = 1\nqueue = 100");
    let mut rig =
        Rig::new(&(stays.clone() + &changes("sleep 0.3; cat >> DIR/old") + &hook("goes", "cat >> DIR/gone", "")));
    (1..=4).for_each(|seq| rig.bus.publish(start(seq)));
    until("the first", || rig.text("gone").lines().count() == 4 && rig.text("stays").lines().count() >= 4);
    rig.take_over(&(stays.clone() + &changes("cat >> DIR/new") + &hook("comes", "cat >> DIR/come", "")));
    rig.bus.publish(start(5));
    until("all", || rig.text("old").lines().count() + rig.text("new").lines().count() == 5);
    until("the new one", || rig.text("come").lines().count() == 1);
    assert!(!rig.text("old").is_empty() && !rig.text("new").is_empty(), "what was begun ended as it was begun");
    until("those that stayed", || rig.text("stays").matches("done").count() == 5);
    assert_eq!((rig.text("gone").lines().count(), rig.lost(LOST), rig.runs("canceled")), (4, 0, 0));
    rig.take_over("");
    rig.bus.publish(start(6));
    assert_eq!(rig.hooks.workers.len(), 0);
    assert_eq!(rig.lost(LOST), 0, "nobody wanted it");
}
