//! How a hook's run ended: the closed set of the label `outcome`.

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Exit code 0, or an answer of 2xx.
    Success,
    /// Anything else that ended by itself, or could not be begun.
    Failure,
    /// The agent ended it because the agent ends, or its hook was taken out of the configuration.
    Canceled,
    /// It took longer than it may.
    Timeout,
}

impl Outcome {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 4] = [Self::Success, Self::Failure, Self::Canceled, Self::Timeout];

    /// The label's value.
    #[must_use]
    pub const fn as_label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Canceled => "canceled",
            Self::Timeout => "timeout",
        }
    }
}
