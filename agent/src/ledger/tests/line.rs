//! Laws of one line.

use proptest::prelude::*;

use super::super::digest;
use super::*;

fn place(seq: u64, prev: &str) -> Place<'_> {
    Place { ledger: "00112233aabbccdd", host: HOST, seq, ordinal: 0, prev, recorded_at: T0 + 5 }
}

fn body(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap()
}

#[test]
fn a_start_line_is_byte_for_byte_the_contracts() {
    let mut draft = vm(Kind::VmComputeStart, 42, 0);
    draft.reason = Some(Reason::Boot);
    draft.usage = None;
    draft.evidence.first_run_at = Some(T0 + 7);
    draft.name = "db".to_owned();
    draft.uuid = "u-1".to_owned();
    draft.tenant = "acme".to_owned();
    draft.labels.insert("tier".to_owned(), "gold".to_owned());
    let line = encode(&draft, &place(1, digest::NO_PREV)).unwrap();
    let expected = concat!(
        r#"{"kind":"vm.compute.start","vm_id":"vm-42","reason":"boot","hypervisor":"qemu","#,
        r#""shape":{"cpu":2,"mem_bytes":1073741824},"emitted_at":"2026-05-20T01:02:03.000000000Z","#,
        r#""v":1,"ledger":"00112233aabbccdd","seq":1,"id":"365d5819b510ae0aedb08b947e1578ef","#,
        r#""host":"0123456789abcdef0123456789abcdef","boot_id":"11111111-2222-3333-4444-555555555555","#,
        r#""incarnation":"111111112222-42-100000000000","recorded_at":"2026-05-20T01:02:03.000000005Z","#,
        r#""mono_ns":"100000000000","time_quality":"exact","#,
        r#""evidence":{"first_run_at":"2026-05-20T01:02:03.000000007Z"},"#,
        r#""name":"db","uuid":"u-1","tenant":"acme","labels":{"tier":"gold"},"#,
        r#""coverage":{"observed_ns":"0","unobserved_ns":"0","lost_events":0},"#,
        r#""prev":"0000000000000000000000000000000000000000000000000000000000000000","sum":"bfda11b09418a6bd"}"#,
        "\n"
    );
    assert_eq!(String::from_utf8(line.bytes).unwrap(), expected);
}

#[test]
fn a_stop_line_is_byte_for_byte_the_contracts() {
    let mut draft = vm(Kind::VmComputeStop, 42, 30);
    draft.reason = Some(Reason::StopCrash);
    draft.cause = "signal".to_owned();
    draft.time_quality = TimeQuality::Bounded { not_before: draft.emitted_at, not_after: T0 + 40 * SECOND };
    draft.evidence.signal = Some(9);
    draft.evidence.core_dumped = Some(false);
    draft.evidence.killer_pid = Some(77);
    draft.evidence.killer_comm = Some("kill".to_owned());
    let line = encode(&draft, &place(2, &"ab".repeat(32))).unwrap();
    let expected = concat!(
        r#"{"kind":"vm.compute.stop","vm_id":"vm-42","reason":"stop-crash","hypervisor":"qemu","#,
        r#""shape":{"cpu":2,"mem_bytes":1073741824},"emitted_at":"2026-05-20T01:02:33.000000000Z","#,
        r#""v":1,"ledger":"00112233aabbccdd","seq":2,"id":"02738308e3a432226fdcd662cc000991","#,
        r#""host":"0123456789abcdef0123456789abcdef","boot_id":"11111111-2222-3333-4444-555555555555","#,
        r#""incarnation":"111111112222-42-100000000000","recorded_at":"2026-05-20T01:02:03.000000005Z","#,
        r#""mono_ns":"130000000000","time_quality":"bounded","#,
        r#""not_before":"2026-05-20T01:02:33.000000000Z","not_after":"2026-05-20T01:02:43.000000000Z","#,
        r#""cause":"signal","evidence":{"signal":9,"core_dumped":false,"killer_pid":"77","killer_comm":"kill"},"#,
        r#""usage":{"cpu_ns":"30000030000","cpu_vcpu_ns":"30000000000","cpu_vmm_ns":"30000","#,
        r#""mem_byte_ns":"35417748621522339102720","net":[{"interface":"tap0","class":"host","receive_bytes":"30","#,
        r#""receive_packets":"0","transmit_bytes":"0","transmit_packets":"0"}]},"#,
        r#""coverage":{"observed_ns":"30000000000","unobserved_ns":"0","lost_events":0},"#,
        r#""prev":"abababababababababababababababababababababababababababababababab","sum":"f1d43fcf99e29557"}"#,
        "\n"
    );
    assert_eq!(String::from_utf8(line.bytes).unwrap(), expected);
}

