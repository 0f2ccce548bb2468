//! Ledgers made up for readers to be tried with: whole, chained, of any number of hosts, without an agent.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::super::digest;
use super::*;

pub(super) const HOUR: u64 = 3600 * SECOND;

/// One ledger as it grows.
pub(super) struct Book {
    pub(super) ledger: String,
    pub(super) host: String,
    pub(super) boot: String,
    pub(super) lines: Vec<Vec<u8>>,
    seq: u64,
    prev: String,
    ordinals: super::super::ordinal::Ordinals,
}

impl Book {
    pub(super) fn new(host: u32) -> Self {
        Self {
            ledger: format!("{host:016x}"),
            host: format!("{host:032x}"),
            boot: format!("{host:08x}-2222-3333-4444-555555555555"),
            lines: Vec::new(),
            seq: 0,
            prev: digest::NO_PREV.to_owned(),
            ordinals: Default::default(),
        }
    }

    /// Who VM number `n` of this host is.
    pub(super) fn who(&self, n: u32) -> String {
        format!("{}2222-{n}-1", &self.boot[..8])
    }

    /// A fact of VM number `n`.
    pub(super) fn vm(&self, kind: Kind, n: u32, unix_ns: u64, mono_ns: u64) -> Draft {
        let mut draft = Draft::new(kind, Subject::Incarnation(self.who(n)), &self.boot, unix_ns, mono_ns);
        draft.vm_id = format!("vm-{n}");
        draft.hypervisor = "qemu".to_owned();
        draft
    }

    /// Writes a line and says its `id`.
    pub(super) fn write(&mut self, draft: &Draft) -> String {
        self.seq += 1;
        let ordinal = match (&draft.subject, draft.kind) {
            (Subject::Ledger, _) => self.seq,
            (_, Kind::VmComputeUsage) => draft.slot_second(),
            (subject, kind) => self.ordinals.count(subject, kind),
        };
        let (seq, recorded_at) = (self.seq, draft.emitted_at);
        let place = Place { ledger: &self.ledger, host: &self.host, seq, ordinal, prev: &self.prev, recorded_at };
        let line = encode(draft, &place).unwrap();
        self.ordinals.note(&draft.subject, draft.kind);
        self.prev = line.chain;
        self.lines.push(line.bytes);
        line.id
    }

    pub(super) fn save(&self, path: &Path) -> PathBuf {
        std::fs::write(path, self.lines.concat()).unwrap();
        path.to_owned()
    }
}

/// How much a synthetic fleet does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fleet {
    pub(super) hosts: u32,
    pub(super) vms: u32,
    pub(super) hours: u64,
    pub(super) heartbeat_s: u64,
}

impl Fleet {
    /// Writes each host's ledger to `<dir>/<host>/ledger.jsonl`: VMs of 1, 2, 4 or 8 vCPUs and two traffic classes that
    /// are busy a part of the time; one in ten stops and begins anew each day. Returns how many lines there are.
    pub(super) fn write(self, dir: &Path) -> u64 {
        let mut lines = 0;
        for host in 0..self.hosts {
            let dir = dir.join(format!("host-{host:04}"));
            std::fs::create_dir_all(&dir).unwrap();
            let mut file = BufWriter::new(File::create(dir.join(FILE_NAME)).unwrap());
            let mut book = Book::new(host);
            let begin = T0 - T0 % (24 * HOUR);
            for n in 0..self.vms {
                book.write(&self.start(&book, n, begin));
            }
            for beat in 1..=self.hours * 3600 / self.heartbeat_s {
                let now = begin + beat * self.heartbeat_s * SECOND + 1_000_000;
                for n in 0..self.vms {
                    let days = beat * self.heartbeat_s / 86_400;
                    let reborn = n % 10 == 9 && (beat * self.heartbeat_s).is_multiple_of(86_400);
                    let (life, kind) = match n % 10 == 9 {
                        true if reborn => (n + self.vms * u32::try_from(days - 1).unwrap(), Kind::VmComputeStop),
                        true => (n + self.vms * u32::try_from(days).unwrap(), Kind::VmComputeUsage),
                        false => (n, Kind::VmComputeUsage),
                    };
                    let since = if n % 10 == 9 { begin + (days - u64::from(reborn)) * 24 * HOUR } else { begin };
                    book.write(&self.beat(&book, (kind, n, life), now, now - since));
                    if reborn {
                        book.write(&self.start(&book, n + self.vms * u32::try_from(days).unwrap(), now));
                    }
                }
                lines += book.lines.len() as u64;
                book.lines.drain(..).for_each(|line| file.write_all(&line).unwrap());
            }
            file.flush().unwrap();
        }
        lines
    }

    fn start(self, book: &Book, life: u32, at: u64) -> Draft {
        let mut draft = book.vm(Kind::VmComputeStart, life, at, at - T0 / 2);
        draft.vm_id = format!("vm-{}", life % self.vms);
        draft.tenant = format!("tenant-{}", life % 7);
        draft.shape = Shape { cpu: 1 << (life % 4), mem_bytes: 2 << 30, storage_bytes: 0 };
        draft
    }

    fn beat(self, book: &Book, (kind, n, life): (Kind, u32, u32), now: u64, age: u64) -> Draft {
        let mut draft = book.vm(kind, life, now, now - T0 / 2);
        draft.vm_id = format!("vm-{n}");
        draft.shape = Shape { cpu: 1 << (life % 4), mem_bytes: 2 << 30, storage_bytes: 0 };
        let part = |of: u64| age / of * u64::from(n % 5 + 1);
        let net = |class: &str, bytes| NetUsage {
            interface: "tap0".into(),
            class: class.into(),
            receive_bytes: bytes,
            receive_packets: bytes / 900,
            transmit_bytes: bytes / 3,
            transmit_packets: bytes / 2700,
        };
        draft.usage = Some(Usage {
            cpu_vcpu_ns: Some(part(10)),
            cpu_vmm_ns: Some(part(100)),
            cpu_io_ns: Some(part(1000)),
            cpu_vhost_ns: Some(0),
            guest_ns: Some(part(12)),
            halt_poll_ns: Some(part(5000)),
            run_delay_ns: Some(part(300)),
            mem_byte_ns: Some(u128::from(age) << 30),
            mem_peak_bytes: Some(1 << 30),
            disk_read_bytes: Some(part(2000)),
            disk_written_bytes: Some(part(3000)),
            net: vec![net("internal", part(50)), net("external", part(70))],
            net_unobserved: vec![],
        });
        draft.coverage = Some(Coverage { observed_ns: age, unobserved_ns: 0, lost_events: 0 });
        draft
    }
}
