//! What the process tells of itself: the log, and the metrics that are nobody else's.

use std::io::{self, IsTerminal};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::telemetry::AccessLog;
use crate::config::{LogFormat, ServeArguments};
use crate::translate::EDITION;

use super::log;
use super::process::ProcessCollector;

/// What the names of metrics begin with, but those of the process, which are the same for every program.
const PREFIX: &str = "schemabridge";

/// Starts the log.
pub(super) fn start_log(arguments: &ServeArguments) -> io::Result<log::Writer> {
    let writer = log::Writer::start(io::stderr())?;
    let colours = io::stderr().is_terminal();
    let builder =
        tracing_subscriber::fmt().with_max_level(arguments.log_level).with_writer(writer.lines()).with_ansi(colours);
    let filter = filter(arguments.log_level, arguments.telemetry.access_log);
    match arguments.log_format {
        LogFormat::Json => builder.json().flatten_event(true).finish().with(filter).init(),
        LogFormat::Text => builder.finish().with(filter).init(),
    }
    Ok(writer)
}

/// The client of buckets says of each attempt that it was not the last; of a store that is away one line is enough.
fn filter(level: Level, access_log: AccessLog) -> Targets {
    let of_buckets = if level > Level::INFO { level } else { level.min(Level::WARN) };
    let of_requests = match access_log {
        AccessLog::On => level,
        // What failed is told once, and there.
        AccessLog::Off => level.min(Level::WARN),
    };
    Targets::new()
        .with_default(level)
        .with_target("object_store", of_buckets)
        .with_target("schemabridge::access", of_requests)
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
    edition: u32,
}

/// Registers what is known of the process, and gives the place for all that is the gateway's own.
pub(super) fn register(registry: &mut Registry) -> &mut Registry {
    registry.register_collector(Box::new(ProcessCollector));
    let own = registry.sub_registry_with_prefix(PREFIX);
    let build: Family<Build, Gauge> = Family::default();
    build.get_or_create(&Build { version: env!("CARGO_PKG_VERSION"), edition: EDITION }).set(1);
    own.register("build_info", "1, by the version of the program and the edition of its translator", build);
    own
}
