//! What the promise tests stand on: an upstream registry and a bucket with scripted faults, test images, a client that sends exactly
//! the header lines it is told to, and the gateway started in this process.

pub mod bucket;
pub mod client;
pub mod fault;
pub mod frames;
pub mod gateway;
pub mod http2;
pub mod images;
pub mod layers;
pub mod objects;
pub mod parents;
pub mod process;
pub mod proxy;
pub mod registry;
pub mod secure;
pub mod secure_client;
pub mod server;
pub mod upstream;

use std::future::Future;
use std::time::Duration;

/// Runs into a failure instead of a hang when the awaited event never comes. Far longer than any test needs, so no
/// test depends on it.
pub async fn patiently<T>(what: &str, event: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(Duration::from_secs(60), event).await;
    outcome.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// `value` of the `Authorization` header for these credentials.
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", data_encoding::BASE64.encode(format!("{user}:{password}").as_bytes()))
}

/// `sha256:` and the hexadecimal digest of these bytes.
pub fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    format!("sha256:{}", data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(bytes)))
}
