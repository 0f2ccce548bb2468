//! What is wrong with a configuration, said so that it can be put right without looking anything up.

use std::fmt;
use std::path::PathBuf;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file, and the line if it is known, counted from 1.
    File {
        /// The file.
        path: PathBuf,
        /// The line.
        line: Option<usize>,
    },
    /// An environment variable, by its name.
    Environment(String),
    /// A command line flag, by its name.
    Flag(&'static str),
    /// Nobody set it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One thing that is wrong: `<origin>: <key> = <value>: <text>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The full path of the key; `None` if a whole file is at fault.
    pub key: Option<String>,
    /// The value as it stands there, shortened.
    pub value: Option<String>,
    /// Where it stands.
    pub origin: Origin,
    /// What is wrong and what would be right.
    pub text: String,
}

/// The same shape for what is noticed but does no harm.
pub type Warning = Problem;

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        match (&self.key, &self.value) {
            (Some(key), Some(value)) => write!(f, "{key} = {value}: {}", self.text),
            (Some(key), None) => write!(f, "{key}: {}", self.text),
            (None, _) => f.write_str(&self.text),
        }
    }
}

/// All that is wrong with a configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    /// The problems: the file's by line, then the environment's, then the flags'.
    pub list: Vec<Problem>,
    /// The warnings that go with them.
    pub warnings: Vec<Warning>,
}

impl Problems {
    pub(super) fn new(mut list: Vec<Problem>, warnings: Vec<Warning>) -> Self {
        list.sort_by_key(|problem| match &problem.origin {
            Origin::File { line, .. } => (0, *line),
            Origin::Environment(_) => (1, None),
            Origin::Flag(_) | Origin::Default => (2, None),
        });
        Self { list, warnings }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.list.len();
        write!(f, "the configuration has {count} {}", if count == 1 { "problem" } else { "problems" })?;
        for problem in &self.list {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
