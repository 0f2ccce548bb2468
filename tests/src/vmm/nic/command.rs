//! What a test may tell a NIC: one line, commands divided by `;`, done in order, answered by one line.
//!
//! * `frame SLOT VNET BYTES`: puts a frame (hexadecimal, as is its virtio_net_hdr) into a slot of guest memory
//! * `send SLOT COUNT [QUEUE]`: has the program send it so often; without a queue a batch to each in turn
//! * `flood SLOT [QUEUE]`: the same until the next line comes, which is then done
//! * `drain`: has the program receive all that waits; `receive COUNT`: so many, waiting up to 30 s
//! * `listen on|off`: receive whenever something comes and nothing else is to do; on at the start without a control socket
//! * `open`, `close`: the queues; `counters`: what the program says it sent and received
//!
//! The answer is a JSON array with an object for each command; the first that fails ends the line with `{"error":…}`.

use anyhow::{Context as _, Result, bail};

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `frame`.
    Frame {
        /// Where to.
        slot: u64,
        /// Header.
        vnet: Vec<u8>,
        /// Frame.
        bytes: Vec<u8>,
    },
    /// `send`, and `flood` without a count.
    Send {
        /// Which frame.
        slot: u64,
        /// How often.
        count: Option<u64>,
        /// By which queue alone.
        queue: Option<usize>,
    },
    /// `drain`, and `receive` with a count.
    Receive(Option<u64>),
    /// `listen`.
    Listen(bool),
    /// `open`.
    Open,
    /// `close`.
    Close,
    /// `counters`.
    Counters,
}

impl Command {
    /// The commands of a line.
    pub fn line(text: &str) -> Result<Vec<Self>> {
        let each = text.split(';').map(|part| Self::parse(part).with_context(|| format!("`{}`", short(part))));
        each.collect()
    }

    fn parse(text: &str) -> Result<Self> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        Ok(match words.as_slice() {
            ["frame", slot, vnet, bytes] => Self::Frame { slot: slot.parse()?, vnet: hex(vnet)?, bytes: hex(bytes)? },
            ["send", slot, count] => Self::Send { slot: slot.parse()?, count: Some(count.parse()?), queue: None },
            ["send", slot, count, queue] => {
                Self::Send { slot: slot.parse()?, count: Some(count.parse()?), queue: Some(queue.parse()?) }
            }
            ["flood", slot] => Self::Send { slot: slot.parse()?, count: None, queue: None },
            ["flood", slot, queue] => Self::Send { slot: slot.parse()?, count: None, queue: Some(queue.parse()?) },
            ["drain"] => Self::Receive(None),
            ["receive", count] => Self::Receive(Some(count.parse()?)),
            ["listen", "on"] => Self::Listen(true),
            ["listen", "off"] => Self::Listen(false),
            ["open"] => Self::Open,
            ["close"] => Self::Close,
            ["counters"] => Self::Counters,
            _ => bail!("no such command; see tests/src/vmm/nic/command.rs"),
        })
    }
}

/// Bytes as hexadecimal text.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

fn hex(text: &str) -> Result<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let pairs = text.as_bytes().chunks(2);
    let each = pairs.map(|pair| match pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    });
    each.collect::<Option<_>>().context("not hexadecimal, two digits a byte")
}

fn short(text: &str) -> &str {
    text.get(..40).unwrap_or(text).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_commands_in_order() {
        let line = Command::line("open; send 3 5 1;close").unwrap();
        assert_eq!(line, [Command::Open, Command::Send { slot: 3, count: Some(5), queue: Some(1) }, Command::Close]);
        let frame = Command::Frame { slot: 0, vnet: vec![0], bytes: vec![0xa0, 0x0b] };
        assert_eq!(Command::line("frame 0 00 a00b").unwrap(), [frame]);
        assert_eq!(to_hex(&[0xa0, 0x0b]), "a00b");
    }

    #[test]
    fn a_bad_command_is_named() {
        for bad in ["", "send", "send x 1", "frame 0 00 abc", "listen", "open;shut"] {
            let error = format!("{:#}", Command::line(bad).unwrap_err());
            assert!(error.contains(bad.split(';').next_back().unwrap()), "{bad}: {error}");
        }
    }
}
