//! Many readers of server-sent events in one thread: each event is taken apart and counted, so that nothing is read that
//! was not told, and nothing told that is not read.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::SystemTime,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::{
    errno::Errno,
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        resource::{Resource, getrlimit, setrlimit},
    },
};

/// What one reader was told while it counted.
#[derive(Clone, Debug, Default)]
pub struct Got {
    /// Events with an id.
    pub events: u64,
    /// How many it was told it lost.
    pub lost: u64,
}

/// What all of them were told.
#[derive(Debug, Default)]
pub struct Told {
    /// Each reader.
    pub each: Vec<Got>,
    /// From the instant that an id names, where ids are Unix milliseconds, to its event's arrival; milliseconds.
    pub delays_ms: Vec<f64>,
}

/// Readers at work.
pub struct Subscribers {
    thread: JoinHandle<Result<Told>>,
    counting: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

struct Reader {
    stream: TcpStream,
    /// What came and was not a whole line yet.
    rest: Vec<u8>,
    in_head: bool,
    last_id: u64,
    dropped: bool,
    got: Got,
}

impl Subscribers {
    /// Opens a stream for each path and begins to read; the answers' heads are waited for. `ids_are_times` says that ids
    /// are Unix milliseconds.
    pub fn open(port: u16, paths: &[String], ids_are_times: bool) -> Result<Self> {
        // One descriptor each.
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut readers = Vec::new();
        for (place, path) in (0..).zip(paths) {
            let mut stream = TcpStream::connect(("127.0.0.1", port))?;
            write!(stream, "GET {path} HTTP/1.0\r\nHost: kvmeter\r\n\r\n")?;
            stream.set_nonblocking(true)?;
            epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, place))?;
            let rest = Vec::new();
            readers.push(Reader { stream, rest, in_head: true, last_id: 0, dropped: false, got: Got::default() });
        }
        let (counting, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (shared, told_to_stop) = (Arc::clone(&counting), Arc::clone(&stop));
        let thread = std::thread::spawn(move || read(&epoll, readers, &shared, &told_to_stop, ids_are_times));
        Ok(Self { thread, counting, stop })
    }

    /// Counts from now on, or no more.
    pub fn count(&self, on: bool) {
        self.counting.store(on, Relaxed);
    }

    /// Closes all streams.
    pub fn close(self) -> Result<Told> {
        self.stop.store(true, Relaxed);
        self.thread.join().map_err(|_| anyhow!("the readers panicked"))?
    }
}

fn read(
    epoll: &Epoll,
    mut readers: Vec<Reader>,
    counting: &AtomicBool,
    stop: &AtomicBool,
    ids_are_times: bool,
) -> Result<Told> {
    let (mut events, mut buffer) = (vec![EpollEvent::empty(); 256], vec![0; 64 << 10]);
    let mut delays_ms = Vec::new();
    while !stop.load(Relaxed) {
        let ready = match epoll.wait(&mut events, EpollTimeout::from(100u8)) {
            // A process that was stopped and goes on.
            Err(Errno::EINTR) => 0,
            ready => ready?,
        };
        for event in &events[..ready] {
            let reader = readers.get_mut(usize::try_from(event.data())?).context("an event of nobody")?;
            let length = match reader.stream.read(&mut buffer) {
                Ok(0) => bail!("the agent closed a stream"),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            };
            let delays = (counting.load(Relaxed), ids_are_times.then_some(&mut delays_ms));
            reader.take(&buffer[..length], delays.0, delays.1)?;
        }
    }
    ensure!(readers.iter().all(|reader| !reader.in_head), "not every stream was answered");
    Ok(Told { each: readers.into_iter().map(|reader| reader.got).collect(), delays_ms })
}

impl Reader {
    fn take(&mut self, bytes: &[u8], counting: bool, mut delays: Option<&mut Vec<f64>>) -> Result<()> {
        self.rest.extend_from_slice(bytes);
        let whole = std::mem::take(&mut self.rest);
        let mut lines = whole.split_inclusive(|byte| *byte == b'\n').peekable();
        while let Some(line) = lines.next() {
            if lines.peek().is_none() && !line.ends_with(b"\n") {
                self.rest = line.to_vec();
                break;
            }
            self.line(std::str::from_utf8(line)?.trim_end(), counting, delays.as_deref_mut())?;
        }
        Ok(())
    }

    fn line(&mut self, line: &str, counting: bool, delays: Option<&mut Vec<f64>>) -> Result<()> {
        if self.in_head {
            ensure!(!line.starts_with("HTTP/") || line.contains(" 200 "), "no stream: {line}");
            self.in_head = !line.is_empty();
            return Ok(());
        }
        match line.split_once(": ") {
            Some(("event", name)) => {
                ensure!(name != "end", "a stream of a VM that lives has ended");
                self.dropped = name == "dropped";
            }
            Some(("id", id)) => {
                let id = id.parse()?;
                ensure!(id > self.last_id, "{id} comes behind {}", self.last_id);
                self.last_id = id;
                self.got.events += u64::from(counting);
                if let Some(delays) = delays.filter(|_| counting) {
                    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
                    delays.push(now.as_secs_f64() * 1e3 - id as f64);
                }
            }
            Some(("data", data)) if self.dropped => {
                let told: serde_json::Value = serde_json::from_str(data)?;
                self.got.lost += told["count"].as_u64().context("no count of what was lost")?;
            }
            _ => {}
        }
        Ok(())
    }
}
