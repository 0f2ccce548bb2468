//! The architecture's edges: who may import what, where `unsafe` and kernel paths may stand, how long things may be.
//!
//! Reads the sources as text, so it also sees what does not compile. Code under `#[cfg(test)]` and files of tests are
//! free in what they import. What is wrong is printed as `file:line: what`, all of it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::lexer::Source;
use crate::limits;
use crate::paths::{self, Named};
use crate::workspace::Workspace;

/// A crate, and the only folders that may import it.
const OWNED_CRATES: [(&str, &str); 5] = [
    ("aya", "agent/src/bpf/"),
    ("aya_obj", "agent/src/bpf/"),
    ("prometheus", "agent/src/expose/"),
    ("axum", "agent/src/expose/"),
    ("ratatui", "agent/src/cli/top/"),
];

/// Code that does no input or output, and what it therefore never names.
const PURE: [&str; 8] = [
    "agent/src/storage/",
    "agent/src/account/",
    "agent/src/vm/identity/",
    "agent/src/bpf/plan.rs",
    "agent/src/bpf/btf.rs",
    "agent/src/bpf/btf/section.rs",
    "agent/src/bpf/format.rs",
    "agent/src/ledger/record.rs",
];
const IMPURE: [&str; 3] = ["tokio", "std::fs", "std::net"];

/// The closed words of the ledger's contract, which metrics and API show as well: names, no state.
const VOCABULARY: [&str; 4] =
    ["crate::ledger::Kind", "crate::ledger::Reason", "crate::ledger::Op", "crate::ledger::Shape"];

/// Views read snapshots; none knows another.
const VIEWS: [&str; 4] = ["expose", "history", "hooks", "ledger"];

/// The folder that reads what the kernel shows as files.
const KERNEL_FILES: &str = "agent/src/host/";
/// Other places that may name such a path, and which.
const KERNEL_FILES_ELSEWHERE: [(&str, &str); 4] = [
    // Where maps and links are pinned.
    ("agent/src/bpf/", "/sys/fs/bpf"),
    ("agent/src/config/", "/sys/fs/bpf"),
    // Types and tracepoint formats.
    ("agent/src/bpf/", "/sys/kernel/btf"),
    ("agent/src/bpf/", "/sys/kernel/tracing"),
];

const UNSAFE: [&str; 9] = [
    "agent-common/",
    "agent-ebpf/",
    "agent/src/bpf/",
    // Two settings of the C library's allocator.
    "agent/src/heap.rs",
    // pidfd_getfd and the ioctls of tun, which nothing wraps.
    "agent/src/host/tun.rs",
    // What a child gives up between fork and exec.
    "agent/src/host/child.rs",
    // fsopen and what belongs to it, likewise.
    "agent/src/host/link/device.rs",
    "tests/src/vmm/",
    "tests/src/net/raw.rs",
];

