//! Numbers as they are written.

/// Below this a whole number is an `f64` without rounding.
pub const WHOLE: u64 = 1 << 53;
const SECOND: u64 = 1_000_000_000;

/// A whole number.
#[inline]
pub fn whole(text: &mut Vec<u8>, number: u64) {
    // Most of a host's numbers have one digit, and what follows makes a place for twenty.
    if let Some(digit) = u8::try_from(number).ok().filter(|number| *number < 10) {
        return text.push(b'0' + digit);
    }
    text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Nanoseconds, as seconds to the last of them without zeros at the end.
#[inline]
pub fn time(text: &mut Vec<u8>, ns: u64) {
    whole(text, ns / SECOND);
    let rest = ns % SECOND;
    if rest > 0 {
        // With a one before it, it has its zeros; the point stands where that was.
        let point = text.len();
        whole(text, SECOND + rest);
        text[point] = b'.';
        while text.ends_with(b"0") {
            text.pop();
        }
    }
}

/// Any number; one that is whole has no point.
pub fn real(text: &mut Vec<u8>, value: f64) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "compared with what it was")]
    let number = value as u64;
    if number < WHOLE && number as f64 == value {
        return whole(text, number);
    }
    let mut digits = zmij::Buffer::new();
    text.extend_from_slice(match value {
        _ if value.is_finite() => digits.format_finite(value).as_bytes(),
        _ if value.is_nan() => b"NaN",
        _ if value > 0.0 => b"+Inf",
        _ => b"-Inf",
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::expose::family::{seconds, shown};

    fn of_ns(ns: u64) -> String {
        let mut text = Vec::new();
        time(&mut text, ns);
        String::from_utf8(text).unwrap()
    }

    proptest! {
        #[test]
        fn a_time_is_written_to_the_nanosecond_and_reads_as_the_nearest_number(ns in any::<u64>()) {
            let text = of_ns(ns);
            let (whole, rest) = text.split_once('.').unwrap_or((&text, ""));
            let told = whole.parse::<u64>().unwrap() * SECOND + format!("{rest:0<9}").parse::<u64>().unwrap();
            prop_assert_eq!(told, ns);
            // So many are an `f64` each.
            let small = ns >> 11;
            prop_assert_eq!(of_ns(small).parse::<f64>().unwrap(), seconds(small));
        }

        #[test]
        fn every_number_is_told_to_its_last_bit(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            let told: f64 = shown(value).parse().unwrap();
            prop_assert!(told == value || (told.is_nan() && value.is_nan()), "{}", told);
            let mut text = Vec::new();
            whole(&mut text, bits);
            prop_assert_eq!(text, bits.to_string().into_bytes());
        }
    }

    #[test]
    fn numbers_that_are_whole_have_no_point_and_others_are_told_to_their_last_bit() {
        let all = [0.0, -0.0, 7.0, 9_007_199_254_740_991.0, 0.1, 1.5e-9, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
        let all = all.map(shown);
        assert_eq!(all, ["0", "0", "7", "9007199254740991", "0.1", "1.5e-9", "+Inf", "-Inf", "NaN"]);
        assert_eq!(shown(1e300).parse::<f64>().unwrap(), 1e300);
        for long in [f64::MIN, -f64::MIN_POSITIVE, -1.234_567_890_123_456_7e-300] {
            assert_eq!(shown(long).parse::<f64>().unwrap(), long);
        }
        let times = [0, 1, 999_999_999, 1_000_000_000, 1_500_000_000, u64::MAX].map(of_ns);
        assert_eq!(times, ["0", "0.000000001", "0.999999999", "1", "1.5", "18446744073.709551615"]);
    }
}
