//! What the gateway tells its operator of each request.

use clap::{Args, ValueEnum};

/// The flags of the access log and of traces.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct TelemetryArguments {
    /// Whether each request has a line in the log; without, only those that the gateway or an upstream failed have one
    #[arg(long, env = "SCHEMABRIDGE_ACCESS_LOG", value_name = "on|off", default_value = "on")]
    pub access_log: AccessLog,

    /// Where traces go, such as `http://127.0.0.1:4318`: a collector that takes OTLP over HTTP [default: nowhere]
    #[cfg(feature = "otel")]
    #[arg(long, env = "SCHEMABRIDGE_OTLP_ENDPOINT", value_name = "URL", value_parser = super::values::plain_url)]
    pub otlp_endpoint: Option<url::Url>,
}

/// Which requests have a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccessLog {
    /// All.
    On,
    /// Those that the gateway or an upstream failed.
    Off,
}
