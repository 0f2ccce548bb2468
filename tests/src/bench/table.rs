//! The table: every row a figure, most with a goal, each judged; what could not be measured says why.

use std::fmt::Write as _;

use super::spread::{Spread, digits};

/// What a goal is compared with, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    /// The figure may not be above this.
    AtMost(f64),
    /// The figure may not be below this.
    AtLeast(f64),
    /// As far from zero at most: a control that shows the resolution.
    Within(f64),
}

impl Goal {
    fn met(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
            Self::Within(bound) => value.abs() <= bound,
        }
    }

    fn text(self) -> String {
        match self {
            Self::AtMost(bound) => format!("≤ {bound}"),
            Self::AtLeast(bound) => format!("≥ {bound}"),
            Self::Within(bound) => format!("0 ± {bound}"),
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    what: String,
    unit: &'static str,
    figure: Result<Spread, String>,
    goal: Option<Goal>,
    note: String,
    failed: bool,
}

impl Row {
    /// Measured; a missing figure says so.
    #[must_use]
    pub fn new(what: impl Into<String>, unit: &'static str, figure: Option<Spread>) -> Self {
        let figure = figure.ok_or_else(|| "not one round could be used".to_owned());
        Self { what: what.into(), unit, figure, goal: None, note: String::new(), failed: false }
    }

    /// Measured once.
    #[must_use]
    pub fn single(what: impl Into<String>, unit: &'static str, value: f64) -> Self {
        Self::new(what, unit, Spread::of(&[value]))
    }

    /// Not measured, and why.
    #[must_use]
    pub fn missing(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what: what.into(), unit: "", figure: Err(why.into()), goal: None, note: String::new(), failed: false }
    }

    /// Not measured, though it should have been.
    #[must_use]
    pub fn failed(what: impl Into<String>, error: &anyhow::Error) -> Self {
        Self { failed: true, ..Self::missing(what, format!("{error:#}")) }
    }

    /// With a goal.
    #[must_use]
    pub fn goal(self, goal: Goal) -> Self {
        Self { goal: Some(goal), ..self }
    }

    /// Without a goal.
    #[must_use]
    pub fn no_goal(self) -> Self {
        Self { goal: None, ..self }
    }

    /// With a remark.
    #[must_use]
    pub fn note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    fn verdict(&self) -> &'static str {
        match (&self.figure, self.goal) {
            (Ok(figure), Some(goal)) if goal.met(figure.median) => "met",
            (Ok(_), Some(_)) => "**missed**",
            (Err(_), Some(_)) => "not measured",
            (_, None) => "",
        }
    }

    fn cells(&self) -> [String; 7] {
        let goal = self.goal.map_or_else(String::new, Goal::text);
        let verdict = self.verdict().to_owned();
        match &self.figure {
            Ok(one) if one.count == 1 => {
                let value = format!("{} {}", digits(one.median), self.unit);
                [self.what.clone(), value, String::new(), "1".into(), goal, verdict, self.note.clone()]
            }
            Ok(many) => {
                let value = format!("{} {}", digits(many.median), self.unit);
                let range = format!("{} … {}", digits(many.p10), digits(many.p90));
                [self.what.clone(), value, range, many.count.to_string(), goal, verdict, self.note.clone()]
            }
            Err(why) => {
                [self.what.clone(), "not measured".into(), String::new(), String::new(), goal, verdict, why.clone()]
            }
        }
    }
}

/// Rows under one heading, with a sentence on how they came about.
#[derive(Clone, Debug)]
pub struct Section {
    /// Heading.
    pub title: &'static str,
    /// How it was measured.
    pub method: String,
    /// The figures.
    pub rows: Vec<Row>,
}

impl Section {
    /// Nothing but a row that says why.
    #[must_use]
    pub fn missing(title: &'static str, why: &str) -> Self {
        Self { title, method: String::new(), rows: vec![Row::missing("everything", why)] }
    }

    /// Whether something in it should have been measured and was not.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.rows.iter().any(|row| row.failed)
    }

    /// As Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n{}\n\n", self.title, self.method);
        text += "| what | median | p10 … p90 | rounds | goal | | remark |\n|---|---|---|---|---|---|---|\n";
        for row in &self.rows {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "| {} |", row.cells().map(|cell| cell.replace('|', "\\|")).join(" | "));
        }
        text
    }

    /// How many goals were met, and how many there are.
    #[must_use]
    pub fn tally(&self) -> (usize, usize) {
        let goals = self.rows.iter().filter(|row| row.goal.is_some());
        (goals.clone().filter(|row| row.verdict() == "met").count(), goals.count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_judged_by_the_median_and_what_is_missing_is_not_met() {
        let spread = Spread::of(&[1.0, 2.0, 9.0]);
        let section = Section {
            title: "t",
            method: "m".into(),
            rows: vec![
                Row::new("a", "ns", spread).goal(Goal::AtMost(2.0)),
                Row::new("b", "ns", spread).goal(Goal::AtMost(1.9)),
                Row::new("c", "x", spread).goal(Goal::AtLeast(3.0)),
                Row::missing("d", "no | such").goal(Goal::Within(1.0)),
                Row::single("e", "s", 4.0),
            ],
        };
        assert_eq!(section.tally(), (1, 4));
        let text = section.markdown();
        assert!(text.contains("| a | 2.00 ns | 1.20 … 7.60 | 3 | ≤ 2 | met |  |"), "{text}");
        assert!(text.contains("| b | 2.00 ns | 1.20 … 7.60 | 3 | ≤ 1.9 | **missed** |  |"), "{text}");
        assert!(text.contains("| d | not measured |  |  | 0 ± 1 | not measured | no \\| such |"), "{text}");
    }
}
