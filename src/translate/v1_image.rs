//! The entries of schema 1's history, read and written as Docker does (moby `image/v1/imagev1.go`).
//!
//! What an engine older than 1.8.3 wrote, or one that does not say its version, goes through Go's struct of an image
//! first: fields that it does not have are lost and those that are missing are there. Image IDs depend on it.

use std::collections::BTreeMap;

use super::v1_container::ContainerConfig;
use crate::image::digest::Digest;
use crate::image::json::{self, Dialect, Object, ObjectWriter, Raw};
use crate::image::manifest::MANIFEST_BYTES_MAX;
use crate::image::timestamp::Timestamp;

/// Since this version engines write what other engines take as it is.
const TAKEN_AS_IT_IS_SINCE: &str = "1.8.3";
/// What schema 1 adds to a config. Spelled exactly so: Docker removes no others.
const ADDED_BY_SCHEMA1: [&str; 6] = ["id", "parent", "Size", "parent_id", "layer_id", "throwaway"];
/// How many hexadecimal digits an ID has.
const ID_LENGTH: usize = 64;

/// Why no engine takes an entry. Reads after "entry 3 of its history ".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum V1Fault {
    /// Not JSON, or beyond a limit.
    #[error(transparent)]
    Json(#[from] json::Fault),
    /// A field of another type than engines read there.
    #[error("has no valid `{field}`: expected {expected}")]
    Field {
        /// The field.
        field: &'static str,
        /// What would have been right.
        expected: &'static str,
    },
    /// An ID that another entry has too.
    #[error("has the id {}, which another entry has too", json::quoted(.id))]
    RepeatedId {
        /// The ID.
        id: String,
    },
    /// The entry below is not its parent.
    #[error("names the parent {}, but the entry below it is {}", json::quoted(.found), json::quoted(.expected))]
    Parent {
        /// The ID of the entry below.
        expected: String,
        /// The parent that is named.
        found: String,
    },
    /// The lowest entry has a parent.
    #[error("is the lowest and names a parent, {}, which the manifest does not have", json::quoted(.found))]
    BaseParent {
        /// The parent that is named.
        found: String,
    },
}

/// One `v1Compatibility` document.
pub(super) struct V1Image<'a> {
    members: Object<'a>,
    pub(super) id: String,
    pub(super) parent: String,
    pub(super) os: String,
    /// The step made no layer.
    pub(super) is_throwaway: bool,
    created: Option<Timestamp>,
    author: String,
    comment: String,
    docker_version: String,
    container_config: ContainerConfig<'a>,
}

