//! Puts the metrics' backends together, as built and as configured.

use std::sync::Arc;

use crate::{
    config::{self, Config},
    expose::{connection::Counts, serve::Own},
    lifecycle::Bus,
    metrics::{Fanout, Shared, follow},
};

/// All backends as one, subscribed to the bus, and what a scrape shows of them. One that cannot be had is told of and
/// left out: it counts, it does not measure.
pub(super) fn start(config: &Config, bus: &Bus, connections: Counts) -> anyhow::Result<(Shared, Own)> {
    let mut backends: Vec<Shared> = Vec::new();
    let own = Own {
        data_dir: config.data_dir.clone(),
        connections,
        #[cfg(feature = "metrics")]
        counted: prometheus(&mut backends)?,
    };
    add_statsd(&config.metrics, bus, &mut backends);
    add_otlp(&config.metrics, &mut backends);
    let all: Shared = Arc::new(Fanout::new(backends));
    tokio::spawn(follow::follow(follow::attach(bus), Arc::clone(&all)));
    Ok((all, own))
}

#[cfg(feature = "metrics")]
fn prometheus(backends: &mut Vec<Shared>) -> anyhow::Result<crate::expose::PrometheusMetrics> {
    use anyhow::Context as _;
    let counted = crate::expose::PrometheusMetrics::new_isolated().context("the metrics cannot be registered")?;
    backends.push(Arc::new(counted.clone()));
    Ok(counted)
}

#[cfg(feature = "statsd")]
fn add_statsd(metrics: &config::Metrics, bus: &Bus, backends: &mut Vec<Shared>) {
    let Some(server) = metrics.statsd else { return };
    let bus = bus.clone();
    match crate::metrics::statsd::StatsdMetrics::new(server, move || bus.count_lost(follow::STAGE, 1)) {
        Ok(statsd) => backends.push(Arc::new(statsd)),
        Err(error) => tracing::error!(%server, %error, "metrics.statsd cannot be used"),
    }
}

#[cfg(not(feature = "statsd"))]
fn add_statsd(_: &config::Metrics, _: &Bus, _: &mut Vec<Shared>) {}

#[cfg(feature = "otlp")]
fn add_otlp(metrics: &config::Metrics, backends: &mut Vec<Shared>) {
    let Some(collector) = &metrics.otlp else { return };
    match crate::metrics::otlp::OtlpMetrics::new(collector, tokio::runtime::Handle::current()) {
        Ok(otlp) => backends.push(Arc::new(otlp)),
        Err(error) => tracing::error!(%collector, %error, "metrics.otlp cannot be used"),
    }
}

#[cfg(not(feature = "otlp"))]
fn add_otlp(_: &config::Metrics, _: &mut Vec<Shared>) {}
