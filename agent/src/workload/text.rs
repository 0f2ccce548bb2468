//! Prometheus' text format (0.0.4, and OpenMetrics as far as it is the same), read for a few names. Pure; what it reads
//! comes from a guest and may be anything.

use std::collections::HashMap;

/// Series that are looked at.
const MOST_SERIES: usize = 20_000;
/// The quantile of a summary that is taken.
pub(super) const QUANTILE: f64 = 0.95;

/// Why a text has no signal in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TextError {
    /// Not UTF-8.
    #[error("it is not UTF-8")]
    Encoding,
    /// A line of a wanted name cannot be read.
    #[error("line {0} is not of the form name{{label=\"value\"}} number")]
    Line(usize),
    /// Too many.
    #[error("there are more than {MOST_SERIES} series of the names looked for")]
    TooMany,
    /// None of the names.
    #[error("none of the names looked for is there (workload.requests, workload.latency)")]
    Nothing,
}

/// The buckets of one series: upper bound and cumulative count, by bound.
pub(super) type Buckets = Vec<(f64, f64)>;

/// One latency metric.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Latency {
    /// By the labels of the series.
    pub(super) buckets: HashMap<String, Buckets>,
    /// What summaries say themselves.
    pub(super) quantiles: Vec<f64>,
}

/// What an answer says of the names looked for, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Scrape {
    /// Counters, by the labels of their series.
    pub(super) requests: Vec<HashMap<String, f64>>,
    /// Histograms and summaries.
    pub(super) latency: Vec<Latency>,
}

impl Scrape {
    /// The first name of requests that is there.
    pub(super) fn requests_from(&self) -> Option<usize> {
        self.requests.iter().position(|series| !series.is_empty())
    }

    /// The first name of latency that is there.
    pub(super) fn latency_from(&self) -> Option<usize> {
        self.latency.iter().position(|latency| !latency.buckets.is_empty() || !latency.quantiles.is_empty())
    }
}

/// What a sample of this name is to us.
enum Part {
    Request(usize),
    Bucket(usize),
    Quantile(usize),
}

/// Reads an answer.
pub(super) fn read(body: &[u8], requests: &[String], latency: &[String]) -> Result<Scrape, TextError> {
    let text = std::str::from_utf8(body).map_err(|_| TextError::Encoding)?;
    let mut scrape =
        Scrape { requests: vec![HashMap::new(); requests.len()], latency: vec![Latency::default(); latency.len()] };
    let mut series = 0;
    for (at, line) in text.lines().enumerate() {
        let line = line.trim_start();
        let end = line.find(|c: char| c == '{' || c.is_ascii_whitespace()).unwrap_or(line.len());
        let (name, rest) = line.split_at(end);
        let base = |of: &str| latency.iter().position(|one| one == of);
        let parts = [
            requests.iter().position(|one| one == name).map(Part::Request),
            name.strip_suffix("_bucket").and_then(base).map(Part::Bucket),
            base(name).map(Part::Quantile),
        ];
        if parts.iter().all(Option::is_none) {
            continue;
        }
        let (labels, value) = sample(rest).ok_or(TextError::Line(at + 1))?;
        // What is no count is nothing that a rate could be made from.
        if !value.is_finite() || value < 0.0 {
            continue;
        }
        for part in parts.into_iter().flatten() {
            series += 1;
            if series > MOST_SERIES {
                return Err(TextError::TooMany);
            }
            scrape.note(&part, &labels, value);
        }
    }
    for buckets in scrape.latency.iter_mut().flat_map(|latency| latency.buckets.values_mut()) {
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
    }
    if scrape.requests_from().is_none() && scrape.latency_from().is_none() {
        Err(TextError::Nothing)
    } else {
        Ok(scrape)
    }
}

impl Scrape {
    fn note(&mut self, part: &Part, labels: &[(&str, String)], value: f64) {
        let named = |name: &str| labels.iter().find(|(key, _)| *key == name).and_then(|(_, value)| number(value));
        match part {
            Part::Request(place) => {
                if let Some(counters) = self.requests.get_mut(*place) {
                    counters.insert(identity(labels, ""), value);
                }
            }
            Part::Bucket(place) => {
                let (Some(latency), Some(bound)) = (self.latency.get_mut(*place), named("le")) else { return };
                if !bound.is_nan() {
                    latency.buckets.entry(identity(labels, "le")).or_default().push((bound, value));
                }
            }
            Part::Quantile(place) => {
                if let Some(latency) = self.latency.get_mut(*place)
                    && named("quantile") == Some(QUANTILE)
                {
                    latency.quantiles.push(value);
                }
            }
        }
    }
}

