//! Laws of recorders.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const SOON: Duration = Duration::from_secs(30);

/// Takes this many bytes, then fails once.
#[derive(Clone, Default)]
struct Pipe(Arc<Mutex<(Vec<u8>, Option<usize>)>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (taken, room) = &mut *self.0.lock().unwrap();
        let fits = room.map_or(bytes.len(), |room| room.saturating_sub(taken.len()).min(bytes.len()));
        if fits == 0 {
            *room = None;
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        taken.extend_from_slice(&bytes[..fits]);
        Ok(fits)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn options() -> Options {
    Options { linger: Duration::from_millis(5), retry_min: Duration::from_millis(1), ..Options::default() }
}

fn emitted_by_many(recorder: &dyn Recorder) {
    std::thread::scope(|threads| {
        for thread in 0..8 {
            threads.spawn(move || (0..250).for_each(|n| recorder.emit(vm(Kind::VmIdentity, thread, n))));
        }
    });
}

#[test]
fn the_file_keeps_what_many_threads_emit_at_once() {
    let (_root, dir) = fresh_dir();
    let writer = Writer::spawn(open(&dir).0, options(), Box::new(|| at(50)), Box::new(|_| ())).unwrap();
    emitted_by_many(&writer.handle());
    writer.shutdown(SOON).unwrap();
    let all = lines(&dir);
    assert_eq!(all.len(), 2_000);
    for thread in 0..8 {
        let own = all.iter().filter(|line| line.fact.vm_id == format!("vm-{thread}"));
        assert!(own.map(|line| line.fact.mono_ns).is_sorted(), "a thread's facts keep their order");
    }
    assert_eq!(all.last().unwrap().seq, 2_000);
}

#[test]
fn memory_keeps_everything_until_it_is_reset_and_discarding_nothing() {
    let memory = MemoryRecorder::default();
    emitted_by_many(&Arc::new(memory.clone()));
    assert_eq!(memory.entries().len(), 2_000);
    memory.reset();
    assert_eq!(memory.entries(), []);
    day().into_iter().for_each(|fact| memory.emit(fact));
    assert_eq!(memory.entries(), day());
    emitted_by_many(&DiscardRecorder);
}

#[test]
fn a_stream_gets_whole_lines_that_prove_themselves() {
    let pipe = Pipe::default();
    let (journal, found) = Journal::on_stream(pipe.clone(), "a pipe", HOST).unwrap();
    assert_eq!((found.next_seq, found.open.len(), found.last), (1, 0, None));
    let writer = Writer::spawn(journal, options(), Box::new(|| at(50)), Box::new(|_| ())).unwrap();
    day().into_iter().for_each(|fact| writer.handle().emit(fact));
    writer.shutdown(SOON).unwrap();
    let text = pipe.0.lock().unwrap().0.clone();
    let (_root, dir) = fresh_dir();
    fs::create_dir_all(&dir).unwrap();
    fs::write(file(&dir), text).unwrap();
    assert_eq!(verified(&dir).exit_code(), 0, "kept in a file it is a ledger");
    assert_eq!(lines(&dir).len(), 15);
}

#[test]
fn a_stream_that_fails_is_told_the_lines_again_on_a_line_of_their_own() {
    let pipe = Pipe::default();
    pipe.0.lock().unwrap().1 = Some(700);
    let (journal, _) = Journal::on_stream(pipe.clone(), "a pipe", HOST).unwrap();
    let writer = Writer::spawn(journal, options(), Box::new(|| at(50)), Box::new(|_| ())).unwrap();
    day().into_iter().for_each(|fact| writer.handle().emit(fact));
    let handle = writer.handle();
    writer.shutdown(SOON).unwrap();
    assert_eq!(handle.stats().write_failures[&Op::Write], 1, "and it is counted");
    let text = pipe.0.lock().unwrap().0.clone();
    let whole: Vec<Line> = text.split(|b| *b == b'\n').filter_map(|line| Line::parse(line).ok()).collect();
    let seqs: std::collections::BTreeSet<u64> = whole.iter().map(|line| line.seq).collect();
    assert_eq!(seqs, (1..=15).collect(), "each is there whole");
}

#[test]
fn an_entry_writes_itself_as_the_line_has_it_but_for_what_a_ledger_assigns() {
    for fact in day() {
        let mut text = Vec::new();
        fact.write_to(&mut text).unwrap();
        let own: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&text).unwrap();
        let place = Place {
            ledger: "00112233aabbccdd",
            host: HOST,
            seq: 5,
            ordinal: 0,
            prev: &"0".repeat(64),
            recorded_at: T0,
        };
        let mut line: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&encode(&fact, &place).unwrap().bytes).unwrap();
        for key in ["ledger", "seq", "id", "host", "recorded_at", "prev", "sum"] {
            assert!(line.shift_remove(key).is_some() && !own.contains_key(key), "{key}");
        }
        assert_eq!(own, line);
        assert!(own.keys().eq(line.keys()), "in the same order");
    }
}

proptest! {
    #[test]
    fn whatever_an_entry_holds_it_is_one_line_of_json(
        name in "\\PC{0,300}|[\\x00-\\x20\"\\\\]{0,50}", label in "\\PC{0,20000}", kind in proptest::sample::select(Kind::ALL.to_vec()),
    ) {
        let mut fact = vm(kind, 1, 1);
        fact.name = name;
        fact.labels.insert("label".to_owned(), label);
        let mut text = Vec::new();
        fact.write_to(&mut text).unwrap();
        prop_assert!(text.len() <= LINE_MAX_BYTES);
        prop_assert_eq!(text.iter().position(|b| *b == b'\n'), Some(text.len() - 1));
        let read: serde_json::Value = serde_json::from_slice(&text).unwrap();
        prop_assert_eq!(read["kind"].as_str(), Some(kind.as_str()));
    }
}