#[test]
fn a_line_with_nothing_to_say_still_carries_a_whole_shape() {
    let line = encode(&Draft::new(Kind::ClockStep, Subject::Ledger, BOOT, T0, 0), &place(1, digest::NO_PREV)).unwrap();
    let text = String::from_utf8(line.bytes).unwrap();
    assert!(text.starts_with(r#"{"kind":"clock.step","shape":{},"emitted_at":""#), "{text}");
}

#[test]
fn cpu_time_is_absent_unless_both_vcpu_and_vmm_are_measured() {
    let mut usage = Usage { cpu_vcpu_ns: Some(5), cpu_io_ns: Some(1), ..Usage::default() };
    assert_eq!(usage.cpu_ns(), None);
    assert_eq!(serde_json::to_string(&usage).unwrap(), r#"{"cpu_vcpu_ns":"5","cpu_io_ns":"1"}"#);
    usage.cpu_vmm_ns = Some(0);
    assert_eq!(usage.cpu_ns(), Some(6));
}

#[test]
fn an_oversize_line_loses_labels_then_its_names_end_and_says_so() {
    let mut draft = vm(Kind::VmComputeStart, 1, 0);
    draft.labels.insert("k".to_owned(), "v".repeat(20_000));
    let line = encode(&draft, &place(1, digest::NO_PREV)).unwrap();
    assert_eq!(line.trimmed, ["labels"]);
    draft.name = "n".repeat(20_000);
    let line = encode(&draft, &place(1, digest::NO_PREV)).unwrap();
    assert_eq!(line.trimmed, ["labels", "name"]);
    let parsed = Line::parse(body(&line.bytes)).unwrap();
    assert_eq!(parsed.trimmed, ["labels", "name"]);
    assert!(draft.name.starts_with(&parsed.fact.name) && !parsed.fact.name.is_empty());
    assert_eq!(parsed.fact.usage, draft.usage);
}

#[test]
fn no_text_however_hostile_makes_a_line_oversize_or_invalid() {
    let evil = "\u{1}\"\\\n\u{7f}\u{202e}".repeat(20_000);
    let mut draft = vm(Kind::VmComputeStart, 1, 0);
    let texts = [&mut draft.vm_id, &mut draft.snapshot_id, &mut draft.source_snapshot_id, &mut draft.hypervisor];
    texts.into_iter().for_each(|t| t.clone_from(&evil));
    let texts = [&mut draft.cause, &mut draft.name, &mut draft.uuid, &mut draft.tenant, &mut draft.corrects];
    texts.into_iter().for_each(|t| t.clone_from(&evil));
    draft.subject = Subject::Incarnation(evil.clone());
    draft.boot_id.clone_from(&evil);
    draft.resumed_after = Some(Mark { seq: u64::MAX, id: evil.clone() });
    draft.evidence.killer_comm = Some(evil.clone());
    draft.evidence.kvm_exit = Some(evil.clone());
    draft.evidence.annotated_by = Some(evil.clone());
    draft.labels.insert(evil.clone(), evil.clone());
    let usage = draft.usage.as_mut().unwrap();
    usage.net = vec![NetUsage { interface: evil.clone(), class: evil, ..NetUsage::default() }; 16];
    let line = encode(&draft, &place(u64::MAX, digest::NO_PREV)).unwrap();
    assert!(line.bytes.len() <= LINE_MAX_BYTES);
    Line::parse(body(&line.bytes)).unwrap();
}

#[test]
fn every_kind_and_reason_reads_back_from_its_text() {
    for kind in Kind::ALL {
        assert_eq!(kind.as_str().parse(), Ok(*kind));
    }
    for reason in Reason::ALL {
        assert_eq!(reason.as_str().parse(), Ok(*reason));
    }
    assert!("vm.compute".parse::<Kind>().is_err());
}

#[test]
fn interfaces_that_do_not_fit_are_told_together_and_nothing_of_them_is_lost() {
    let mut draft = vm(Kind::VmComputeUsage, 7, 5);
    let class = |n: usize| ["external", "internal"][n % 2].to_owned();
    let one = |n| NetUsage {
        interface: format!("interface-{n}"),
        class: class(n),
        receive_bytes: 1 << 40,
        transmit_packets: 3,
        ..NetUsage::default()
    };
    draft.usage.as_mut().unwrap().net = (0..200).map(one).collect();
    let line = encode(&draft, &place(1, digest::NO_PREV)).unwrap();
    let text: serde_json::Value = serde_json::from_slice(body(&line.bytes)).unwrap();
    assert_eq!(text["trimmed"], serde_json::json!(["usage.net.interface"]));
    let net = text["usage"]["net"].as_array().unwrap();
    // As many as fit into 9 KiB go on under their names, in their order.
    let named = net.len() - 2;
    assert!((60..75).contains(&named), "{named}");
    for (at, one) in net.iter().enumerate().take(named) {
        assert_eq!(one["interface"], format!("interface-{at}"));
        assert_eq!(one["receive_bytes"], (1_u64 << 40).to_string());
    }
    let sum = |key: &str| -> u64 { net.iter().map(|one| one[key].as_str().unwrap().parse::<u64>().unwrap()).sum() };
    assert!(net[named..].iter().all(|one| one["interface"] == "other"));
    assert_eq!((sum("receive_bytes"), sum("transmit_packets")), (200 << 40, 600));
}

#[test]
fn interfaces_that_are_told_together_never_come_back_so_that_no_sum_falls() {
    let mut net = Vec::new();
    let mut before: std::collections::BTreeMap<(String, String), u64> = std::collections::BTreeMap::new();
    for round in 0..400_u64 {
        // Names come in any order, traffic grows and its classes become more.
        let (interface, class) = (format!("tap-{:02}", round * 7 % 16), format!("class-{:02}", round / 16 % 16));
        match net.iter_mut().find(|one: &&mut NetUsage| one.interface == interface && one.class == class) {
            Some(one) => one.receive_bytes *= 1_000,
            None => net.push(NetUsage { interface, class, receive_bytes: round, ..NetUsage::default() }),
        }
        net.sort_by(|a, b| (&a.interface, &a.class).cmp(&(&b.interface, &b.class)));
        let mut draft = vm(Kind::VmComputeUsage, 7, 5);
        draft.usage.as_mut().unwrap().net.clone_from(&net);
        let line = encode(&draft, &place(1, digest::NO_PREV)).unwrap();
        let read = Line::parse(body(&line.bytes)).unwrap().fact.usage.unwrap().net;
        let sum = |net: &[NetUsage]| net.iter().map(|one| one.receive_bytes).sum::<u64>();
        assert_eq!(sum(&read), sum(&net));
        for one in read {
            let then = before.insert((one.interface.clone(), one.class.clone()), one.receive_bytes);
            assert!(then.is_none_or(|then| one.receive_bytes >= then), "{one:?} was {then:?}");
        }
    }
    assert!(before.keys().any(|(interface, _)| interface == "other"));
}

prop_compose! {
    fn usages()(n in any::<[Option<u64>; 10]>(), mem in any::<Option<u128>>(), interface in any::<String>(), nets in 0..3_usize)
        -> Usage {
        let halve = |n: Option<u64>| n.map(|n| n / 8);
        Usage {
            cpu_vcpu_ns: halve(n[0]), cpu_vmm_ns: halve(n[1]), cpu_io_ns: halve(n[2]), cpu_vhost_ns: halve(n[3]),
            guest_ns: n[4], halt_poll_ns: n[5], run_delay_ns: n[6], mem_byte_ns: mem, mem_peak_bytes: n[7],
            disk_read_bytes: n[8], disk_written_bytes: n[9],
            net_unobserved: vec![NetUnobserved { interface: interface.clone(), kind: "vfio".into() }; nets / 2],
            net: vec![NetUsage { interface, receive_bytes: u64::MAX, ..NetUsage::default() }; nets],
        }
    }
}

prop_compose! {
    pub(super) fn drafts()(
        kind in proptest::sample::select(Kind::ALL),
        reason in proptest::option::of(proptest::sample::select(Reason::ALL)),
        texts in proptest::array::uniform10(any::<String>()),
        subject in 0..4_u8,
        numbers in any::<[u64; 4]>(),
        codes in any::<[Option<i32>; 2]>(),
        flags in any::<[Option<bool>; 3]>(),
        cpu in any::<u32>(),
        bounds in any::<Option<(u64, u64)>>(),
        usage in proptest::option::of(usages()),
        labels in proptest::collection::btree_map(any::<String>(), any::<String>(), 0..4),
    ) -> Draft {
        let [who, vm_id, hypervisor, boot, cause, name, uuid, tenant, comm, corrects] = texts;
        let subject = match (subject, who.is_empty()) {
            (_, true) | (0, _) => Subject::Ledger,
            (1, _) => Subject::Incarnation(who),
            (2, _) => Subject::Storage(who),
            _ => Subject::Snapshot(who),
        };
        let mut draft = Draft::new(kind, subject, &boot, numbers[0], numbers[1]);
        if let Subject::Snapshot(id) = &draft.subject {
            draft.snapshot_id.clone_from(id);
        }
        draft.hypervisor = if hypervisor.is_empty() { "unknown".to_owned() } else { hypervisor };
        (draft.vm_id, draft.cause, draft.name, draft.uuid, draft.tenant) = (vm_id, cause, name, uuid, tenant);
        (draft.corrects, draft.labels, draft.reason) = (corrects, labels, reason);
        draft.shape = Shape { cpu, mem_bytes: numbers[2], storage_bytes: numbers[3] };
        draft.evidence = Evidence {
            exit_code: codes[0], signal: codes[1], core_dumped: flags[0], oom: flags[1],
            killer_pid: Some(cpu), killer_comm: Some(comm), first_run_at: Some(numbers[2]), ..Evidence::default()
        };
        draft.files = vec![StoredFile { file: draft.name.clone(), path: draft.uuid.clone(), bytes: usage.as_ref().and_then(|u| u.guest_ns) }];
        draft.usage = usage.filter(|u| *u != Usage::default());
        draft.coverage = Some(Coverage { observed_ns: numbers[0], unobserved_ns: numbers[1], lost_events: numbers[2] });
        if let Some((not_before, not_after)) = bounds {
            draft.time_quality = TimeQuality::Bounded { not_before, not_after };
        }
        (draft.clean, draft.cut_bytes) = (flags[2], Some(numbers[3]));
        (draft.stepped_from, draft.suspended_ns) = (bounds.map(|(from, _)| from), Some(numbers[2]));
        draft
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(draft in drafts(), seq in any::<u64>()) {
        let line = encode(&draft, &place(seq, digest::NO_PREV)).unwrap();
        prop_assert!(line.bytes.len() <= LINE_MAX_BYTES);
        let parsed = Line::parse(body(&line.bytes)).unwrap();
        if line.trimmed.is_empty() {
            prop_assert_eq!(parsed.fact, draft);
        }
        prop_assert_eq!((parsed.seq, parsed.id), (seq, line.id));
    }

    #[test]
    fn a_changed_byte_is_told_by_the_sum(draft in drafts(), at in any::<proptest::sample::Index>(), flip in 1..=255_u8) {
        let mut line = encode(&draft, &place(1, digest::NO_PREV)).unwrap().bytes;
        line.pop();
        let at = at.index(line.len());
        line[at] ^= flip;
        prop_assert!(Line::parse(&line).is_err());
    }

    #[test]
    fn an_id_depends_on_boot_subject_kind_and_ordinal_alone(draft in drafts(), ordinal in any::<u64>()) {
        let first = encode(&draft, &Place { ordinal, ..place(1, digest::NO_PREV) }).unwrap();
        let later = encode(&Draft { name: "other".into(), ..draft.clone() }, &Place { ordinal, ..place(9, digest::NO_PREV) });
        prop_assert_eq!(&first.id, &later.unwrap().id);
        let next = encode(&draft, &Place { ordinal: ordinal ^ 1, ..place(1, digest::NO_PREV) }).unwrap();
        prop_assert_ne!(first.id, next.id);
    }
}