/// The labels that tell a series from others of its name.
fn identity(labels: &[(&str, String)], but: &str) -> String {
    let mut text = String::new();
    for (key, value) in labels.iter().filter(|(key, _)| *key != but) {
        text.extend([key, "\u{1}", value, "\u{2}"]);
    }
    text
}

/// Labels and number of a line behind its name.
fn sample(rest: &str) -> Option<(Vec<(&str, String)>, f64)> {
    let (labels, rest) = match rest.trim_start().strip_prefix('{') {
        Some(inside) => braces(inside)?,
        None => (Vec::new(), rest),
    };
    Some((labels, number(rest.split_ascii_whitespace().next()?)?))
}

/// Labels up to the closing brace, and what stands behind it.
fn braces(mut rest: &str) -> Option<(Vec<(&str, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if let Some(behind) = rest.strip_prefix('}') {
            return Some((labels, behind));
        }
        let (key, after) = rest.split_once('=')?;
        let (value, behind) = quoted(after.trim_start().strip_prefix('"')?)?;
        labels.push((key.trim_end(), value));
        rest = behind;
    }
}

/// A text up to its closing quote, its escapes resolved, and what stands behind it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

/// A number as the format writes it.
fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" | "Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        text => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(of: &[&str]) -> Vec<String> {
        of.iter().map(|name| (*name).to_owned()).collect()
    }

    fn of(text: &str) -> Result<Scrape, TextError> {
        read(text.as_bytes(), &names(&["hits_total", "lat_count"]), &names(&["lat"]))
    }

    #[test]
    fn wanted_series_are_read_and_others_passed_over() {
        let scrape = of("# HELP hits_total Hits, \"so\"\n# TYPE hits_total counter\n\
            hits_total{code=\"200\",path=\"/a,}\\\"\\n\\\\\"} 5 1700000000000\nhits_total { code = \"500\" , } 1e2\n\
            other{x=} broken\nhits_total_created 9\nlat_bucket{le=\"0.1\",x=\"1\"} 3\nlat_bucket{x=\"1\",le=\"+Inf\"} 4 # {t=\"1\"} 0.1\n\
            lat{quantile=\"0.95\"} 0.25\nlat{quantile=\"0.5\"} 0.1\nlat_count{x=\"1\"} 4\n# EOF\n")
        .unwrap();
        assert_eq!(scrape.requests[0].len(), 2);
        assert_eq!(scrape.requests[0]["code\u{1}200\u{2}path\u{1}/a,}\"\n\\\u{2}"], 5.0);
        assert_eq!(scrape.requests[1]["x\u{1}1\u{2}"], 4.0);
        assert_eq!(scrape.latency[0].buckets["x\u{1}1\u{2}"], [(0.1, 3.0), (f64::INFINITY, 4.0)]);
        assert_eq!(scrape.latency[0].quantiles, [0.25]);
        assert_eq!((scrape.requests_from(), scrape.latency_from()), (Some(0), Some(0)));
    }

    #[test]
    fn what_cannot_be_read_is_no_signal_and_says_where() {
        assert_eq!(of("ok 1\nhits_total{a=\"b} 5\n"), Err(TextError::Line(2)));
        assert_eq!(of("hits_total five\n"), Err(TextError::Line(1)));
        assert_eq!(of("<html>\n"), Err(TextError::Nothing));
        assert_eq!(of("hits_total NaN\nhits_total{a=\"b\"} -1\n"), Err(TextError::Nothing));
        assert_eq!(read(b"hits_total \xff", &names(&["hits_total"]), &[]), Err(TextError::Encoding));
        let many: String = (0..=MOST_SERIES).map(|n| format!("hits_total{{n=\"{n}\"}} 1\n")).collect();
        assert_eq!(of(&many), Err(TextError::TooMany));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(hits_total|lat_bucket|lat|x)?[ -~\\n\"{}=,\\\\]{0,200}") {
            let _ = of(&text);
        }

        #[test]
        fn labels_of_any_value_are_read_back(value in "\\PC{0,40}", count in 0u32..1_000) {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let scrape = of(&format!("hits_total{{v=\"{escaped}\"}} {count}\n")).unwrap();
            prop_assert_eq!(scrape.requests[0][&format!("v\u{1}{value}\u{2}")], f64::from(count));
        }
    }
}
