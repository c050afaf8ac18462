//! A certificate of the gateway's own, and what may be wrong with it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::SignatureScheme;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use webpki::EndEntityCert;

use crate::upstream::pem;

use super::PairFiles;
use super::files::PairContents;
use super::validity::Validity;

/// How long before its end a certificate is warned of.
const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 24 * 3600);

/// A certificate that clients may see.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) certified: Arc<CertifiedKey>,
    pub(super) kind: KeyKind,
    pub(super) validity: Validity,
    /// The file that it was read from.
    pub(super) file: PathBuf,
    /// Its DNS names, some of which may begin with `*.`.
    names: Vec<String>,
}

/// What kind of key it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyKind {
    /// ECDSA on the curve P-256: every client can check it, at the least cost.
    P256,
    /// RSA: every client can check it.
    Rsa,
    /// P-384, Ed25519 and so on: old clients cannot.
    Other,
}

impl Leaf {
    pub(super) fn new(files: &PairFiles, contents: &PairContents, provider: &CryptoProvider) -> Result<Self, String> {
        let PairFiles { chain, key } = files;
        let certificates = pem::certificates_in(&contents.chain, chain)?;
        let private = pem::private_key_in(&contents.key, key)?;
        let unusable = |reason: &str| format!("{}: the certificate cannot be used: {reason}", chain.display());
        let certified = CertifiedKey::from_der(certificates, private, provider)
            .map_err(|error| pem::no_pair(chain, key, &error))?;
        let der = certified.end_entity_cert().map_err(|error| unusable(&error.to_string()))?;
        let names = EndEntityCert::try_from(der).map_err(|error| unusable(&error.to_string()))?;
        let names = names.valid_dns_names().map(str::to_owned).collect();
        let validity = Validity::of(der).ok_or_else(|| unusable("it does not say from when to when it is valid"))?;
        let signs = |scheme| certified.key.choose_scheme(&[scheme]).is_some();
        let kind = if signs(SignatureScheme::ECDSA_NISTP256_SHA256) {
            KeyKind::P256
        } else if signs(SignatureScheme::RSA_PKCS1_SHA256) {
            KeyKind::Rsa
        } else {
            KeyKind::Other
        };
        Ok(Self { certified: Arc::new(certified), kind, validity, file: chain.clone(), names })
    }

    /// It has this very name.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.names.iter().any(|known| known.eq_ignore_ascii_case(name))
    }

    /// It has a name with `*` in place of the first label of this one.
    pub(super) fn covers(&self, name: &str) -> bool {
        let Some((_, parent)) = name.split_once('.') else { return false };
        let parents = self.names.iter().filter_map(|known| known.strip_prefix("*."));
        parents.into_iter().any(|known| known.eq_ignore_ascii_case(parent))
    }

    /// A client that can check these signatures can check its own.
    pub(super) fn can_sign(&self, schemes: &[SignatureScheme]) -> bool {
        self.certified.key.choose_scheme(schemes).is_some()
    }

    fn is_for_a_name_of(&self, other: &Self) -> bool {
        self.names.iter().any(|name| other.is_called(name))
    }
}

/// Says of each certificate why clients may not take it.
pub(super) fn warn(leaves: &[Leaf]) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    for leaf in leaves {
        let file = leaf.file.display();
        if let Some(words) = leaf.validity.words(now, EXPIRY_WARNING) {
            tracing::warn!(%file, "a certificate that clients see {words}");
        }
        if leaf.names.is_empty() {
            tracing::warn!(
                %file,
                "a certificate that clients see has no DNS name among its alternative names: clients since Go 1.15 do not \
                 look at its common name"
            );
        }
        let is_readable = |other: &&Leaf| other.kind != KeyKind::Other && leaf.is_for_a_name_of(other);
        if leaf.kind == KeyKind::Other && !leaves.iter().any(|other| is_readable(&other)) {
            tracing::warn!(
                %file,
                "a certificate that clients see has a key that is neither RSA nor P-256, and no such certificate is there \
                 for its names beside it: Docker before 1.10 cannot connect"
            );
        }
    }
}
