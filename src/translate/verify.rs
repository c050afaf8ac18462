//! Holds the signatures of a schema 1 against its payload, as Docker and registries do that take one.

use data_encoding::BASE64URL_NOPAD;
use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{Signature, VerifyingKey};

use crate::image::json::{self, Dialect, Object, Raw};
use crate::image::manifest::{Content, MANIFEST_BYTES_MAX, Manifest};

use super::sign::key_id;

/// How many signatures of one document are checked. Docker writes one.
const SIGNATURES_MAX: usize = 16;
/// The length of a coordinate of P-256, in bytes.
const COORDINATE_BYTES: usize = 32;

/// What is wrong with the signatures of a document. Reads after "the manifest ".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSignature {
    /// It has none, or is not of the kind that has.
    #[error("has no signature, and schema 1 is only taken with one")]
    None,
    /// It has more than anybody writes.
    #[error("has {found} signatures, and at most {SIGNATURES_MAX} are checked")]
    TooMany {
        /// How many.
        found: usize,
    },
    /// One cannot be read.
    #[error("has a signature without {missing}")]
    Unreadable {
        /// What it should have.
        missing: &'static str,
    },
    /// One that cannot be checked here.
    #[error("is signed with `{found}`, and only ES256, with which Docker signs, can be checked")]
    Algorithm {
        /// What it says.
        found: String,
    },
    /// The key has another name than it should.
    #[error("is signed with the key {expected}, and calls it {found}")]
    KeyId {
        /// The name that the key has.
        expected: String,
        /// The name that it is given.
        found: String,
    },
    /// It does not fit the payload.
    #[error("does not have the content that was signed: its signature does not fit")]
    Unfit,
}

/// Checks every signature of a schema 1 with the key that it brings along: that nobody changed it since, not who made it.
pub fn verify(manifest: &Manifest) -> Result<(), BadSignature> {
    let Content::Schema1(schema1) = manifest.content() else { return Err(BadSignature::None) };
    let document = json::scan(manifest.bytes(), MANIFEST_BYTES_MAX, Dialect::Strict).ok();
    let signatures = document.and_then(Raw::object).and_then(|top| top.value("signatures")?.array());
    let signatures = signatures.filter(|signatures| !signatures.is_empty()).ok_or(BadSignature::None)?;
    if signatures.len() > SIGNATURES_MAX {
        return Err(BadSignature::TooMany { found: signatures.len() });
    }
    let payload = BASE64URL_NOPAD.encode(schema1.payload());
    signatures.into_iter().try_for_each(|signature| verify_one(signature, &payload))
}

fn verify_one(signature: Raw<'_>, payload: &str) -> Result<(), BadSignature> {
    let missing = |missing| BadSignature::Unreadable { missing };
    let signature = signature.object().ok_or(missing("members"))?;
    let header = signature.value("header").and_then(Raw::object).ok_or(missing("a header"))?;
    let algorithm = text(&header, "alg").ok_or(missing("an algorithm"))?;
    if algorithm != "ES256" {
        return Err(BadSignature::Algorithm { found: algorithm });
    }
    let jwk = header.value("jwk").and_then(Raw::object).ok_or(missing("a key in `jwk`"))?;
    let point = point(&jwk).ok_or(missing("a P-256 key"))?;
    let (expected, found) = (key_id(&point), text(&jwk, "kid").unwrap_or_default());
    if expected != found {
        return Err(BadSignature::KeyId { expected, found });
    }
    let key = VerifyingKey::from_sec1_bytes(&point).map_err(|_| missing("a P-256 key"))?;
    let protected = text(&signature, "protected").ok_or(missing("a protected header"))?;
    let bytes = text(&signature, "signature").and_then(|text| decode(&text)).ok_or(missing("its bytes"))?;
    let signed = Signature::from_slice(&bytes).map_err(|_| missing("the bytes of an ES256 signature"))?;
    key.verify(format!("{protected}.{payload}").as_bytes(), &signed).map_err(|_| BadSignature::Unfit)
}

/// The key as SEC 1 writes it, uncompressed.
fn point(jwk: &Object<'_>) -> Option<Vec<u8>> {
    const UNCOMPRESSED: u8 = 4;
    let coordinate = |name| decode(&text(jwk, name)?).filter(|bytes| bytes.len() == COORDINATE_BYTES);
    Some([vec![UNCOMPRESSED], coordinate("x")?, coordinate("y")?].concat())
}

fn text(object: &Object<'_>, key: &str) -> Option<String> {
    Some(object.value(key)?.string()?.into_owned())
}

/// base64url, with or without padding.
fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64URL_NOPAD.decode(text.trim_end_matches('=').as_bytes()).ok()
}
