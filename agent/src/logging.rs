//! The agent's own log: `tracing` on standard error, as text or JSON, its level changeable while running.

use tracing_subscriber::{
    Layer as _, Registry,
    filter::LevelFilter,
    layer::SubscriberExt as _,
    reload,
    util::{SubscriberInitExt as _, TryInitError},
};

use crate::config::{LogFormat, LogLevel};

/// Changes the level.
#[derive(Clone)]
pub struct LevelHandle(reload::Handle<LevelFilter, Registry>);

impl LevelHandle {
    /// Takes a new level over.
    pub fn set(&self, level: LogLevel) {
        // It fails only once the subscriber is gone, when there is nothing left to log to.
        let _ = self.0.reload(filter(level));
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    level.as_str().parse().unwrap_or(LevelFilter::INFO)
}

/// Starts logging.
///
/// # Errors
/// When a logger was set before.
pub fn start(format: LogFormat, level: LogLevel) -> Result<LevelHandle, TryInitError> {
    let (filter, handle) = reload::Layer::new(filter(level));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init()?;
    Ok(LevelHandle(handle))
}
