//! One family about VMs, gathered before it is written: of whom each line is, what its labels end with, its number.
//!
//! So that a VM is looked at once for all families: what 1,000 VMs are known by is more than a CPU's cache holds.

use kvmeter_common::limits::BUCKETS;

use super::{Part, label, number, seconds, shown, texts::Texts};
use crate::expose::{catalog::Metric, known::Known};

/// The two labels that every series of a VM begins with.
pub const OF_VM: usize = 2;
/// Lines of a VM that room is made for.
const MOST_RESERVED: usize = 16;

/// One line.
struct Line {
    vm: u32,
    ending: u32,
    /// As its part has it: whole, nanoseconds, or the bits of an `f64`.
    number: u64,
}

/// An ending of one word.
struct Word {
    part: Part,
    word: &'static str,
    ending: u32,
}

/// A family under construction.
pub struct Column {
    metric: &'static Metric,
    lines: Vec<Line>,
    /// The VM whose series come.
    vm: u32,
    /// What stands between a VM's labels and a number: which part of the family that makes the line, and its text.
    parts: Vec<Part>,
    endings: Texts,
    /// Endings without another label, by part.
    bare: [Option<u32>; Part::ALL.len()],
    /// Those of a histogram's buckets.
    buckets: Vec<u32>,
    /// Those of words.
    words: Vec<Word>,
    /// Which of them comes next, if a VM has the same as the one before.
    next: usize,
}

impl Column {
    /// An empty family of a row about VMs.
    #[must_use]
    pub const fn new(metric: &'static Metric) -> Self {
        Self {
            metric,
            lines: Vec::new(),
            vm: 0,
            parts: Vec::new(),
            endings: Texts::new(),
            bare: [None; Part::ALL.len()],
            buckets: Vec::new(),
            words: Vec::new(),
            next: 0,
        }
    }

    /// The place of the VM whose series come now.
    pub const fn vm(&mut self, place: u32) {
        self.vm = place;
    }

    /// Makes room for so many VMs with as many series as the first has, where those are as few as most have.
    pub fn reserve(&mut self, vms: usize) {
        let each = self.lines.len().min(MOST_RESERVED);
        self.lines.reserve_exact(each.saturating_mul(vms.saturating_sub(1)));
    }

    /// Adds a series with no label but the VM's.
    #[inline]
    pub fn push(&mut self, number: u64) {
        let ending = self.bare(Part::Whole);
        self.line(ending, number);
    }

    /// Adds one of a number that may have a fraction.
    #[inline]
    pub fn push_real(&mut self, value: f64) {
        let ending = self.bare(Part::Real);
        self.line(ending, value.to_bits());
    }

    /// Adds a series of 1 whose labels behind those of the VM are what else it is known by.
    #[inline]
    pub fn push_known(&mut self) {
        let ending = self.bare(Part::Known);
        self.line(ending, 1);
    }

    /// Adds a series of time, nanoseconds, which Prometheus wants as seconds: written to the last of them.
    #[inline]
    pub fn push_ns(&mut self, ns: u64) {
        let ending = self.bare(Part::Time);
        self.line(ending, ns);
    }

    /// Adds a series; `word` is the value of the row's label behind those of the VM.
    #[inline]
    pub fn push_word(&mut self, word: &'static str, number: u64) {
        let ending = self.word(Part::Whole, word);
        self.line(ending, number);
    }

    /// Adds a series of time, likewise.
    #[inline]
    pub fn push_word_ns(&mut self, word: &'static str, ns: u64) {
        let ending = self.word(Part::Time, word);
        self.line(ending, ns);
    }

    /// Adds a series; `values` in the order of the row's labels, those of the VM left out. For those that no other VM has.
    pub fn push_of(&mut self, values: &[&str], number: u64) {
        let ending = self.ending(Part::Whole, values, None);
        self.line(ending, number);
    }

    /// Adds a series of time, likewise.
    pub fn push_ns_of(&mut self, values: &[&str], ns: u64) {
        let ending = self.ending(Part::Time, values, None);
        self.line(ending, ns);
    }

