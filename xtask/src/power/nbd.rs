//! The protocol by which the emulator reaches a disk that is kept here: NBD, the newstyle handshake and simple replies
//! (<https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>), over a socket, for one client, in order.

use std::io::{Read, Write};

use anyhow::{Context, Result, bail, ensure};

const MAGIC: u64 = 0x4e42_444d_4147_4943;
const HAVE_OPTION: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY: u64 = 0x0003_e889_0455_65a9;
const REQUEST: u32 = 0x2560_9513;
const REPLY: u32 = 0x6744_6698;

/// Fixed newstyle, no padding.
const HANDSHAKE: u16 = 0b11;
const GO: u32 = 7;
const ABORT: u32 = 2;
const ACKNOWLEDGED: u32 = 1;
const INFO: u32 = 3;
const UNSUPPORTED: u32 = 0x8000_0001;
/// There are flags, there is a flush, there is "force unit access".
const EXPORT: u16 = 0b1101;
const FORCE: u16 = 1;
/// An option or a request longer than this is none of a sane client.
const MOST_BYTES: u32 = 32 << 20;
const INVALID: u32 = 22;

/// What a client asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Read { offset: u64, length: u32 },
    Write { offset: u64, bytes: Vec<u8>, force: bool },
    Flush,
}

/// What it is answered.
#[derive(Debug)]
pub(crate) enum Answer {
    Done(Vec<u8>),
    Refused,
    /// The power is gone: nothing is answered any more.
    Off,
}

/// Agrees on the only export, of so many bytes.
pub(crate) fn agree(stream: &mut (impl Read + Write), bytes: u64) -> Result<()> {
    let hello = [&MAGIC.to_be_bytes()[..], &HAVE_OPTION.to_be_bytes(), &HANDSHAKE.to_be_bytes()].concat();
    stream.write_all(&hello)?;
    take::<4>(stream)?;
    loop {
        ensure!(u64::from_be_bytes(take(stream)?) == HAVE_OPTION, "the emulator sends no option");
        let (option, length) = (u32::from_be_bytes(take(stream)?), u32::from_be_bytes(take(stream)?));
        ensure!(length <= MOST_BYTES, "the emulator sends an option of {length} bytes");
        std::io::copy(&mut stream.take(length.into()), &mut std::io::sink())?;
        let mut say = |kind: u32, what: &[u8]| {
            let length = u32::try_from(what.len()).unwrap_or(0).to_be_bytes();
            let head = [&OPTION_REPLY.to_be_bytes()[..], &option.to_be_bytes(), &kind.to_be_bytes(), &length].concat();
            stream.write_all(&[&head, what].concat())
        };
        match option {
            GO => {
                // Information 0: the export's size and what it can do.
                say(INFO, &[&0_u16.to_be_bytes()[..], &bytes.to_be_bytes(), &EXPORT.to_be_bytes()].concat())?;
                return Ok(say(ACKNOWLEDGED, &[])?);
            }
            ABORT => bail!("the emulator does not want the disk"),
            _other => say(UNSUPPORTED, &[])?,
        }
    }
}

/// Answers requests until the client goes or the power does.
pub(crate) fn serve(stream: &mut (impl Read + Write), mut answer: impl FnMut(Request) -> Answer) -> Result<()> {
    while let Some(magic) = next(stream)? {
        ensure!(magic == REQUEST, "the emulator sends no request");
        let (flags, kind) = (u16::from_be_bytes(take(stream)?), u16::from_be_bytes(take(stream)?));
        let cookie = take::<8>(stream)?;
        let (offset, length) = (u64::from_be_bytes(take(stream)?), u32::from_be_bytes(take(stream)?));
        ensure!(length <= MOST_BYTES, "the emulator sends a request of {length} bytes");
        let request = match kind {
            0 => Request::Read { offset, length },
            1 => {
                let mut bytes = vec![0; length as usize];
                stream.read_exact(&mut bytes).context("half a write")?;
                Request::Write { offset, bytes, force: flags & FORCE != 0 }
            }
            2 => return Ok(()),
            3 => Request::Flush,
            _other => bail!("the emulator sends a request of kind {kind}"),
        };
        let (error, bytes) = match answer(request) {
            Answer::Done(bytes) => (0, bytes),
            Answer::Refused => (INVALID, Vec::new()),
            Answer::Off => return Ok(()),
        };
        stream.write_all(&[&REPLY.to_be_bytes()[..], &u32::to_be_bytes(error), &cookie, &bytes].concat())?;
    }
    Ok(())
}

fn take<const N: usize>(stream: &mut impl Read) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).context("the emulator ended within a word of NBD")?;
    Ok(bytes)
}

/// The first word of the next request; none where the client has gone.
fn next(stream: &mut impl Read) -> Result<Option<u32>> {
    let mut bytes = [0; 4];
    match stream.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(u32::from_be_bytes(bytes))),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error).context("cannot read from the emulator"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn request(flags: u16, kind: u16, offset: u64, length: u32, data: &[u8]) -> Vec<u8> {
        let head = [&REQUEST.to_be_bytes()[..], &flags.to_be_bytes(), &kind.to_be_bytes(), b"cookie!!"].concat();
        [&head[..], &offset.to_be_bytes(), &length.to_be_bytes(), data].concat()
    }

    #[test]
    fn requests_come_in_order_and_nothing_is_answered_once_the_power_is_gone() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&request(0, 0, 512, 3, b"")).unwrap();
        theirs.write_all(&request(FORCE, 1, 1024, 2, b"ab")).unwrap();
        theirs.write_all(&request(0, 3, 0, 0, b"")).unwrap();
        let mut seen = Vec::new();
        serve(&mut ours, |request| {
            seen.push(request);
            match seen.len() {
                1 => Answer::Done(b"xyz".to_vec()),
                2 => Answer::Refused,
                _third => Answer::Off,
            }
        })
        .unwrap();
        drop(ours);
        let write = Request::Write { offset: 1024, bytes: b"ab".to_vec(), force: true };
        assert_eq!(seen, [Request::Read { offset: 512, length: 3 }, write, Request::Flush]);
        let mut answers = Vec::new();
        theirs.read_to_end(&mut answers).unwrap();
        assert_eq!(answers, b"\x67\x44\x66\x98\0\0\0\0cookie!!xyz\x67\x44\x66\x98\0\0\0\x16cookie!!");
    }
}
