//! The signature that every schema 1 must carry: a JSON Web Signature in libtrust's "pretty" form, ES256 over P-256.
//!
//! The nonce is RFC 6979's and the time is the image's, so replicas with one key answer the same bytes.

use std::fmt;

use bytes::Bytes;
use data_encoding::{BASE32, BASE64, BASE64URL_NOPAD};
use p256::SecretKey;
use p256::ecdsa::Signature;
use p256::ecdsa::signature::Signer as _;
use p256::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, LineEnding};
use sha2::{Digest as _, Sha256};

use crate::image::json::{self, ObjectWriter};
use crate::image::manifest::{Content, Manifest};
use crate::image::timestamp::Timestamp;

/// A P-256 private key. Prints only its key id.
pub struct SigningKey {
    key: p256::ecdsa::SigningKey,
    key_id: String,
    /// The public key as a JSON Web Key.
    jwk: String,
}

/// Why a text or bytes are not a [`SigningKey`]. Says nothing of what they are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// No private key in PEM.
    #[error("no private key found: expected PEM with `BEGIN EC PRIVATE KEY` or `BEGIN PRIVATE KEY`")]
    NoPem,
    /// A key, but not one of this curve.
    #[error("not a P-256 private key: make one with `openssl ecparam -name prime256v1 -genkey -noout`")]
    NotP256,
    /// Entropy that is not a scalar of the curve; one in 2^32 draws is not.
    #[error("these 32 bytes are not a P-256 scalar: draw others")]
    NotAScalar,
}

/// DER of a P-256 `SubjectPublicKeyInfo` (RFC 5480) up to the point.
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, //
    0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

impl SigningKey {
    /// The first private key in a PEM text, SEC 1 or PKCS #8, among whatever else `openssl` and libtrust put there.
    pub fn from_pem(text: &str) -> Result<Self, InvalidKey> {
        let (sec1, pkcs8) = (pem_block(text, "EC PRIVATE KEY"), pem_block(text, "PRIVATE KEY"));
        let key = match (sec1, pkcs8) {
            (Some(der), _) => SecretKey::from_sec1_der(&der).ok(),
            (None, Some(der)) => SecretKey::from_pkcs8_der(&der).ok(),
            (None, None) => return Err(InvalidKey::NoPem),
        };
        Ok(Self::new(&key.ok_or(InvalidKey::NotP256)?))
    }

    /// The key whose scalar is this entropy, which the caller has drawn from the operating system.
    pub fn generate(entropy: [u8; 32]) -> Result<Self, InvalidKey> {
        SecretKey::from_slice(&entropy).map(|key| Self::new(&key)).map_err(|_| InvalidKey::NotAScalar)
    }

    /// The key in PEM, PKCS #8: what [`SigningKey::from_pem`] and `openssl` read.
    pub fn to_pem(&self) -> String {
        let pem = self.key.to_pkcs8_pem(LineEnding::LF);
        pem.map(|text| text.as_str().to_owned()).unwrap_or_default()
    }

