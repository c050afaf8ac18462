//! Image configs (OCI image-spec `config.md`; Docker's has more fields). Only what a translation asks is decoded: the
//! bytes of a config are never rewritten, because their digest is the image's identity.

use std::borrow::Cow;

use super::json::{self, Keys, Object, Raw};
use super::manifest::CONFIG_BYTES_MAX;
use super::platform::Platform;
use super::timestamp::Timestamp;

/// An image config. Fields are read by their exact names; of a name that comes twice the last counts.
#[derive(Clone, Debug)]
pub struct Config<'a> {
    /// `GOARCH`; empty where the config does not say.
    pub architecture: String,
    /// When the image was made, where the config says so in RFC 3339.
    pub created: Option<Timestamp>,
    /// The layers' identities. An image has it; what lacks it is not an image's config.
    pub rootfs: Option<Rootfs>,
    /// How the image was made, the oldest step first. Empty where the config does not say.
    pub history: Vec<History>,
    members: Vec<(Cow<'a, str>, Raw<'a>)>,
}

/// The `rootfs` of a config.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rootfs {
    /// The digests of the uncompressed layers, the lowest first, as written.
    pub diff_ids: Vec<String>,
    /// The Windows base layer that old Docker for Windows left out of `diff_ids`; empty elsewhere.
    pub base_layer: String,
}

/// One step of a config's `history`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// When, where it says so in RFC 3339.
    pub created: Option<Timestamp>,
    /// The command.
    pub created_by: String,
    /// Who.
    pub author: String,
    /// A comment.
    pub comment: String,
    /// The step made no layer.
    pub empty_layer: bool,
}

/// Why bytes are not an image config. Reads after "its config ".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    /// Not JSON, or beyond a limit.
    #[error(transparent)]
    Json(#[from] json::Fault),
    /// A field of another type than every engine reads there.
    #[error("has no valid `{field}`: expected {expected}")]
    Field {
        /// The field.
        field: &'static str,
        /// What would have been right.
        expected: &'static str,
    },
}

impl<'a> Config<'a> {
    /// Reads a config of at most [`CONFIG_BYTES_MAX`] bytes. A `created` that is not a time is as good as none, because
    /// some builders write an empty one.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, InvalidConfig> {
        let top = json::scan(bytes, CONFIG_BYTES_MAX, Keys::Repeatable)?.object();
        let top = top.ok_or(InvalidConfig::Field { field: "config", expected: "a JSON object" })?;
        Ok(Self {
            architecture: read_string(&top, "architecture")?,
            created: read_time(&top),
            rootfs: top.value("rootfs").map(read_rootfs).transpose()?,
            history: read_list(&top, "history", "an array of objects", read_history)?,
            members: top.into_sorted(),
        })
    }

    /// The top level, the last of equal keys only, in the order of the keys' bytes.
    pub fn members(&self) -> &[(Cow<'a, str>, Raw<'a>)] {
        &self.members
    }
}

/// The platform that a config of at most [`CONFIG_BYTES_MAX`] bytes names; empty words where it names none.
pub fn platform(bytes: &[u8]) -> Result<Platform, InvalidConfig> {
    let top = json::scan(bytes, CONFIG_BYTES_MAX, Keys::Repeatable)?.object();
    let top = top.ok_or(InvalidConfig::Field { field: "config", expected: "a JSON object" })?;
    let optional = |field| read_string(&top, field).map(|text| Some(text).filter(|text| !text.is_empty()));
    let text = |element: Raw<'_>| {
        let text = element.string().map(Into::into);
        text.ok_or(InvalidConfig::Field { field: "os.features", expected: "an array of strings" })
    };
    Ok(Platform {
        os: read_string(&top, "os")?,
        architecture: read_string(&top, "architecture")?,
        variant: optional("variant")?,
        os_version: optional("os.version")?,
        os_features: read_list(&top, "os.features", "an array of strings", text)?,
        features: Vec::new(),
    })
}

