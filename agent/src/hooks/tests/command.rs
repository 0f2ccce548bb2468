//! Commands: what they are given, what they do not get, and how they are ended.

use super::*;

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// `user = …` that works for whoever runs the tests.
fn user() -> String {
    let me = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap();
    format!("user = {:?}\n", me.name)
}

fn shell(script: &str) -> String {
    format!("[[hooks]]\nname = \"h\"\ncommand = [\"/bin/sh\", \"-c\", {script:?}]\nretries = 0\n{}", user())
}

#[test]
fn a_command_gets_the_line_and_a_clean_environment_and_no_open_file() {
    // Opened without close-on-exec, as careless code or whoever started the agent may have done.
    let leaked = fs::File::open("/").unwrap();
    let flags = nix::fcntl::FdFlag::empty();
    nix::fcntl::fcntl(&leaked, nix::fcntl::FcntlArg::F_SETFD(flags)).unwrap();
    let script = "cat > DIR/line; env > DIR/env; ls /proc/$$/fd > DIR/fds; cat /proc/$$/status /proc/$$/oom_score_adj > DIR/status; ulimit -n > DIR/files; pwd > DIR/cwd; touch DIR/done";
    let rig = Rig::new(&shell(script));
    rig.bus.publish(start(7));
    until("the command", || rig.runs("success") == 1);
    assert_eq!(rig.text("line"), "{\"kind\":\"vm.compute.start\",\"seq\":7}\n");
    let env = rig.text("env");
    let mut names: Vec<&str> = env.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    let known = [
        "HOME",
        "KVMETER_HOOK",
        "KVMETER_ID",
        "KVMETER_KIND",
        "KVMETER_SEQ",
        "KVMETER_VM_ID",
        "LANG",
        "PATH",
        "PWD",
        "USER",
    ];
    assert_eq!(names, known, "{env}");
    for pair in ["KVMETER_HOOK=h", "KVMETER_KIND=vm.compute.start", "KVMETER_SEQ=7", "KVMETER_VM_ID=vm-7"] {
        assert!(env.lines().any(|line| line == pair), "{pair}: {env}");
    }
    let fds = rig.text("fds");
    let others: Vec<&str> = fds.lines().filter(|fd| !["0", "1", "2", "10", "255"].contains(fd)).collect();
    assert!(others.is_empty(), "a shell has its own at 10 or 255 at most: {others:?}");
    assert_eq!(rig.text("cwd").trim(), "/");
    assert_eq!(rig.text("files").trim(), "1024");
    assert!(rig.text("status").lines().any(|line| line == "NoNewPrivs:\t1"));
    drop(leaked);
}

#[test]
fn a_command_runs_as_nobody_without_any_capability_unless_it_is_told_otherwise() {
    if !is_root() {
        return;
    }
    let toml = |name: &str, user: &str| {
        format!(
            "[[hooks]]\nname = {name:?}\nretries = 0\n{user}command = [\"/bin/sh\", \"-c\", \"id -u > DIR/{name}.uid; id -G > DIR/{name}.groups; cat /proc/self/status > DIR/{name}.status\"]\n"
        )
    };
    let rig = Rig::new(&(toml("unsaid", "") + &toml("said", "user = \"root\"\n")));
    rig.bus.publish(start(1));
    until("both", || rig.runs("success") == 2);
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    assert_eq!(rig.text("unsaid.uid").trim(), nobody.uid.to_string());
    assert_eq!(rig.text("unsaid.groups").trim(), nobody.gid.to_string(), "no group of the agent's");
    let status = rig.text("unsaid.status");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert!(status.lines().any(|line| line == format!("{set}:\t0000000000000000")), "{status}");
    }
    assert_eq!(rig.text("said.uid").trim(), "0");
}

#[test]
fn a_command_that_hangs_is_ended_with_all_its_children() {
    let script = "trap '' TERM; sleep 1000 & echo $! > DIR/child; echo $$ > DIR/leader; wait; sleep 1000";
    let rig = Rig::new(&(shell(script) + "timeout = \"3s\"\n"));
    let began = Instant::now();
    rig.bus.publish(start(1));
    until("the timeout", || rig.runs("timeout") == 1);
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(!rig.text("child").is_empty() && !rig.text("leader").is_empty());
    until("their ends", || !is_alive(&rig.text("child")) && !is_alive(&rig.text("leader")));
    assert_eq!(rig.lost(GIVEN_UP), 1);
}

#[test]
fn what_it_prints_is_bounded_and_never_holds_it_up() {
    let rig = Rig::new(&shell("head -c 20000000 /dev/zero; head -c 20000000 /dev/zero >&2; exit 3"));
    rig.bus.publish(start(1));
    until("the end", || rig.runs("failure") == 1);
}

#[test]
fn a_child_it_leaves_behind_holds_nobody_up() {
    let rig = Rig::new(&shell("sleep 1000 & echo $! > DIR/child"));
    let began = Instant::now();
    rig.bus.publish(start(1));
    until("the end", || rig.runs("success") == 1);
    assert!(began.elapsed() < Duration::from_secs(60), "its output is still open: {:?}", began.elapsed());
    let child = nix::unistd::Pid::from_raw(rig.text("child").trim().parse().unwrap());
    nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[test]
fn a_command_that_is_not_there_is_a_failure_and_one_that_reads_nothing_is_none() {
    let rig = Rig::new(&format!(
        "[[hooks]]\nname = \"a\"\ncommand = [\"/nonexistent/x\"]\nretries = 1\nbackoff = \"10ms\"\n{0}\
         [[hooks]]\nname = \"b\"\ncommand = [\"/bin/true\"]\n{0}",
        user()
    ));
    rig.bus.publish(start(1));
    until("all", || rig.runs("failure") == 2 && rig.runs("success") == 1);
}

#[test]
fn a_secret_reaches_the_environment_and_a_bad_one_no_command() {
    let rig = Rig::new(&(shell("echo $KVMETER_SECRET > DIR/told") + "secret_file = \"DIR/secret\"\n"));
    rig.bus.publish(start(1));
    until("the failure", || rig.runs("failure") == 1);
    assert!(!rig.path("told").exists(), "it did not run");
    fs::write(rig.path("secret"), "hunter2\n").unwrap();
    fs::set_permissions(rig.path("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    rig.bus.publish(start(2));
    until("the run", || rig.runs("success") == 1);
    assert_eq!(rig.text("told"), "hunter2\n");
}

#[test]
fn a_user_that_is_not_there_stops_no_other_hook_and_what_it_missed_is_counted() {
    let rig = Rig::new(&format!(
        "[[hooks]]\nname = \"a\"\ncommand = [\"/bin/true\"]\nuser = \"no-such-user-here\"\n\
         [[hooks]]\nname = \"b\"\ncommand = [\"/bin/true\"]\n{}",
        user()
    ));
    rig.bus.publish(start(1));
    until("the other", || rig.runs("success") == 1);
    assert_eq!(rig.lost(LOST), 1);
}
