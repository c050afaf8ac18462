//! Image configs (OCI image-spec `config.md`; Docker's has more fields). Only what a translation asks is decoded: the
//! bytes of a config are never rewritten, because their digest is the image's identity.

use std::borrow::Cow;

use super::json::{self, Dialect, Raw};
use super::manifest::CONFIG_BYTES_MAX;
use super::platform::Platform;
use super::timestamp::Timestamp;

/// An image config, read as Go's decoder reads one into a struct, except that names must be exact. A field that comes
/// again is read over what is there: `null` leaves a string, a truth value or a time as it was and empties a list, and
/// lists and objects are read element by element and field by field.
#[derive(Clone, Debug, Default)]
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
        let top = json::scan(bytes, CONFIG_BYTES_MAX, Dialect::Go)?.object();
        let top = top.ok_or(InvalidConfig::Field { field: "config", expected: "a JSON object" })?;
        let mut config = Self::default();
        for (key, value) in top.members() {
            match key.as_ref() {
                "architecture" => read_string(&mut config.architecture, *value, InvalidConfig::string("architecture"))?,
                "created" => read_time(&mut config.created, *value),
                "rootfs" if value.is_null() => config.rootfs = None,
                "rootfs" => config.rootfs.get_or_insert_default().read(*value)?,
                "history" => read_list(&mut config.history, *value, InvalidConfig::HISTORY, History::read)?,
                _ => {}
            }
        }
        config.members = top.into_sorted();
        Ok(config)
    }

    /// The top level, the last of equal keys only, in the order of the keys' bytes.
    pub fn members(&self) -> &[(Cow<'a, str>, Raw<'a>)] {
        &self.members
    }
}

/// The platform that a config of at most [`CONFIG_BYTES_MAX`] bytes names; empty words where it names none.
pub fn platform(bytes: &[u8]) -> Result<Platform, InvalidConfig> {
    const FEATURES: InvalidConfig = InvalidConfig::Field { field: "os.features", expected: "an array of strings" };
    let top = json::scan(bytes, CONFIG_BYTES_MAX, Dialect::Go)?.object();
    let top = top.ok_or(InvalidConfig::Field { field: "config", expected: "a JSON object" })?;
    let mut platform = Platform::new("", "");
    let (mut variant, mut os_version) = (String::new(), String::new());
    for (key, value) in top.members() {
        match key.as_ref() {
            "os" => read_string(&mut platform.os, *value, InvalidConfig::string("os"))?,
            "architecture" => {
                read_string(&mut platform.architecture, *value, InvalidConfig::string("architecture"))?;
            }
            "variant" => read_string(&mut variant, *value, InvalidConfig::string("variant"))?,
            "os.version" => read_string(&mut os_version, *value, InvalidConfig::string("os.version"))?,
            "os.features" => read_list(&mut platform.os_features, *value, FEATURES, |feature, value| {
                read_string(feature, value, FEATURES)
            })?,
            _ => {}
        }
    }
    platform.variant = Some(variant).filter(|variant| !variant.is_empty());
    platform.os_version = Some(os_version).filter(|version| !version.is_empty());
    Ok(platform)
}

impl Rootfs {
    fn read(&mut self, value: Raw<'_>) -> Result<(), InvalidConfig> {
        const DIGESTS: InvalidConfig =
            InvalidConfig::Field { field: "rootfs.diff_ids", expected: "an array of digests" };
        let object = value.object().ok_or(InvalidConfig::Field { field: "rootfs", expected: "an object" })?;
        for (key, value) in object.members() {
            match key.as_ref() {
                "diff_ids" => read_list(&mut self.diff_ids, *value, DIGESTS, |diff_id, value| {
                    read_string(diff_id, value, DIGESTS)
                })?,
                "base_layer" => read_string(&mut self.base_layer, *value, InvalidConfig::string("base_layer"))?,
                _ => {}
            }
        }
        Ok(())
    }
}

