//! Text and numbers for a terminal: nothing that others wrote can steer it, and every number fits in six columns.

pub use crate::cli::table::plain;
use crate::cli::table::steers;

/// JSON in which nothing that steers a terminal stands as itself: what JSON lets through is escaped.
#[must_use]
pub fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if steers(c) {
            out += &format!("\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// A percentage; `-` for what was not measured.
#[must_use]
pub fn percent(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value < 1_000.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.0}"),
    }
}

/// Bytes in three digits and a letter, powers of 1024; `-` for what was not measured.
#[must_use]
pub fn bytes(value: Option<f64>) -> String {
    let Some(mut value) = value else { return "-".to_owned() };
    let mut units = ["", "K", "M", "G", "T", "P"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    while value >= 999.5
        && let Some(next) = units.next()
    {
        (value, unit) = (value / 1024.0, next);
    }
    match value {
        _ if unit.is_empty() => format!("{value:.0}"),
        v if v < 9.995 => format!("{v:.2}{unit}"),
        v if v < 99.95 => format!("{v:.1}{unit}"),
        v => format!("{v:.0}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_short() {
        let shown: Vec<_> = [0.0, 999.0, 1024.0, 10_240.0, 1e9].map(|n| bytes(Some(n))).into();
        assert_eq!(shown, ["0", "999", "1.00K", "10.0K", "954M"]);
        assert_eq!((bytes(None), percent(None), percent(Some(12.34))), ("-".into(), "-".into(), "12.3".into()));
    }

    proptest! {
        #[test]
        fn nothing_that_others_wrote_steers_a_terminal(chars in proptest::collection::vec(any::<char>(), 0..40)) {
            let text: String = chars.into_iter().chain("\u{1b}\u{9b}\u{7f}\u{202e}".chars()).collect();
            prop_assert!(!plain(&text).chars().any(char::is_control));
            let json = serde_json::to_string(&text).unwrap();
            let safe = escaped(&json);
            prop_assert!(!safe.chars().any(steers));
            prop_assert_eq!(serde_json::from_str::<String>(&safe).unwrap(), text);
        }

        #[test]
        fn a_number_fits_in_six_columns(value in 0.0..1e17f64) {
            prop_assert!(bytes(Some(value)).len() <= 6);
        }
    }
}
