//! Docker image manifest version 2, schema 1 (distribution `docs/spec/manifest-v2-1.md`) and the place of its
//! signatures in it (libtrust's JSON signature with `formatLength` and `formatTail`).

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;

use super::digest::Digest;
use super::json::{self, Dialect, Object, Raw};
use super::manifest::{MANIFEST_BYTES_MAX, Malformed, TOP_FIELDS, read_array, read_string, refuse_other_case};
use super::timestamp::Timestamp;

/// A schema 1 image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema1 {
    payload: Bytes,
    is_signed: bool,
    /// The repository name that was written into it. No engine compares it with what was asked.
    pub name: String,
    /// The tag that was written into it.
    pub tag: String,
    /// `GOARCH` of the image.
    pub architecture: String,
    /// The digests of the layers, the topmost first.
    pub fs_layers: Vec<Digest>,
    /// The `v1Compatibility` documents, still encoded, the topmost first.
    pub history: Vec<String>,
}

impl Schema1 {
    /// The bytes that were signed, and that the digest is over: the document without its signatures.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// It has at least one signature. Engines since Docker 1.10 refuse a document without.
    pub fn is_signed(&self) -> bool {
        self.is_signed
    }

    /// The digest of the payload.
    pub fn digest(&self) -> Digest {
        Digest::sha256(&self.payload)
    }

    /// When its topmost layer was made, if that says so in RFC 3339.
    pub fn created(&self) -> Option<Timestamp> {
        let top = json::scan(self.history.first()?.as_bytes(), MANIFEST_BYTES_MAX, Dialect::Go).ok()?;
        Timestamp::parse(&top.object()?.value("created")?.string()?)
    }

    /// Reads a document whose top level has been read already. Everything comes out of the payload: what stands beside
    /// it in the document is not signed, and nobody may believe it.
    pub(super) fn read(bytes: &Bytes, document: &Object<'_>) -> Result<Self, Malformed> {
        let is_signed = document.names("signatures");
        let payload = if is_signed { recover_payload(bytes, document)? } else { bytes.clone() };
        let scanned = json::scan(&payload, MANIFEST_BYTES_MAX, Dialect::Strict).map_err(|_| unreadable_payload())?;
        let top = scanned.object().ok_or_else(unreadable_payload)?;
        refuse_other_case(&top, &TOP_FIELDS)?;
        let (name, tag) = (read_string(&top, "name")?, read_string(&top, "tag")?);
        let architecture = read_string(&top, "architecture")?;
        let fs_layers = read_elements(&top, "fsLayers", "blobSum", "layers with digests", |text| text.parse().ok())?;
        let history = read_elements(&top, "history", "v1Compatibility", "entries with JSON in a string", |text| {
            Some(text.into())
        })?;
        Ok(Self { payload, is_signed, name, tag, architecture, fs_layers, history })
    }
}

fn unreadable_payload() -> Malformed {
    Malformed::field("signatures", "a `formatLength` and a `formatTail` that lead back to a JSON object")
}

/// Reads an array of objects that have one string each.
fn read_elements<T>(
    top: &Object<'_>,
    list: &'static str,
    field: &'static str,
    expected: &'static str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>, Malformed> {
    let invalid = || Malformed::field(list, expected);
    let element = |element: Raw<'_>| {
        let object = element.object().ok_or_else(invalid)?;
        refuse_other_case(&object, &[field])?;
        object.value(field).and_then(|value| read(&value.string()?)).ok_or_else(invalid)
    };
    let elements = read_array(top, list)?;
    if elements.is_empty() { Err(invalid()) } else { elements.into_iter().map(element).collect() }
}

/// Where the payload ends in the document, and how it goes on there, as one signature's protected header says.
#[derive(PartialEq, Eq)]
struct Format {
    length: usize,
    tail: Vec<u8>,
}

/// The first `formatLength` bytes of the document and the decoded `formatTail`, on which all signatures must agree.
fn recover_payload(bytes: &Bytes, document: &Object<'_>) -> Result<Bytes, Malformed> {
    let signatures = document.value("signatures").and_then(Raw::array).unwrap_or_default();
    let formats = signatures.into_iter().map(read_format).collect::<Option<Vec<_>>>().ok_or_else(unreadable_payload)?;
    let first = formats.first().ok_or_else(|| Malformed::field("signatures", "at least one signature"))?;
    if formats.iter().any(|format| format != first) {
        return Err(Malformed::field("signatures", "one `formatLength` and one `formatTail` in all of them"));
    }
    let head = bytes.get(..first.length).ok_or_else(unreadable_payload)?;
    Ok([head, &first.tail].concat().into())
}