impl History {
    fn read(&mut self, value: Raw<'_>) -> Result<(), InvalidConfig> {
        if value.is_null() {
            return Ok(());
        }
        let object = value.object().ok_or(InvalidConfig::HISTORY)?;
        for (key, value) in object.members() {
            match key.as_ref() {
                "created" => read_time(&mut self.created, *value),
                "created_by" => read_string(&mut self.created_by, *value, InvalidConfig::string("created_by"))?,
                "author" => read_string(&mut self.author, *value, InvalidConfig::string("author"))?,
                "comment" => read_string(&mut self.comment, *value, InvalidConfig::string("comment"))?,
                "empty_layer" => read_boolean(&mut self.empty_layer, *value)?,
                _ => {}
            }
        }
        Ok(())
    }
}

impl InvalidConfig {
    const HISTORY: Self = Self::Field { field: "history", expected: "an array of objects" };

    const fn string(field: &'static str) -> Self {
        Self::Field { field, expected: "a string" }
    }
}

fn read_time(field: &mut Option<Timestamp>, value: Raw<'_>) {
    if !value.is_null() {
        *field = value.string().and_then(|text| Timestamp::parse(&text));
    }
}

fn read_string(field: &mut String, value: Raw<'_>, fault: InvalidConfig) -> Result<(), InvalidConfig> {
    if !value.is_null() {
        *field = value.string().ok_or(fault)?.into();
    }
    Ok(())
}

fn read_boolean(field: &mut bool, value: Raw<'_>) -> Result<(), InvalidConfig> {
    if !value.is_null() {
        let fault = InvalidConfig::Field { field: "history.empty_layer", expected: "true or false" };
        *field = value.boolean().ok_or(fault)?;
    }
    Ok(())
}

fn read_list<T: Default>(
    field: &mut Vec<T>,
    value: Raw<'_>,
    fault: InvalidConfig,
    read: impl Fn(&mut T, Raw<'_>) -> Result<(), InvalidConfig>,
) -> Result<(), InvalidConfig> {
    let elements = if value.is_null() { Vec::new() } else { value.array().ok_or(fault)? };
    field.resize_with(elements.len(), T::default);
    field.iter_mut().zip(elements).try_for_each(|(element, value)| read(element, value))
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

    /// Expected values from Go's `json.Unmarshal` into the same structs.
    #[test]
    fn a_field_that_comes_again_is_read_over_what_is_there() {
        let text = br#"{"architecture":"a","architecture":null,"created":"2020-01-02T03:04:05Z","created":null,
            "rootfs":{"diff_ids":["x","y"],"base_layer":"w"},"rootfs":{"diff_ids":[null],"base_layer":null},
            "history":[{"created_by":"1","empty_layer":true},{"comment":"2"}],
            "history":[{"created_by":null,"empty_layer":null},null,{}]}"#;
        let config = Config::parse(text).unwrap();
        assert_eq!((config.architecture.as_str(), config.created.is_some()), ("a", true));
        let rootfs = Rootfs { diff_ids: vec!["x".to_owned()], base_layer: "w".to_owned() };
        assert_eq!(config.rootfs, Some(rootfs));
        let first = History { created_by: "1".to_owned(), empty_layer: true, ..History::default() };
        let second = History { comment: "2".to_owned(), ..History::default() };
        assert_eq!(config.history, [first, second, History::default()]);

        let config = Config::parse(br#"{"rootfs":{},"rootfs":null,"history":[{}],"history":null}"#).unwrap();
        assert_eq!((config.rootfs, config.history.len()), (None, 0));
        let wrong_at_first = br#"{"architecture":1,"architecture":"a"}"#;
        assert!(matches!(Config::parse(wrong_at_first), Err(InvalidConfig::Field { .. })));
    }

    /// Expected values from Go's `json.Unmarshal`.
    #[test]
    fn each_byte_that_is_not_utf_8_is_a_replacement_character() {
        let text =
            b"{\"architecture\":\"\xf0\x9f\x98\",\"history\":[{\"created_by\":\"\xc3\\u00a9\"}],\"\xff\":1,\"\xfe\":2}";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.architecture, "\u{fffd}\u{fffd}\u{fffd}");
        assert_eq!(config.history.first().unwrap().created_by, "\u{fffd}\u{a9}");
        let members: Vec<_> = config.members().iter().map(|(key, value)| (key.as_ref(), value.as_bytes())).collect();
        assert_eq!(members.last(), Some(&("\u{fffd}", &b"2"[..])), "both keys are one");
        assert_eq!(members.len(), 3);
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
