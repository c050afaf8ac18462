//! Which certificate a client sees.

use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::leaf::{KeyKind, Leaf};

/// Chooses by the name that a client asks for, then by the signatures that it can check: of certificates for one name it sees
/// the one with a P-256 key if it can check that, which costs the least, or else the first that it can check. No name is a
/// reason to refuse: old clients ask for none, or for an address.
#[derive(Debug)]
pub(super) struct Choice {
    leaves: Vec<Leaf>,
}

impl Choice {
    pub(super) const fn of(leaves: Vec<Leaf>) -> Self {
        Self { leaves }
    }

    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Leaf> {
        let named = name.and_then(|name| {
            let exact = best(self.leaves.iter().filter(|leaf| leaf.is_called(name)), schemes);
            exact.or_else(|| best(self.leaves.iter().filter(|leaf| leaf.covers(name)), schemes))
        });
        // One that nobody can check makes the handshake fail in words that say so.
        named.or_else(|| self.leaves.iter().find(|leaf| leaf.can_sign(schemes))).or(self.leaves.first())
    }
}

fn best<'leaf>(leaves: impl Iterator<Item = &'leaf Leaf>, schemes: &[SignatureScheme]) -> Option<&'leaf Leaf> {
    // Of equals the first stays first.
    leaves.filter(|leaf| leaf.can_sign(schemes)).min_by_key(|leaf| leaf.kind != KeyKind::P256)
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes()).map(|leaf| Arc::clone(&leaf.certified))
    }
}
