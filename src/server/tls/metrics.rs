//! Until when the certificates that clients see are valid.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::leaf::Leaf;

/// The one name of all listeners for clients: they show the same certificates.
const CLIENTS: &str = "clients";

/// Until when each certificate is valid.
#[derive(Default)]
pub(super) struct Metrics {
    not_after: Family<Certificate, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Certificate {
    listener: &'static str,
    /// Its file.
    certificate: String,
}

impl Metrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "tls_cert_not_after_timestamp_seconds",
            "When a certificate that clients see expires, by its file",
            self.not_after.clone(),
        );
    }

    pub(super) fn show(&self, leaves: &[Leaf]) {
        for leaf in leaves {
            let labels = Certificate { listener: CLIENTS, certificate: leaf.file.display().to_string() };
            self.not_after.get_or_create(&labels).set(leaf.validity.not_after);
        }
    }
}