fn read_format(signature: Raw<'_>) -> Option<Format> {
    let protected = decode(&signature.object()?.value("protected")?.string()?)?;
    let header = json::scan(&protected, MANIFEST_BYTES_MAX, Dialect::Strict).ok()?.object()?;
    let length = usize::try_from(header.value("formatLength")?.integer()?).ok()?;
    Some(Format { length, tail: decode(&header.value("formatTail")?.string()?)? })
}

/// base64url, with or without padding.
fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64URL_NOPAD.decode(text.trim_end_matches('=').as_bytes()).ok()
}

/// What a schema 1 payload is written from.
pub struct Payload<'a> {
    /// The repository name.
    pub name: &'a str,
    /// The tag.
    pub tag: &'a str,
    /// `GOARCH` of the image, empty if it is not known.
    pub architecture: &'a str,
    /// Blob digest and `v1Compatibility` of each entry, the topmost first; at least one. As in Go, `v1Compatibility` is
    /// JSON whose strings may hold bytes that are not UTF-8.
    pub entries: &'a [(Digest, Vec<u8>)],
}

impl Payload<'_> {
    /// The payload in the canonical form of CNCF distribution 2.8: three spaces, no newline at the end.
    ///
    /// A payload can be megabytes, so each byte is written once, where it stays.
    pub fn write(&self) -> String {
        let mut text = String::with_capacity(self.bytes_expected());
        text.push_str("{\n   \"schemaVersion\": 1");
        for (key, value) in [("name", self.name), ("tag", self.tag), ("architecture", self.architecture)] {
            push_key(&mut text, key);
            json::push_string(&mut text, value.as_bytes());
        }
        let layers = self.entries.iter().map(|(digest, _)| digest.as_str().as_bytes());
        push_elements(&mut text, "fsLayers", "blobSum", layers);
        push_elements(&mut text, "history", "v1Compatibility", self.entries.iter().map(|(_, entry)| entry.as_slice()));
        text.push_str("\n}");
        text
    }

    /// Room for most payloads: beside an entry stand a digest and some 90 bytes of keys and white space, and the quotes
    /// in the entry are escaped.
    fn bytes_expected(&self) -> usize {
        const BESIDE_AN_ENTRY: usize = 192;
        let entries = self.entries.iter().map(|(_, entry)| BESIDE_AN_ENTRY + entry.len() + entry.len() / 4);
        entries.sum::<usize>() + BESIDE_AN_ENTRY + self.name.len() + self.tag.len()
    }
}

fn push_key(text: &mut String, key: &str) {
    text.extend([",\n   \"", key, "\": "]);
}

/// Writes an array of objects that have one string each; [`read_elements`] reads them.
fn push_elements<'a>(text: &mut String, list: &str, field: &str, values: impl Iterator<Item = &'a [u8]>) {
    push_key(text, list);
    text.push('[');
    for (index, value) in values.enumerate() {
        let comma = if index == 0 { "" } else { "," };
        text.extend([comma, "\n      {\n         \"", field, "\": "]);
        json::push_string(text, value);
        text.push_str("\n      }");
    }
    text.push_str("\n   ]");
}

#[cfg(test)]
mod tests {
    use super::super::manifest::{Content, Manifest};
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn head() -> String {
        format!(
            r#"{{"schemaVersion":1,"name":"n","fsLayers":[{{"blobSum":"{DIGEST}"}}],"history":[{{"v1Compatibility":"{{}}"}}]"#
        )
    }

