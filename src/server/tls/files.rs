//! What is in the files of TLS to clients at one moment.

use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::upstream::pem;

use super::{PairFiles, TlsOptions};

/// The bytes of all files, each read once: what is compared is what is used.
pub(super) struct Contents {
    pub(super) pairs: Vec<PairContents>,
    pub(super) client_authorities: Option<Vec<u8>>,
}

/// The bytes of a certificate's file and of its key's.
pub(super) struct PairContents {
    pub(super) chain: Vec<u8>,
    pub(super) key: Vec<u8>,
}

/// A digest of the contents: a private key is not kept to be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

impl Contents {
    pub(super) fn read(options: &TlsOptions) -> Result<Self, String> {
        let read = |file: &Path| pem::read(file);
        let pair = |PairFiles { chain, key }: &PairFiles| Ok(PairContents { chain: read(chain)?, key: read(key)? });
        Ok(Self {
            pairs: options.pairs.iter().map(pair).collect::<Result<_, String>>()?,
            client_authorities: options.client_authorities.as_deref().map(read).transpose()?,
        })
    }

    pub(super) fn fingerprint(&self) -> Fingerprint {
        let mut hasher = Sha256::new();
        let pairs = self.pairs.iter().flat_map(|pair| [&pair.chain, &pair.key]);
        for bytes in pairs.chain(&self.client_authorities) {
            hasher.update(Sha256::digest(bytes));
        }
        Fingerprint(hasher.finalize().into())
    }
}