    /// libtrust's key id: twelve groups of four letters and digits. Docker ≥ 1.10 and skopeo refuse a wrong one.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    fn new(secret: &SecretKey) -> Self {
        let key = p256::ecdsa::SigningKey::from(secret);
        let point = key.verifying_key().to_sec1_point(false);
        let point = point.as_bytes();
        let key_id = key_id(point);
        let coordinate = |range: std::ops::Range<usize>| BASE64URL_NOPAD.encode(point.get(range).unwrap_or_default());
        let jwk = ObjectWriter::new()
            .string("crv", "P-256")
            .string("kid", &key_id)
            .string("kty", "EC")
            .string("x", &coordinate(1..33))
            .string("y", &coordinate(33..65))
            .finish();
        Self { key, key_id, jwk }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SigningKey").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// Base32 of the first 30 bytes of SHA-256 over the `SubjectPublicKeyInfo`, a colon after every four characters.
pub(super) fn key_id(point: &[u8]) -> String {
    const HASHED_BYTES: usize = 30;
    let hash = Sha256::new().chain_update(SPKI_PREFIX).chain_update(point).finalize();
    let letters = BASE32.encode(hash.get(..HASHED_BYTES).unwrap_or_default());
    let groups: Vec<&str> = (0..letters.len()).step_by(4).filter_map(|at| letters.get(at..at + 4)).collect();
    groups.join(":")
}

/// The DER in the first PEM block of this label. Header lines (libtrust writes a `keyID`) are passed over.
fn pem_block(text: &str, label: &str) -> Option<Vec<u8>> {
    let (_, after) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = after.split_once(&format!("-----END {label}-----"))?;
    let lines = body.lines().map(str::trim).filter(|line| !line.contains(':'));
    BASE64.decode(lines.collect::<String>().as_bytes()).ok()
}

/// A stored schema 1 with the signature block that engines since Docker 1.10 demand. One that has a signature comes
/// back as it is; of one that has none the payload, and so the digest, stays. Anything that is not schema 1 comes back
/// as it is too.
pub fn signed(stored: &Manifest, key: &SigningKey) -> Bytes {
    match stored.content() {
        Content::Schema1(schema1) if !schema1.is_signed() => {
            let time = Timestamp::utc_seconds_or_epoch(schema1.created().as_ref());
            let payload = String::from_utf8_lossy(schema1.payload());
            pretty(&payload, &time, key).into()
        }
        _ => stored.bytes().clone(),
    }
}

/// Puts a signature into a payload, before its closing brace: indented if the payload is, else compact.
pub(super) fn pretty(payload: &str, time: &str, key: &SigningKey) -> String {
    let closed = payload.trim_end();
    let head = closed.strip_suffix('}').unwrap_or(closed).trim_end();
    let tail = payload.get(head.len()..).unwrap_or_default();
    let protected = ObjectWriter::new()
        .json("formatLength", &head.len().to_string())
        .string("formatTail", &BASE64URL_NOPAD.encode(tail.as_bytes()))
        .string("time", time)
        .finish();
    let protected = BASE64URL_NOPAD.encode(protected.as_bytes());
    let signatures = json::array([signature(&protected, payload, key)]);
    match indent_of(payload) {
        Some(indent) => {
            let signatures = json::indented(&signatures, indent, indent);
            format!("{head},\n{indent}\"signatures\": {signatures}\n}}")
        }
        None => format!("{head},\"signatures\":{signatures}}}"),
    }
}

/// One element of the `signatures` array, compact.
fn signature(protected: &str, payload: &str, key: &SigningKey) -> String {
    let input = format!("{protected}.{}", BASE64URL_NOPAD.encode(payload.as_bytes()));
    let signature: Signature = key.key.sign(input.as_bytes());
    let header = ObjectWriter::new().json("jwk", &key.jwk).string("alg", "ES256").finish();
    ObjectWriter::new()
        .json("header", &header)
        .string("signature", &BASE64URL_NOPAD.encode(&signature.to_bytes()))
        .string("protected", protected)
        .finish()
}

/// What stands before the first key, if that is on a line of its own (libtrust's `detectJSONIndent`).
fn indent_of(payload: &str) -> Option<&str> {
    let (indent, _) = payload.strip_prefix("{\n")?.split_once('"')?;
    Some(indent).filter(|indent| !indent.is_empty())
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXUPPER;

    use super::*;

    /// The key and the signatures of RFC 6979, appendix A.2.5, for SHA-256. The first `s` is in the upper half of its
    /// range: libtrust's are not normalised.
    const SECRET: &str = "C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721";
    const X: &str = "60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6";
    const Y: &str = "7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299";
    const SIGNATURES: [(&str, &str); 2] = [
        (
            "sample",
            "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8",
        ),
        (
            "test",
            "F1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083",
        ),
    ];

    fn hex(text: &str) -> Vec<u8> {
        HEXUPPER.decode(text.as_bytes()).unwrap()
    }

    #[test]
    fn signs_as_rfc_6979_says() {
        let key = SigningKey::generate(hex(SECRET).try_into().unwrap()).unwrap();
        for (message, expected) in SIGNATURES {
            let signature: Signature = key.key.sign(message.as_bytes());
            assert_eq!(signature.to_bytes().to_vec(), hex(expected), "{message}");
        }
        let coordinates =
            format!(r#""x":"{}","y":"{}"}}"#, BASE64URL_NOPAD.encode(&hex(X)), BASE64URL_NOPAD.encode(&hex(Y)));
        assert!(key.jwk.ends_with(&coordinates), "{}", key.jwk);
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_repeated() {
        for text in
            ["", "secret", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "-----BEGIN PRIVATE KEY-----"]
        {
            assert_eq!(SigningKey::from_pem(text).unwrap_err(), InvalidKey::NoPem, "{text}");
        }
        let wrong = "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n";
        assert_eq!(SigningKey::from_pem(wrong).unwrap_err(), InvalidKey::NotP256);
        assert_eq!(SigningKey::generate([0; 32]).unwrap_err(), InvalidKey::NotAScalar);
        assert_eq!(SigningKey::generate([0xff; 32]).unwrap_err(), InvalidKey::NotAScalar);
    }

    #[test]
    fn a_key_survives_its_pem() {
        let key = SigningKey::generate([7; 32]).unwrap();
        let again = SigningKey::from_pem(&key.to_pem()).unwrap();
        assert_eq!((again.key_id(), again.jwk.as_str()), (key.key_id(), key.jwk.as_str()));
    }
}
