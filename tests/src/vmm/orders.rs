//! Work that a test orders while the VM runs, one line each over a Unix socket, answered by `ok` once it is done:
//! storage and sockets that a test knows to the byte.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::{end, load};

/// What O_DIRECT wants of an address, and what is moved at once.
const ALIGNMENT: usize = 4096;
const PIECE: usize = 1 << 20;

/// Starts a thread `orders` that takes them from this socket.
pub fn start(socket: &Path) -> Result<()> {
    let stream = UnixStream::connect(socket).with_context(|| format!("--orders: no one at {}", socket.display()))?;
    load::spawn("orders".into(), move || {
        if let Err(error) = obey(&stream) {
            eprintln!("kvmeter-testvm: --orders: {error:#}");
            end::leave(1);
        }
    })
}

fn obey(stream: &UnixStream) -> Result<()> {
    let mut held = HashMap::new();
    for line in BufReader::new(stream).lines() {
        let line = line?;
        one(&line, &mut held).with_context(|| format!("order {line:?}"))?;
        (&*stream).write_all(b"ok\n")?;
    }
    Ok(())
}

fn one(line: &str, held: &mut HashMap<String, Vec<File>>) -> Result<()> {
    if let Some(line) = line.strip_prefix("thread ") {
        // In a thread that has ended, for everybody, once it is joined.
        let line = line.to_owned();
        let done = std::thread::spawn(move || one(&line, &mut HashMap::new())).join();
        return done.unwrap_or_else(|_| bail!("it panicked"));
    }
    match line.split(' ').collect::<Vec<_>>().as_slice() {
        ["open", path, flags] => held.entry((*path).to_owned()).or_default().push(open(path, flags)?),
        ["close", path] => drop(held.remove(*path)),
        ["write", path, bytes, flags] => write(&open(path, flags)?, bytes.parse()?)?,
        ["read", path, bytes, flags] => read(&open(path, flags)?, bytes.parse()?)?,
        ["tcp", address, count, bytes] => tcp(address, count.parse()?, bytes.parse()?)?,
        ["udp", address, count, bytes] => udp(address, count.parse()?, bytes.parse()?)?,
        ["exit", code] => end::leave(code.parse()?),
        _ => bail!("not known"),
    }
    Ok(())
}

/// Flags: `ro` or `rw`, then `direct` and `sync`, with commas between.
fn open(path: &str, flags: &str) -> Result<File> {
    let has = |flag| flags.split(',').any(|word| word == flag);
    let direct = if has("direct") { libc::O_DIRECT } else { 0 } | if has("sync") { libc::O_SYNC } else { 0 };
    Ok(OpenOptions::new().read(true).write(has("rw")).custom_flags(direct).open(path)?)
}

/// A buffer that begins where O_DIRECT wants it.
fn aligned(buffer: &mut Vec<u8>) -> Result<&mut [u8]> {
    buffer.resize(PIECE + ALIGNMENT, 0x5a);
    let at = buffer.as_ptr().align_offset(ALIGNMENT);
    buffer.get_mut(at..at + PIECE).context("no aligned address")
}

fn write(file: &File, bytes: usize) -> Result<()> {
    let mut buffer = Vec::new();
    let piece = aligned(&mut buffer)?;
    for at in (0..bytes).step_by(PIECE) {
        file.write_all_at(&piece[..PIECE.min(bytes - at)], at as u64)?;
    }
    Ok(file.sync_all()?)
}

fn read(file: &File, bytes: usize) -> Result<()> {
    let mut buffer = Vec::new();
    let piece = aligned(&mut buffer)?;
    for at in (0..bytes).step_by(PIECE) {
        file.read_exact_at(&mut piece[..PIECE.min(bytes - at)], at as u64)?;
    }
    Ok(())
}

/// Sends so many pieces, each after the last was answered by a byte: one segment each, so that nothing is cut up on its
/// way. Waits for the other end to close first.
fn tcp(address: &str, count: u32, bytes: usize) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    for _ in 0..count {
        stream.write_all(&vec![1; bytes])?;
        stream.read_exact(&mut [0])?;
    }
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest)?;
    ensure!(rest.is_empty(), "more answers than questions");
    Ok(())
}

/// Sends so many datagrams, each after the last was answered by one.
fn udp(address: &str, count: u32, bytes: usize) -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(address)?;
    for _ in 0..count {
        socket.send(&vec![2; bytes])?;
        let length = socket.recv(&mut [0; 65_536])?;
        ensure!(length > 0, "an empty answer");
    }
    Ok(())
}
