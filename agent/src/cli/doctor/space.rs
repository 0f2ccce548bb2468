//! Space for the ledger, before there is none.

use crate::{
    app::METERING,
    config::{Config, Recorder},
    expose::status::Feature,
    host::free_bytes,
};

/// The row; nothing where the ledger is no file.
pub(super) fn feature(config: &Config) -> Option<Feature> {
    if config.ledger.recorder != Recorder::File {
        return None;
    }
    let dir = config.data_dir.join(METERING);
    let existing = dir.ancestors().find(|one| one.is_dir())?;
    let (free, least) = (free_bytes(existing), config.ledger.min_free);
    let (gives, why) = match free {
        Ok(free) => {
            let gives = format!("{} MiB free for the ledger in {}", free >> 20, dir.display());
            let low = format!("{} MiB free in {}, less than ledger.min_free ({least})", free >> 20, existing.display());
            (gives, if free < least.0 { low } else { String::new() })
        }
        Err(error) => {
            (format!("space for the ledger in {}", dir.display()), format!("{}: {error}", existing.display()))
        }
    };
    let advice =
        if why.is_empty() { "" } else { "make room there, or let old files go (ledger.retain, ledger.max_total)" };
    Some(Feature { name: "ledger_space".to_owned(), available: why.is_empty(), gives, why, advice: advice.to_owned() })
}