/// The folders with Rust in them.
const MEMBERS: [&str; 5] = ["agent", "agent-common", "agent-ebpf", "tests", "xtask"];

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let mut files = Vec::new();
    for member in MEMBERS {
        collect(&workspace.root.join(member), &mut files)?;
    }
    files.sort();
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    for path in &files {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let name = path.strip_prefix(&workspace.root).unwrap_or(path).to_string_lossy().into_owned();
        errors.extend(faults(&name, &text));
        errors.extend(limits::file(&name, &text));
        warnings.extend(limits::functions(&name, &Source::read(&text)));
    }
    for line in warnings {
        println!("warning: {line}");
    }
    for line in &errors {
        println!("error: {line}");
    }
    if !errors.is_empty() {
        bail!("{} in {} files break the rules of docs/ARCHITECTURE.md", errors.len(), files.len());
    }
    Ok(())
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let list = fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in list {
        let path = entry.with_context(|| format!("cannot list {}", directory.display()))?.path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// What is wrong in one file; `name` is its path from the root.
fn faults(name: &str, text: &str) -> Vec<String> {
    let whole = Source::read(text);
    let mut found = unsafe_words(name, &whole);
    let of_tests = name.ends_with("/tests.rs") || name.contains("/tests/");
    if name.starts_with("agent/src/") && !of_tests {
        let source = whole.without_tests();
        found.extend(kernel_paths(name, &source));
        let module = module(name);
        for named in paths::named(&source, &module) {
            found.extend(import(name, &module, &named).map(|fault| format!("{name}:{}: {fault}", named.line)));
        }
    }
    found
}

/// What is wrong with a file of the agent naming this path.
fn import(name: &str, module: &[String], named: &Named) -> Option<String> {
    let path = &named.path;
    for (owned, folder) in OWNED_CRATES {
        if named.is_in(owned) && !name.starts_with(folder) {
            return Some(format!("`{path}`: only {folder} imports {owned}"));
        }
    }
    if PURE.iter().any(|pure| name.starts_with(pure)) && IMPURE.iter().any(|impure| named.is_in(impure)) {
        return Some(format!("`{path}`: this module is pure, it does no input or output"));
    }
    if VOCABULARY.iter().any(|word| named.is_in(word)) {
        return None;
    }
    let own = module.first().map_or("", String::as_str);
    let foreign = |view: &&&str| VIEWS.contains(&own) && **view != own && named.is_in(&format!("crate::{view}"));
    if let Some(view) = VIEWS.iter().find(foreign) {
        return Some(format!("`{path}`: {own} and {view} are views, and views never import each other"));
    }
    if named.is_in("crate::app") && !matches!(own, "app" | "cli" | "") {
        return Some(format!("`{path}`: app is imported by main and the command line alone"));
    }
    None
}

/// `agent/src/bpf/maps.rs` is `bpf::maps`; `mod.rs`, `lib.rs` and `main.rs` are their folder.
fn module(name: &str) -> Vec<String> {
    let inner = name.trim_start_matches("agent/src/").trim_end_matches(".rs");
    let parts = inner.split('/').filter(|part| !matches!(*part, "mod" | "lib" | "main"));
    parts.map(str::to_owned).collect()
}

fn kernel_paths(name: &str, source: &Source) -> Vec<String> {
    if name.starts_with(KERNEL_FILES) {
        return Vec::new();
    }
    let below =
        |text: &str, root: &str| text.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let allowed =
        |text: &str| KERNEL_FILES_ELSEWHERE.iter().any(|(place, root)| name.starts_with(place) && below(text, root));
    // With a space in it, it is a sentence about a path.
    let paths = source.strings.iter().filter(|(_, text)| !text.contains(' '));
    let kernel = paths.filter(|(_, text)| below(text, "/proc") || below(text, "/sys"));
    let forbidden = kernel.filter(|(_, text)| !allowed(text));
    forbidden
        .map(|(at, text)| format!("{name}:{}: \"{text}\": only {KERNEL_FILES} reads /proc and /sys", source.line(*at)))
        .collect()
}

fn unsafe_words(name: &str, source: &Source) -> Vec<String> {
    if UNSAFE.iter().any(|place| name.starts_with(place)) {
        return Vec::new();
    }
    let boundary = |letter: Option<char>| letter.is_none_or(|letter| !letter.is_alphanumeric() && letter != '_');
    let found = source.code.match_indices("unsafe").filter(|(at, word)| {
        boundary(source.code[..*at].chars().next_back()) && boundary(source.code[at + word.len()..].chars().next())
    });
    found.map(|(at, _)| format!("{name}:{}: `unsafe` stands only in {}", source.line(at), UNSAFE.join(", "))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, text: &str) -> String {
        let found = faults(name, text);
        assert_eq!(found.len(), 1, "{name} {text}: {found:?}");
        found.concat()
    }

    #[test]
    fn each_rule_refuses_what_it_is_about() {
        assert!(one("agent/src/sample/cpu.rs", "\nuse aya::maps::Map;").starts_with("agent/src/sample/cpu.rs:2: "));
        assert!(one("agent/src/history/store.rs", "use axum::Router;").contains("axum"));
        assert!(one("agent/src/app.rs", "fn f() { prometheus::gather(); }").contains("prometheus"));
        assert!(one("agent/src/account/delta.rs", "use std::{collections::BTreeMap, fs};").contains("pure"));
        assert!(one("agent/src/bpf/btf.rs", "fn f() { tokio::spawn(x); }").contains("pure"));
        assert!(one("agent/src/history/store.rs", "use super::super::ledger::record;").contains("views"));
        assert!(one("agent/src/expose/api.rs", "use crate::history::query;").contains("views"));
        assert!(one("agent/src/vm/discover.rs", "use crate::app::App;").contains("app is imported"));
        assert!(one("agent/src/app.rs", "read(\"/proc/self/stat\")").contains("/proc"));
        assert!(one("agent/src/host/process.rs", "fn f() { unsafe { g() } }").contains("unsafe"));
        assert!(one("tests/src/lib.rs", "unsafe fn g() {}").contains("unsafe"));
    }

    #[test]
    fn what_is_allowed_passes() {
        for (name, text) in [
            ("agent/src/bpf/maps.rs", "use aya::maps::Map; unsafe { f() }; \"/sys/fs/bpf/x\""),
            ("agent/src/expose/http.rs", "use axum::Router; use crate::account::Snapshot;"),
            ("agent/src/host/process.rs", "\"/proc/1/stat\"; std::fs::read(p)"),
            ("agent/src/account/delta.rs", "// tokio::spawn and unsafe\nuse std::fmt;"),
            ("agent/src/app.rs", "#![deny(unsafe_code)]\nuse crate::app::wire; \"/proc/x is gone\"; \"/system\""),
            ("agent/src/bpf/btf.rs", "#[cfg(test)]\nmod tests { fn f() { std::fs::read(\"/sys/x\"); } }"),
            ("agent/src/vm/identity/tests.rs", "use std::fs;"),
            ("tests/src/vmm/guest.rs", "unsafe { f() }"),
        ] {
            assert_eq!(faults(name, text), Vec::<String>::new(), "{name}");
        }
    }
}
