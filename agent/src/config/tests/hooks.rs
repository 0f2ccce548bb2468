//! The laws of `[[hooks]]`.

use std::path::PathBuf;
use std::time::Duration;

use super::{good, problems};
use crate::config::hooks::KEYS;
use crate::config::{Config, Hook, HookAction, SecretAs};
use crate::ledger::Kind;

/// The hook in the default file's last comment, with its one `# ` taken off.
pub(super) fn shown_in_the_default_file() -> toml::Value {
    let text = Config::default_toml();
    let (_, block) = text.split_once("\n# [[hooks]]\n").unwrap();
    let lines: String = block.lines().map(|line| format!("{}\n", line.strip_prefix("# ").unwrap())).collect();
    let keys = lines.parse::<toml::Table>().unwrap();
    assert!(KEYS.iter().all(|key| keys.contains_key(*key)) && keys.len() == KEYS.len(), "{keys:?}");
    // Either of the two actions makes a good hook of it.
    for without in [&["command", "user"][..], &["url", "secret_as", "ca_file"]] {
        let mut keys = keys.clone();
        without.iter().for_each(|key| _ = keys.remove(*key));
        let hook = toml::Table::from_iter([("hooks".to_owned(), toml::Value::Array(vec![keys.into()]))]);
        assert_eq!(hooks(&hook.to_string())[0].name, "billing");
    }
    toml::Value::Array(vec![keys.into()])
}

fn hooks(toml: &str) -> Vec<Hook> {
    good(toml).hooks
}

#[test]
fn a_hook_has_a_command_or_an_address_and_sane_defaults() {
    let all = hooks(
        "[[hooks]]\nname = \"a\"\ncommand = [\"/bin/x\", \"y z\"]\n\
         [[hooks]]\nname = \"b\"\nurl = \"http://h.example/p\"\nsecret_file = \"/s\"\nsecret_as = \"hmac\"\nkinds = [\"vm.compute.stop\"]\n",
    );
    let command = HookAction::Command { words: vec!["/bin/x".into(), "y z".into()], user: "nobody".into() };
    assert_eq!((all[0].name.as_str(), &all[0].action), ("a", &command));
    assert_eq!((all[0].timeout, all[0].max_concurrent, all[0].retries), (Duration::from_secs(10), 4, 3));
    let told = [
        Kind::VmComputeStart,
        Kind::VmComputeStop,
        Kind::VmStorageStart,
        Kind::SnapStorageStop,
        Kind::VmIdentity,
        Kind::Correction,
    ];
    assert!(told.iter().all(|kind| all[0].kinds.contains(kind)), "{:?}", all[0].kinds);
    assert!(!all[0].kinds.contains(&Kind::VmComputeUsage) && !all[0].kinds.contains(&Kind::AgentUp));
    assert_eq!(all[1].kinds, [Kind::VmComputeStop]);
    let HookAction::Request { url, secret_as, ca_file } = &all[1].action else { panic!("{:?}", all[1]) };
    assert_eq!((url.to_string().as_str(), *secret_as, ca_file), ("http://h.example/p", SecretAs::Hmac, &None));
    assert_eq!(all[1].secret_file, Some(PathBuf::from("/s")));
    assert!(hooks("hooks = []").is_empty());
}

#[test]
fn every_mistake_in_hooks_is_told_with_its_line() {
    let found = problems(
        "[[hooks]]\ncommand = [\"relative\"]\nretrys = 1\n\
         [[hooks]]\nname = \"b\"\n\
         [[hooks]]\nname = \"c\"\ncommand = [\"/x\"]\nurl = \"http://h/\"\n\
         [[hooks]]\nname = \"d\"\nurl = \"ftp://h/\"\nuser = \"root\"\nsecret_as = \"hmac\"\n\
         [[hooks]]\nname = \"e\"\ncommand = [\"/x\"]\nca_file = \"/c\"\nkinds = [\"vm.start\"]\ntimeout = \"0s\"\n\
         [[hooks]]\nname = \"e\"\ncommand = \"/x\"\nmax_concurrent = 0\nsecret_file = \"s\"\n\
         [[hooks]]\nname = \"e\"\ncommand = [\"/x\"]\n\
         [[hooks]]\nname = \"a/b\"\nurl = \"http://me@h/\"\nca_file = \"/c\"\n",
    );
    let begin = [
        "k.toml:1: hooks[0].name: must be there",
        "k.toml:2: hooks[0].command = [\"relative\"]: must be a list of the program's absolute path",
        "k.toml:3: hooks[0].retrys = 1: unknown key; did you mean \"retries\"?",
        "k.toml:1: hooks[1].command: must be there, or a url",
        "k.toml:9: hooks[2].url = \"http://h/\": a hook has a command or a url, not both",
        "k.toml:12: hooks[3].url = \"ftp://h/\": must begin with http:// or https://",
        "k.toml:13: hooks[3].user = \"root\": goes with a command only",
        "k.toml:14: hooks[3].secret_as = \"hmac\": says how secret_file is used",
        "k.toml:18: hooks[4].ca_file = \"/c\": goes with a url only",
        "k.toml:19: hooks[4].kinds = [\"vm.start\"]: must be a list of one or more of vm.compute.start",
        "k.toml:20: hooks[4].timeout = \"0s\": must be a duration from 100ms",
        "k.toml:23: hooks[5].command = \"/x\": must be a list",
        "k.toml:24: hooks[5].max_concurrent = 0: must be a whole number from 1 to 64",
        "k.toml:25: hooks[5].secret_file = \"s\": must be an absolute path",
        "k.toml:27: hooks[6].name = \"e\": hooks[4] is called so already",
        "k.toml:30: hooks[7].name = \"a/b\": must be a name",
        "k.toml:31: hooks[7].url = \"http://me@h/\": must not have a user",
    ];
    for begin in begin {
        assert!(found.iter().any(|text| text.starts_with(begin)), "{begin} in {found:#?}");
    }
    assert_eq!(found.len(), begin.len(), "{found:#?}");
}

#[test]
fn hooks_are_tables_and_bounded() {
    for toml in
        ["hooks = 3", "hooks = \"x\"", "[hooks]\nname = \"x\"", "hooks = [1, 2]", "hooks = [{ name = \"a\" }, 3]"]
    {
        let found = problems(toml);
        assert!(found.len() == 1 && found[0].contains("must be tables, each under a [[hooks]]"), "{found:?}");
    }
    let many: String = (0..17).map(|n| format!("[[hooks]]\nname = \"h{n}\"\ncommand = [\"/x\"]\n")).collect();
    assert!(problems(&many)[0].contains("must be at most 16, not 17"));
}
