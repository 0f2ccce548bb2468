//! What is stated of VMs, of any bytes: bodies of requests, and the file that statements wait in, as it stands and with the
//! sums of its lines made right. No panic, what is taken is bounded, and what is written is read as it was.
#![no_main]

use kvmeter::{
    clock::Instant2,
    lifecycle::annotation::{MAX_TTL, Pending, Request, Stated, Target, Whom, kept, parse},
    vm::Owner,
};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest as _, Sha256};

const NOW: Instant2 = Instant2 { boot_ns: 1_000_000, unix_ns: 1_800_000_000_000_000_000 };

fn bounded(text: &str) {
    assert!(text.len() <= 128 && !text.chars().any(char::is_control), "{text:?}");
}

fn owner(owner: &Owner) {
    assert!(owner.labels.len() <= 16);
    let texts = owner.tenant.iter().chain(&owner.name).chain(owner.labels.keys()).chain(owner.labels.values());
    texts.for_each(|text| bounded(text));
}

fn request(body: &[u8]) {
    let Ok(Request { target, owner: whose, start, stop, ttl }) = parse(body) else { return };
    assert!(ttl <= MAX_TTL);
    owner(&whose);
    start.snapshot.iter().chain(&stop.snapshot).for_each(|text| bounded(text));
    let whom = match target {
        Target::VmId(vm_id) => Whom::VmId(vm_id),
        Target::Uuid(uuid) => Whom::Uuid(uuid),
        Target::Pid(tgid) => Whom::Process { tgid, start_tick: 1, tick_ns: 10_000_000, there_ns: 2 },
    };
    let by = || "uid:0".to_owned();
    let pending = Pending {
        id: 3,
        after_seq: 4,
        whom,
        owner: Some((whose, by())).filter(|(owner, _)| !owner.is_empty()),
        start: Stated { by: by(), ..start },
        stop: Stated { by: by(), ..stop },
        until_ns: NOW.boot_ns + 1,
    };
    let line = kept::line(3, Some(&pending), "b", NOW);
    assert!(line.len() <= kept::MAX_LINE, "{}", line.len());
    let found = kept::read(&line, "b", NOW);
    assert_eq!(found.waiting, [pending]);
}

fn file(bytes: &[u8]) {
    let found = kept::read(bytes, "b", NOW);
    let lines = bytes.iter().filter(|b| **b == b'\n').count();
    assert!(found.waiting.len() + found.unread as usize <= lines);
    for pending in &found.waiting {
        assert!(pending.until_ns > NOW.boot_ns && pending.by().starts_with("uid:"));
        pending.owner.iter().for_each(|(whose, _)| owner(whose));
        pending.start.snapshot.iter().chain(&pending.stop.snapshot).for_each(|text| bounded(text));
    }
}

/// Each line's body with the sum that it should have.
fn summed(bytes: &[u8]) -> Vec<u8> {
    let sum = |body: &[u8]| Sha256::digest(body).iter().take(8).map(|b| format!("{b:02x}")).collect::<String>();
    let line = |body: &[u8]| [body, b",\"sum\":\"", sum(body).as_bytes(), b"\"}\n"].concat();
    bytes.split(|b| *b == b'\n').flat_map(line).collect()
}

fuzz_target!(|data: &[u8]| {
    let (kind, raw) = data.split_first().unwrap_or((&0, &[]));
    match kind % 4 {
        0 | 1 => request(raw),
        2 => file(raw),
        _ => file(&summed(raw)),
    }
});
