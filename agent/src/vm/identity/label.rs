//! Free text from a VM's owner, made safe to publish: the one place where bytes become a label.

/// The longest label, in bytes.
pub const MAX_LABEL_BYTES: usize = 128;

/// `raw` as valid UTF-8 with control characters and broken bytes replaced by U+FFFD, cut to at most
/// [`MAX_LABEL_BYTES`] bytes at a character boundary.
#[must_use]
pub fn label(raw: &[u8]) -> String {
    // Every input byte yields at least one output byte or belongs to a character of at most four, so more input than
    // this cannot show up in the result.
    let head = &raw[..raw.len().min(4 * MAX_LABEL_BYTES)];
    let mut out = String::with_capacity(MAX_LABEL_BYTES);
    for c in String::from_utf8_lossy(head).chars() {
        let c = if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        if out.len() + c.len_utf8() > MAX_LABEL_BYTES {
            break;
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ordinary_text_stays_as_it_is() {
        assert_eq!(label(b"web-1"), "web-1");
        assert_eq!(label("größe 虚拟机".as_bytes()), "größe 虚拟机");
    }

    #[test]
    fn control_characters_and_broken_bytes_are_replaced() {
        assert_eq!(label(b"a\nb\0c\x7f\xff"), "a\u{fffd}b\u{fffd}c\u{fffd}\u{fffd}");
    }

    #[test]
    fn a_long_label_is_cut_between_characters() {
        assert_eq!(label(&[b'x'; 500]).len(), 128);
        assert_eq!(label("€".repeat(100).as_bytes()), "€".repeat(42));
    }

    proptest! {
        #[test]
        fn a_label_is_bounded_and_printable(raw in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let label = label(&raw);
            prop_assert!(label.len() <= MAX_LABEL_BYTES);
            prop_assert!(!label.chars().any(char::is_control));
        }
    }
}
