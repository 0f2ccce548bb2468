//! The forms an export can take: what a line of a file and what the body of a request is in each.

use super::Event;

/// Events a request of Lago's may have.
const LAGO_EVENTS: usize = 100;

/// What an export is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ExportFormat {
    /// The eight old keys and six old kinds alone.
    Cocoon,
    /// CloudEvents 1.0, one a line.
    Cloudevents,
    /// CloudEvents 1.0 in arrays.
    CloudeventsBatch,
    /// OpenMeter's events: what grew since the line before.
    Openmeter,
    /// Lago's events, one a metric.
    Lago,
}

impl ExportFormat {
    /// Events as lines of a file, each with its newline.
    #[must_use]
    pub fn lines(self, events: &[Event]) -> Vec<u8> {
        let mut text = Vec::new();
        match self {
            Self::CloudeventsBatch if events.is_empty() => {}
            Self::CloudeventsBatch => {
                text.append(&mut joined("[", events, "]"));
                text.push(b'\n');
            }
            Self::Lago => {
                for event in events {
                    text.append(&mut joined("{\"event\":", std::slice::from_ref(event), "}\n"));
                }
            }
            _ => {
                for event in events {
                    text.extend_from_slice(&event.json);
                    text.push(b'\n');
                }
            }
        }
        text
    }

    /// Events as bodies of requests, `batch` at most in each where the form has batches.
    pub fn bodies(self, events: &[Event], batch: usize) -> impl Iterator<Item = Vec<u8>> + '_ {
        let size = match self {
            Self::Cloudevents => 1,
            Self::Lago => batch.min(LAGO_EVENTS),
            _ => batch,
        };
        events.chunks(size.max(1)).map(move |some| match self {
            Self::Cocoon => self.lines(some),
            Self::Cloudevents => joined("", some, ""),
            Self::CloudeventsBatch | Self::Openmeter => joined("[", some, "]"),
            Self::Lago => joined("{\"events\":[", some, "]}"),
        })
    }

    /// What such a body is.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Cocoon => "application/x-ndjson",
            Self::Cloudevents => "application/cloudevents+json",
            Self::CloudeventsBatch | Self::Openmeter => "application/cloudevents-batch+json",
            Self::Lago => "application/json",
        }
    }
}

fn joined(before: &str, events: &[Event], after: &str) -> Vec<u8> {
    let mut text = before.as_bytes().to_vec();
    for (at, event) in events.iter().enumerate() {
        text.extend_from_slice(if at == 0 { b"" } else { b"," });
        text.extend_from_slice(&event.json);
    }
    text.extend_from_slice(after.as_bytes());
    text
}