fn read_rootfs(value: Raw<'_>) -> Result<Rootfs, InvalidConfig> {
    let object = value.object().ok_or(InvalidConfig::Field { field: "rootfs", expected: "an object" })?;
    let text = |element: Raw<'_>| {
        let text = element.string().map(Into::into);
        text.ok_or(InvalidConfig::Field { field: "rootfs.diff_ids", expected: "an array of digests" })
    };
    Ok(Rootfs {
        diff_ids: read_list(&object, "diff_ids", "an array of digests", text)?,
        base_layer: read_string(&object, "base_layer")?,
    })
}

fn read_history(value: Raw<'_>) -> Result<History, InvalidConfig> {
    if value.is_null() {
        return Ok(History::default());
    }
    let object = value.object().ok_or(InvalidConfig::Field { field: "history", expected: "an array of objects" })?;
    let empty_layer = object.value("empty_layer").map(|value| {
        value.boolean().ok_or(InvalidConfig::Field { field: "history.empty_layer", expected: "true or false" })
    });
    Ok(History {
        created: read_time(&object),
        created_by: read_string(&object, "created_by")?,
        author: read_string(&object, "author")?,
        comment: read_string(&object, "comment")?,
        empty_layer: empty_layer.transpose()?.unwrap_or_default(),
    })
}

fn read_time(object: &Object<'_>) -> Option<Timestamp> {
    Timestamp::parse(&object.value("created")?.string()?)
}

fn read_string(object: &Object<'_>, field: &'static str) -> Result<String, InvalidConfig> {
    match object.value(field) {
        None => Ok(String::new()),
        Some(value) => value.string().map(Into::into).ok_or(InvalidConfig::Field { field, expected: "a string" }),
    }
}

fn read_list<'a, T>(
    object: &Object<'a>,
    field: &'static str,
    expected: &'static str,
    read: impl Fn(Raw<'a>) -> Result<T, InvalidConfig>,
) -> Result<Vec<T>, InvalidConfig> {
    match object.value(field) {
        None => Ok(Vec::new()),
        Some(value) => value.array().ok_or(InvalidConfig::Field { field, expected })?.into_iter().map(read).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_null_is_empty() {
        for text in ["{}", r#"{"architecture":null,"created":null,"rootfs":null,"history":null}"#] {
            let config = Config::parse(text.as_bytes()).unwrap();
            assert_eq!((config.architecture.as_str(), config.created, config.rootfs), ("", None, None));
            assert_eq!(config.history, []);
        }
        let config = Config::parse(br#"{"history":[null,{"created":"","empty_layer":true}],"rootfs":{}}"#).unwrap();
        assert_eq!(config.history, [History::default(), History { empty_layer: true, ..History::default() }]);
        assert_eq!(config.rootfs, Some(Rootfs::default()));
    }

    #[test]
    fn the_last_of_a_key_counts_and_case_does_too() {
        let text = br#"{"architecture":"a","Architecture":"c","architecture":"b","ROOTFS":{}}"#;
        let config = Config::parse(text).unwrap();
        assert_eq!((config.architecture.as_str(), config.rootfs.is_none()), ("b", true));
        let keys: Vec<&str> = config.members().iter().map(|(key, _)| key.as_ref()).collect();
        assert_eq!(keys, ["Architecture", "ROOTFS", "architecture"]);
    }

    #[test]
    fn fields_of_a_wrong_type_are_refused() {
        for text in [
            "[]",
            "null",
            r#"{"architecture":1}"#,
            r#"{"rootfs":[]}"#,
            r#"{"rootfs":{"diff_ids":[1]}}"#,
            r#"{"history":{}}"#,
            r#"{"history":[1]}"#,
            r#"{"history":[{"created_by":[]}]}"#,
            r#"{"history":[{"empty_layer":"true"}]}"#,
        ] {
            assert!(matches!(Config::parse(text.as_bytes()), Err(InvalidConfig::Field { .. })), "{text}");
        }
    }
}