    /// Adds a histogram of times, nanoseconds: how many there were up to each bound and beyond the last, and their sum.
    /// The bounds are those of all VMs.
    pub fn push_histogram(&mut self, bounds_ns: &[u64; BUCKETS - 1], counts: &[u64; BUCKETS], sum_ns: u64) {
        if self.buckets.is_empty() {
            let bounds = bounds_ns.iter().map(|bound| shown(seconds(*bound))).chain(["+Inf".to_owned()]);
            self.buckets = bounds.map(|bound| self.ending(Part::Bucket, &[], Some(&bound))).collect();
        }
        let (vm, mut all) = (self.vm, 0_u64);
        self.lines.extend(self.buckets.iter().zip(counts).map(|(ending, count)| {
            all += count;
            Line { vm, ending: *ending, number: all }
        }));
        let [sum, count] = [Part::Sum, Part::Count].map(|part| self.bare(part));
        self.line(sum, sum_ns);
        self.line(count, all);
    }

    #[inline]
    fn line(&mut self, ending: u32, number: u64) {
        self.lines.push(Line { vm: self.vm, ending, number });
    }

    #[inline]
    fn bare(&mut self, part: Part) -> u32 {
        self.bare[part as usize].unwrap_or_else(|| {
            let ending = self.ending(part, &[], None);
            self.bare[part as usize] = Some(ending);
            ending
        })
    }

    #[inline]
    fn word(&mut self, part: Part, word: &'static str) -> u32 {
        let due = self.words.get(self.next).filter(|due| due.is(part, word)).map(|due| due.ending);
        let ending = due.unwrap_or_else(|| self.search(part, word));
        self.next = if self.next + 1 < self.words.len() { self.next + 1 } else { 0 };
        ending
    }

    /// A word that is not the one due, maybe the first of its kind.
    fn search(&mut self, part: Part, word: &'static str) -> u32 {
        self.next = self.words.iter().position(|known| known.is(part, word)).unwrap_or_else(|| {
            let ending = self.ending(part, &[word], None);
            self.words.push(Word { part, word, ending });
            self.words.len() - 1
        });
        self.words[self.next].ending
    }

    /// A new ending.
    fn ending(&mut self, part: Part, values: &[&str], bound: Option<&str>) -> u32 {
        let names = self.metric.labels.iter().skip(OF_VM).copied();
        let labels = names.zip(values.iter().copied()).chain(bound.map(|bound| ("le", bound)));
        self.parts.push(part);
        let place = self.endings.push(|text| end(text, labels));
        // So many lines no memory holds.
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    /// Writes lines from the one at `from` on until the text is as long as `most` or the family at its end; the line that is next.
    #[must_use]
    pub fn write(&self, from: usize, most: usize, known: &Known, text: &mut Vec<u8>) -> Option<usize> {
        let heads = Part::ALL.map(|part| [self.metric.name, part.as_str(), "{"].concat());
        // What the line before begins with, and where that stands.
        let (mut before, mut start) = (None, 0..0);
        for (line, place) in self.lines[from..].iter().zip(from..) {
            if text.len() >= most {
                return Some(place);
            }
            if place == 0 {
                self.metric.begin(text);
            }
            let (vm, ending) = (line.vm as usize, line.ending as usize);
            let part = self.parts[ending];
            let (begin, begins) = (text.len(), Some((vm, part)));
            if before == begins {
                text.extend_from_within(start);
            } else {
                text.extend_from_slice(heads[part as usize].as_bytes());
                text.extend_from_slice(known.labels.of(vm));
                before = begins;
            }
            start = begin..text.len();
            text.extend_from_slice(if part == Part::Known { known.info.of(vm) } else { self.endings.of(ending) });
            match part {
                Part::Time | Part::Sum => number::time(text, line.number),
                Part::Real => number::real(text, f64::from_bits(line.number)),
                _ => number::whole(text, line.number),
            }
            text.push(b'\n');
        }
        None
    }
}

/// Labels behind others, and what ends them.
pub fn end<'a>(text: &mut Vec<u8>, labels: impl Iterator<Item = (&'a str, &'a str)>) {
    for (name, value) in labels {
        text.push(b',');
        label(text, name, value);
    }
    text.extend_from_slice(b"} ");
}

impl Word {
    /// Words are told apart by where they stand: what is there for ever is the same for ever, and one that stands in two
    /// places is an ending twice.
    #[inline]
    fn is(&self, part: Part, word: &'static str) -> bool {
        self.part == part && std::ptr::eq(self.word, word)
    }
}

#[cfg(test)]
mod tests;
