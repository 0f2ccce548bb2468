//! What is pinned here, and since when: by the word of the agent that runs, and by looking.

use std::path::Path;

use serde_json::Value;

use crate::{
    bpf::{Pinning, pin},
    cause, clock,
    config::Config,
    expose::status::{self, Feature},
};

/// The row. The agent that runs knows best what it pinned, and why not.
pub(super) fn feature(config: &Config, agent: Option<&Value>) -> Feature {
    let agents = agent.and_then(|agent| agent["features"].as_array()?.iter().find(|f| f["name"] == status::PINS));
    if let Some(agents) = agents {
        let text = |key: &str| agents[key].as_str().unwrap_or_default().to_owned();
        return Feature {
            name: status::PINS.to_owned(),
            available: agents["available"] == true,
            gives: text("gives"),
            why: text("why"),
            advice: text("advice"),
        };
    }
    let Some(dir) = &config.bpf.pin_dir else { return status::pins(&Pinning::Unwanted, |_| String::new()) };
    match looked(dir) {
        Ok(told) => {
            let mut row = status::pins(&Pinning::Unwanted, |_| String::new());
            row.gives = format!("{}; {told}", row.gives);
            Feature { available: true, why: String::new(), advice: String::new(), ..row }
        }
        Err(why) => status::pins(&Pinning::Refused(why), |_| String::new()),
    }
}

/// What lies there, where pins can lie at all.
fn looked(dir: &Path) -> Result<String, String> {
    pin::possible(dir).map_err(|error| cause::chain(&error))?;
    let pinned = pin::look(dir).map_err(|error| cause::chain(&error))?;
    if pinned.is_empty() {
        return Ok(format!("nothing is pinned in {}", dir.display()));
    }
    let now = clock::now().ok();
    let date = |since_ns: u64| now.map(|now| clock::rfc3339(now.unix_of(since_ns)));
    let told = pinned.iter().map(|one| {
        let since = one.since_ns.and_then(date).unwrap_or_else(|| "an unknown time".to_owned());
        format!("pinned since {since} in {}, and no agent on the configured socket", one.dir.display())
    });
    Ok(told.collect::<Vec<_>>().join("; "))
}
