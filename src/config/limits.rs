//! How much clients may have: what flags say. Who serves puts it into practice.

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Args;

use crate::gateway::ManifestLimits;
use crate::upstream::UploadLimits;

use super::values;

/// The least that the head of a request may have, in bytes.
const HEAD_BYTES_MIN: u64 = 8 * 1024;
/// The most: it is held in memory for each connection.
const HEAD_BYTES_MAX: u64 = 1024 * 1024;

/// The flags that bound connections and requests of clients.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct LimitArguments {
    /// How many connections clients may have together; one more waits until another ends [default: 16384, or what the
    /// limit of open files leaves room for]
    #[arg(long, env = "SCHEMABRIDGE_CONNECTIONS", value_name = "NUMBER")]
    pub connections: Option<NonZeroUsize>,

    /// How many of them one address (of IPv6: one /64) may have; one more is closed at once; 0 for no such limit [default:
    /// 1024, or 0 where there are trusted proxies]
    #[arg(long, env = "SCHEMABRIDGE_CONNECTIONS_PER_ADDRESS", value_name = "NUMBER")]
    pub connections_per_address: Option<usize>,

    /// How long the head of a request may take to arrive, the first one also to begin
    #[arg(long, env = "SCHEMABRIDGE_HEADER_TIMEOUT", value_name = "DURATION", default_value = "30s", value_parser = values::duration)]
    pub header_timeout: Duration,

    /// How many bytes the head of a request may have
    #[arg(long, env = "SCHEMABRIDGE_HEAD_SIZE", value_name = "SIZE", default_value = "64KiB", value_parser = head_size)]
    pub head_size: usize,

    /// How many headers a request may have
    #[arg(long, env = "SCHEMABRIDGE_HEADERS", value_name = "NUMBER", default_value = "128")]
    pub headers: NonZeroUsize,

    /// How long a connection may have no request on it
    #[arg(long, env = "SCHEMABRIDGE_KEEP_ALIVE_TIMEOUT", value_name = "DURATION", default_value = "180s", value_parser = values::duration)]
    pub keep_alive_timeout: Duration,
}

/// The flags that bound what clients ask of the gateway.
#[derive(Args, Clone, Debug)]
pub struct RequestArguments {
    /// How long a client may send nothing in the middle of an upload, or take nothing of an answer that waits for it
    #[arg(long, env = "SCHEMABRIDGE_BODY_IDLE_TIMEOUT", value_name = "DURATION", default_value = "60s", value_parser = values::duration)]
    pub body_idle_timeout: Duration,

    /// How many bytes the body of one request of an upload may have [default: any number]
    #[arg(long, env = "SCHEMABRIDGE_UPLOAD_MAX_SIZE", value_name = "SIZE", value_parser = values::byte_size)]
    pub upload_max_size: Option<u64>,

    /// How many manifests may be read from upstreams or translated at once; one more waits for its turn
    #[arg(long, env = "SCHEMABRIDGE_MANIFESTS_IN_FLIGHT", value_name = "NUMBER", default_value = "256")]
    pub manifests_in_flight: NonZeroUsize,

    /// How long a manifest waits for its turn before the request is answered with 503
    #[arg(long, env = "SCHEMABRIDGE_MANIFEST_QUEUE_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
    pub manifest_queue_timeout: Duration,
}

impl RequestArguments {
    /// How many manifests are worked on at once.
    pub(super) const fn manifests(&self) -> ManifestLimits {
        ManifestLimits { in_flight: self.manifests_in_flight, queue_timeout: self.manifest_queue_timeout }
    }

    /// How uploads arrive.
    pub(super) const fn uploads(&self) -> UploadLimits {
        UploadLimits { idle_timeout: self.body_idle_timeout, bytes_max: self.upload_max_size }
    }

    /// What holds from the start to the end.
    pub(super) fn start_only(&self) -> impl PartialEq + use<> {
        (self.body_idle_timeout, self.manifests())
    }
}

fn head_size(text: &str) -> Result<usize, String> {
    let size = values::byte_size(text)?;
    let is_possible = (HEAD_BYTES_MIN..=HEAD_BYTES_MAX).contains(&size);
    let size = usize::try_from(size).ok().filter(|_| is_possible);
    size.ok_or_else(|| "expected a size from 8KiB to 1MiB".to_owned())
}