    fn block(length: i64, tail: &str) -> String {
        let tail = BASE64URL_NOPAD.encode(tail.as_bytes());
        let protected = format!(r#"{{"formatLength":{length},"formatTail":"{tail}","time":"2020-01-01T00:00:00Z"}}"#);
        format!(r#"{{"protected":"{}"}}"#, BASE64URL_NOPAD.encode(protected.as_bytes()))
    }

    fn parse(rest: &str) -> Result<Schema1, Malformed> {
        match Manifest::parse(format!("{}{rest}", head()).into())?.content() {
            Content::Schema1(schema1) => Ok(schema1.clone()),
            other => panic!("{other:?}"),
        }
    }

    fn length() -> i64 {
        head().len().try_into().unwrap()
    }

    #[test]
    fn the_payload_comes_back_and_nothing_beside_it_is_believed() {
        let one = block(length(), "}");
        for blocks in [one.clone(), format!("{one},{one}")] {
            let schema1 = parse(&format!(r#","tag":"unsigned","signatures":[{blocks}],"extra_data":1}}"#)).unwrap();
            assert_eq!(schema1.payload(), &format!("{}}}", head()));
            assert_eq!((schema1.name.as_str(), schema1.tag.as_str(), schema1.is_signed()), ("n", "", true));
        }
        let padded = one.replace("\"}", "==\"}");
        assert!(parse(&format!(r#","signatures":[{padded}]}}"#)).is_ok());
    }

    #[test]
    fn signatures_that_lead_nowhere_are_refused() {
        let one = block(length(), "}");
        for signatures in [
            "[]".to_owned(),
            "null".to_owned(),
            "{}".to_owned(),
            "[1]".to_owned(),
            "[{}]".to_owned(),
            r#"[{"protected":"!"}]"#.to_owned(),
            r#"[{"protected":"AAAA"}]"#.to_owned(),
            format!("[{}]", block(-1, "}")),
            format!("[{}]", block(1 << 40, "}")),
            format!("[{}]", block(i64::MAX, "}")),
            format!("[{}]", block(length() - 1, "}")),
            format!("[{}]", block(length(), "")),
            format!("[{}]", block(0, "[]")),
            format!("[{}]", block(length(), ",\"name\":\"m\"}")),
            format!("[{one},{}]", block(length(), "\n}")),
        ] {
            assert!(
                matches!(parse(&format!(r#","signatures":{signatures}}}"#)), Err(Malformed::Field { .. })),
                "{signatures}"
            );
        }
    }

    #[test]
    fn layers_and_history_must_be_there_and_layers_have_digests() {
        let whole = format!("{}}}", head());
        for (good, bad) in
            [(DIGEST, "sha256:x"), ("\"blobSum\"", "\"x\""), ("fsLayers", "x"), ("history", "x"), ("\"{}\"", "{}")]
        {
            let text = whole.replacen(good, bad, 1);
            assert!(matches!(Manifest::parse(text.clone().into()), Err(Malformed::Field { .. })), "{text}");
        }
    }

    #[test]
    fn a_key_in_another_case_is_refused_in_the_payload_too() {
        let whole = format!("{}}}", head());
        for (good, bad) in [
            (r#"{"blobSum""#, r#"{"BlobSum":"x","blobSum""#),
            (r#"{"v1Compatibility""#, r#"{"V1Compatibility":"x","v1Compatibility""#),
            (r#""name""#, r#""Tag":"x","name""#),
        ] {
            let text = whole.replacen(good, bad, 1);
            assert!(matches!(Manifest::parse(text.clone().into()), Err(Malformed::OtherCase { .. })), "{text}");
        }
        let tail = block(length(), r#","FSLayers":[]}"#);
        assert!(matches!(parse(&format!(r#","signatures":[{tail}]}}"#)), Err(Malformed::OtherCase { .. })));
    }

    #[test]
    fn created_is_that_of_the_topmost_entry() {
        let created = |entry: &str| {
            let entry = json::string(entry);
            let text = format!("{}}}", head()).replacen("\"{}\"", &entry, 1);
            let manifest = Manifest::parse(text.into()).unwrap();
            let Content::Schema1(schema1) = manifest.content() else { panic!("{manifest:?}") };
            schema1.created().map(|time| time.to_string())
        };
        assert_eq!(created(r#"{"created":"2020-01-02T03:04:05.50Z"}"#).as_deref(), Some("2020-01-02T03:04:05.5Z"));
        for none in ["{}", "", "[]", r#"{"created":""}"#, r#"{"created":7}"#] {
            assert_eq!(created(none), None, "{none}");
        }
    }
}
