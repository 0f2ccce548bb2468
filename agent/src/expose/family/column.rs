//! One family about VMs, gathered before it is written: of whom each line is, what its labels end with, its number.
//!
//! So that a VM is looked at once for all families: what 1,000 VMs are known by is more than a CPU's cache holds.

use kvmeter_common::limits::BUCKETS;

use super::{Part, label, seconds, shown, write, write_ns};
use crate::expose::catalog::Metric;

/// The two labels that every series of a VM begins with.
const OF_VM: usize = 2;
/// Lines of a VM that room is made for.
const MOST_RESERVED: usize = 16;

/// One line.
struct Line {
    vm: u32,
    ending: u32,
    /// As its part has it: nanoseconds, or the bits of an `f64`.
    number: u64,
}

/// What stands between a VM's labels and the number.
struct Ending {
    part: Part,
    /// Its place in the text of all of them.
    from: usize,
    to: usize,
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
    endings: Vec<Ending>,
    /// The texts of all endings.
    texts: Vec<u8>,
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
            endings: Vec::new(),
            texts: Vec::new(),
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
    pub fn push(&mut self, value: f64) {
        let ending = self.bare(Part::Whole);
        self.line(ending, value.to_bits());
    }

    /// Adds a series of time, nanoseconds, which Prometheus wants as seconds: written to the last of them.
    #[inline]
    pub fn push_ns(&mut self, ns: u64) {
        let ending = self.bare(Part::Time);
        self.line(ending, ns);
    }

    /// Adds a series; `word` is the value of the row's label behind those of the VM.
    #[inline]
    pub fn push_word(&mut self, word: &'static str, value: f64) {
        let ending = self.word(Part::Whole, word);
        self.line(ending, value.to_bits());
    }

    /// Adds a series of time, likewise.
    #[inline]
    pub fn push_word_ns(&mut self, word: &'static str, ns: u64) {
        let ending = self.word(Part::Time, word);
        self.line(ending, ns);
    }

    /// Adds a series; `values` in the order of the row's labels, those of the VM left out. For those that no other VM has.
    pub fn push_of(&mut self, values: &[&str], value: f64) {
        let ending = self.ending(Part::Whole, values, None);
        self.line(ending, value.to_bits());
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
            Line { vm, ending: *ending, number: (all as f64).to_bits() }
        }));
        let [sum, count] = [Part::Sum, Part::Count].map(|part| self.bare(part));
        self.line(sum, sum_ns);
        self.line(count, (all as f64).to_bits());
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
        let from = self.texts.len();
        let names = self.metric.labels.iter().skip(OF_VM).copied();
        for (name, value) in names.zip(values.iter().copied()).chain(bound.map(|bound| ("le", bound))) {
            self.texts.push(b',');
            label(&mut self.texts, name, value);
        }
        self.texts.extend_from_slice(b"} ");
        let place = self.endings.len();
        self.endings.push(Ending { part, from, to: self.texts.len() });
        // So many lines no memory holds.
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    /// Writes lines from the one at `from` on until the text is as long as `most` or the family at its end; the line that is next.
    #[must_use]
    pub fn write(&self, from: usize, most: usize, labels: &Labels, text: &mut Vec<u8>) -> Option<usize> {
        let heads = Part::ALL.map(|part| format!("{}{}{{", self.metric.name, part.as_str()));
        for (line, place) in self.lines[from..].iter().zip(from..) {
            if text.len() >= most {
                return Some(place);
            }
            if place == 0 {
                self.metric.begin(text);
            }
            let ending = &self.endings[line.ending as usize];
            text.extend_from_slice(heads[ending.part as usize].as_bytes());
            text.extend_from_slice(labels.of(line.vm as usize));
            text.extend_from_slice(&self.texts[ending.from..ending.to]);
            match ending.part {
                Part::Time | Part::Sum => write_ns(text, line.number),
                _ => write(text, f64::from_bits(line.number)),
            }
            text.push(b'\n');
        }
        None
    }
}

impl Word {
    /// Words are told apart by where they stand: what is there for ever is the same for ever, and one that stands in two
    /// places is an ending twice.
    #[inline]
    fn is(&self, part: Part, word: &'static str) -> bool {
        self.part == part && std::ptr::eq(self.word, word)
    }
}

/// `vm_id` and `name` of all VMs as they are written, once for all their series.
#[derive(Default)]
pub struct Labels {
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Labels {
    /// Adds those of the next VM.
    pub fn push(&mut self, vm_id: &str, name: &str) {
        label(&mut self.text, "vm_id", vm_id);
        self.text.push(b',');
        label(&mut self.text, "name", name);
        self.ends.push(self.text.len());
    }

    fn of(&self, place: usize) -> &[u8] {
        let from = if place == 0 { 0 } else { self.ends[place - 1] };
        &self.text[from..self.ends[place]]
    }
}

#[cfg(test)]
mod tests;