impl<'a> V1Image<'a> {
    /// Reads an entry. Keys may be written in any case, as Go's decoder has it, and the last of several counts.
    pub(super) fn parse(text: &'a str) -> Result<Self, V1Fault> {
        let top = json::scan(text.as_bytes(), MANIFEST_BYTES_MAX, Dialect::Go)?.object();
        let members = top.ok_or(V1Fault::Field { field: "v1Compatibility", expected: "a JSON object" })?;
        let id = text_of(&members, "id")?;
        if id.len() != ID_LENGTH || !id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(V1Fault::Field { field: "id", expected: "64 lower-case hexadecimal digits" });
        }
        let is_throwaway = value_of(&members, "throwaway").map(Raw::boolean);
        let throwaway_fault = V1Fault::Field { field: "throwaway", expected: "true or false" };
        let image = Self {
            id,
            parent: text_of(&members, "parent")?,
            os: text_of(&members, "os")?,
            is_throwaway: is_throwaway.map_or(Ok(false), |truth| truth.ok_or(throwaway_fault))?,
            created: created(&members)?,
            author: text_of(&members, "author")?,
            comment: text_of(&members, "comment")?,
            docker_version: text_of(&members, "docker_version")?,
            container_config: ContainerConfig::read("container_config", value_of(&members, "container_config"))?,
            members,
        };
        // Docker reads every entry into its struct, whatever becomes of it then.
        image.re_encoded()?;
        Ok(image)
    }

    /// The entry as a config's `history` has it.
    pub(super) fn history(&self) -> String {
        let history = ObjectWriter::new()
            .string("created", &self.created_text())
            .string_unless_empty("author", &self.author)
            .string_unless_empty("created_by", &self.container_config.command())
            .string_unless_empty("comment", &self.comment);
        if self.is_throwaway { history.json("empty_layer", "true") } else { history }.finish()
    }

    /// The config of the image whose topmost entry this is: its members without what schema 1 added, sorted, with the
    /// layers and the history.
    pub(super) fn config(
        &self,
        diff_ids: &[&Digest],
        history: impl Iterator<Item = String>,
    ) -> Result<Vec<u8>, V1Fault> {
        let mut members =
            if is_older(&self.docker_version, TAKEN_AS_IT_IS_SINCE) { self.re_encoded()? } else { self.as_it_is() };
        let rootfs = ObjectWriter::new().string("type", "layers");
        let rootfs = match diff_ids {
            [] => rootfs,
            some => rootfs.json("diff_ids", &json::array(some.iter().map(|diff_id| json::string(diff_id.as_str())))),
        };
        members.insert("rootfs".to_owned(), rootfs.finish().into());
        members.insert("history".to_owned(), json::array(history).into());
        Ok(json::object(members))
    }

    fn as_it_is(&self) -> BTreeMap<String, Vec<u8>> {
        let members = self.members.clone().into_sorted().into_iter();
        let kept = members.filter(|(key, _)| !ADDED_BY_SCHEMA1.contains(&key.as_ref()));
        kept.map(|(key, value)| (key.into_owned(), json::compacted(value))).collect()
    }

    /// What is left when Go's struct of an image is read and written.
    fn re_encoded(&self) -> Result<BTreeMap<String, Vec<u8>>, V1Fault> {
        let mut members = BTreeMap::new();
        let texts = ["comment", "container", "docker_version", "author", "architecture", "variant", "os"];
        for field in texts {
            let text = text_of(&self.members, field)?;
            if !text.is_empty() {
                members.insert(field.to_owned(), json::string(&text).into());
            }
        }
        members.insert("created".to_owned(), json::string(&self.created_text()).into());
        members.insert("container_config".to_owned(), self.container_config.written()?.into());
        if let Some(config) = value_of(&self.members, "config") {
            let config = ContainerConfig::read("config", Some(config))?.written()?;
            members.insert("config".to_owned(), config.into());
        }
        Ok(members)
    }

    fn created_text(&self) -> String {
        self.created.as_ref().map_or_else(|| Timestamp::ZERO.to_owned(), Timestamp::to_string)
    }
}

/// The value of a struct's field; `null` counts as not there.
pub(super) fn value_of<'a>(object: &Object<'a>, field: &str) -> Option<Raw<'a>> {
    let mut found = object.members().iter().rev().filter(|(key, _)| json::equal_fold(key, field));
    found.next().map(|(_, value)| *value).filter(|value| !value.is_null())
}

/// A string; empty where there is none.
pub(super) fn text_of(object: &Object<'_>, field: &'static str) -> Result<String, V1Fault> {
    let text = value_of(object, field).map(|value| value.string().map(Into::into));
    text.unwrap_or_else(|| Some(String::new())).ok_or(V1Fault::Field { field, expected: "a string" })
}

fn created(object: &Object<'_>) -> Result<Option<Timestamp>, V1Fault> {
    let Some(value) = value_of(object, "created") else { return Ok(None) };
    let time = value.string().and_then(|text| Timestamp::parse(&text));
    time.map(Some).ok_or(V1Fault::Field { field: "created", expected: "a time in RFC 3339" })
}

/// moby's `versions.LessThan`: part by part as whole numbers, what is none counts as 0.
fn is_older(version: &str, than: &str) -> bool {
    let parts = |text: &str| text.split('.').map(|part| part.parse().unwrap_or(0)).collect::<Vec<i64>>();
    let (mut left, mut right) = (parts(version), parts(than));
    let length = left.len().max(right.len());
    left.resize(length, 0);
    right.resize(length, 0);
    left < right
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected by moby's `versions.LessThan`.
    #[test]
    fn versions_are_compared_as_docker_does() {
        for older in ["", "1.8.2", "1.8", "1.8.3-dev", "0.9.1", "x.9", "1.08.2"] {
            assert!(is_older(older, TAKEN_AS_IT_IS_SINCE), "{older}");
        }
        for newer in ["1.8.3", "1.8.3.0", "1.10.0", "17.03.1-ce", "20.10.24+dfsg1", "2"] {
            assert!(!is_older(newer, TAKEN_AS_IT_IS_SINCE), "{newer}");
        }
    }
}
