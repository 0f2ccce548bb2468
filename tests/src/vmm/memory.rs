//! Memory that a test has the VMM take and free while it runs: `hold KIND BYTES`, a line each, over a Unix socket.
//!
//! One region of each kind is held at a time; another size replaces it, 0 frees it. Every page is written before the
//! answer, `ok` or `no WHY`, so the test knows between which two instants the memory changed. Kinds: `anon`, `shared`
//! (`MAP_SHARED`, anonymous), `memfd` (tmpfs), `locked` (`mlock`, not written), `huge` (hugetlb). `swap anon 0` asks the
//! kernel to page that region out.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::load;

const PAGE: usize = 4096;
const PATIENCE: Duration = Duration::from_secs(60);

/// Listens, and obeys in a thread `memory`.
pub fn serve(path: &Path) -> Result<()> {
    let listener = UnixListener::bind(path)
        .with_context(|| format!("--memory-orders: cannot listen on {}; is it there already?", path.display()))?;
    load::spawn("memory".into(), move || {
        let mut held = Held::default();
        for stream in listener.incoming().flatten() {
            if let Err(error) = obey(&mut held, &stream) {
                eprintln!("kvmeter-testvm: --memory-orders: {error:#}");
            }
        }
    })
}

fn obey(held: &mut Held, mut stream: &UnixStream) -> Result<()> {
    for line in BufReader::new(stream).lines() {
        match held.order(&line?) {
            Ok(()) => writeln!(stream, "ok")?,
            Err(why) => writeln!(stream, "no {why:#}")?,
        }
    }
    Ok(())
}

/// What is held, by kind.
#[derive(Default)]
struct Held(BTreeMap<String, Region>);

impl Held {
    fn order(&mut self, line: &str) -> Result<()> {
        let words: Vec<&str> = line.split(' ').collect();
        let [verb, kind, bytes] = words.as_slice() else { bail!("not three words: {line}") };
        let bytes: usize = bytes.parse().with_context(|| format!("not a number of bytes: {bytes}"))?;
        match *verb {
            "hold" => {
                self.0.remove(*kind);
                if bytes > 0 {
                    self.0.insert((*kind).to_owned(), Region::new(kind, bytes)?);
                }
                Ok(())
            }
            "swap" => self.0.get(*kind).with_context(|| format!("no {kind} is held"))?.page_out(),
            _ => bail!("no such order: {verb}"),
        }
    }
}

/// A mapping, gone when dropped.
pub(crate) struct Region {
    start: NonNull<u8>,
    bytes: usize,
    _file: Option<OwnedFd>,
}

// SAFETY: the region belongs to whoever holds this value, and has no tie to a thread.
unsafe impl Send for Region {}

impl Region {
    /// Maps so many bytes of a kind, and writes to each page.
    pub(crate) fn new(kind: &str, bytes: usize) -> Result<Self> {
        let (private, shared) = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, libc::MAP_SHARED);
        let mut file = None;
        let flags = match kind {
            "anon" | "locked" => private,
            "shared" => shared | libc::MAP_ANONYMOUS,
            "huge" => private | libc::MAP_HUGETLB,
            "memfd" => {
                let fd = memfd_create(c"kvmeter-testvm", MFdFlags::MFD_CLOEXEC).context("no memfd")?;
                nix::unistd::ftruncate(&fd, i64::try_from(bytes)?).context("cannot size the memfd")?;
                file = Some(fd);
                shared
            }
            _ => bail!("no such kind: {kind}"),
        };
        let fd = file.as_ref().map_or(-1, |fd: &OwnedFd| fd.as_raw_fd());
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, flags, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error()).with_context(|| format!("cannot map {bytes} bytes of {kind}"));
        }
        let start = NonNull::new(start.cast()).context("mapped at zero")?;
        let region = Self { start, bytes, _file: file };
        if kind == "locked" {
            // SAFETY: the mapping just made.
            let locked = unsafe { libc::mlock(start.as_ptr().cast(), bytes) };
            ensure!(locked == 0, "mlock: {}", std::io::Error::last_os_error());
            return Ok(region);
        }
        if kind != "huge" {
            // SAFETY: as above; so that what is resident is what was written. A kernel without huge pages refuses.
            let _ = unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_NOHUGEPAGE) };
        }
        for offset in (0..bytes).step_by(PAGE) {
            // SAFETY: inside the mapping.
            unsafe { start.as_ptr().add(offset).write_volatile(1) };
        }
        Ok(region)
    }

    fn page_out(&self) -> Result<()> {
        // SAFETY: the mapping; its contents stay.
        let done = unsafe { libc::madvise(self.start.as_ptr().cast(), self.bytes, libc::MADV_PAGEOUT) };
        ensure!(done == 0, "MADV_PAGEOUT: {}", std::io::Error::last_os_error());
        Ok(())
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; nobody refers into it.
        let _ = unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// A test's end of the socket.
#[derive(Debug)]
pub struct Orders(BufReader<UnixStream>);

impl Orders {
    /// Connects to a VMM that was started with this path.
    pub fn connect(path: &Path) -> Result<Self> {
        let end = Instant::now() + PATIENCE;
        loop {
            match UnixStream::connect(path) {
                Ok(stream) => return Ok(Self(BufReader::new(stream))),
                Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
                Err(error) => return Err(error).with_context(|| format!("no VMM listens on {}", path.display())),
            }
        }
    }

    /// Gives an order and waits until it is carried out; an error says why it could not be.
    pub fn give(&mut self, order: &str) -> Result<()> {
        self.0.get_mut().write_all(format!("{order}\n").as_bytes())?;
        let mut answer = String::new();
        self.0.read_line(&mut answer)?;
        match answer.trim().strip_prefix("no ") {
            None if answer == "ok\n" => Ok(()),
            None => bail!("{order}: answered {answer:?}"),
            Some(why) => bail!("{order}: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_that_makes_no_sense_is_refused_by_name() {
        let mut held = Held::default();
        for (order, word) in
            [("hold", "three"), ("hold a b", "number"), ("hold gold 4096", "gold"), ("sell anon 1", "sell")]
        {
            assert!(format!("{:#}", held.order(order).unwrap_err()).contains(word), "{order}");
        }
        held.order("hold anon 8192").unwrap();
        held.order("hold anon 0").unwrap();
        assert!(held.0.is_empty());
    }
}
