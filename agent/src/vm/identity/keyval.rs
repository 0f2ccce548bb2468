//! The `key=value,key=value` syntax of VMM options, with QEMU's escaping: `,,` is a comma inside a value.

/// The pairs of `raw` in order; a first part without `=` is the value of `implied`, a later one is a key with an empty
/// value.
pub(super) fn pairs(raw: &[u8], implied: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    parts(raw)
        .into_iter()
        .enumerate()
        .map(|(at, part)| match part.iter().position(|b| *b == b'=') {
            Some(equals) => (part[..equals].to_vec(), part[equals + 1..].to_vec()),
            None if at == 0 => (implied.to_vec(), part),
            None => (part, Vec::new()),
        })
        .collect()
}

/// The value of the last pair with this key.
pub(super) fn last<'a>(pairs: &'a [(Vec<u8>, Vec<u8>)], key: &str) -> Option<&'a [u8]> {
    pairs.iter().rfind(|(name, _)| name == key.as_bytes()).map(|(_, value)| value.as_slice())
}

/// Splits at single commas, turning double ones into one.
fn parts(raw: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    let mut bytes = raw.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte == b',' && bytes.next_if_eq(&b',').is_none() {
            parts.push(Vec::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(byte);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(raw: &str) -> Vec<(String, String)> {
        let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
        pairs(raw.as_bytes(), b"first").into_iter().map(|(k, v)| (text(k), text(v))).collect()
    }

    #[test]
    fn a_doubled_comma_is_a_comma_in_the_value() {
        assert_eq!(shown("guest=a,,b,debug=on"), [("guest".into(), "a,b".into()), ("debug".into(), "on".into())]);
        assert_eq!(shown("x,,,y"), [("first".into(), "x,".into()), ("y".into(), String::new())]);
    }

    #[test]
    fn only_the_first_part_may_leave_out_its_key() {
        assert_eq!(shown("4,maxcpus=8"), [("first".into(), "4".into()), ("maxcpus".into(), "8".into())]);
        assert_eq!(shown(""), [("first".into(), String::new())]);
    }

    #[test]
    fn the_last_of_equal_keys_wins() {
        assert_eq!(last(&pairs(b"a=1,b=2,a=3", b"x"), "a"), Some(b"3".as_slice()));
        assert_eq!(last(&pairs(b"a=1", b"x"), "b"), None);
    }
}
