//! Lists and indexes in the forms that Docker and the OCI tools give them, written out here by hand, so that they are an
//! oracle for what the gateway derives.

use serde_json::{Value, json};

use super::images::{Document, INDEX, LIST};

/// An entry of a list or index.
#[derive(Clone, Debug)]
pub struct Entry {
    pub media_type: String,
    pub digest: String,
    pub size: usize,
    pub platform: Option<Platform>,
    pub annotations: Vec<(String, String)>,
    pub urls: Vec<String>,
    pub artifact_type: Option<String>,
}

/// What an entry's image runs on.
#[derive(Clone, Debug, Default)]
pub struct Platform {
    pub architecture: String,
    pub os: String,
    pub os_version: Option<String>,
    pub os_features: Vec<String>,
    pub variant: Option<String>,
    pub features: Vec<String>,
}

impl Entry {
    /// An entry without a platform.
    pub fn of(child: &Document) -> Self {
        Self {
            media_type: child.content_type.clone(),
            digest: child.digest.clone(),
            size: child.bytes.len(),
            platform: None,
            annotations: Vec::new(),
            urls: Vec::new(),
            artifact_type: None,
        }
    }

    /// An entry for `os/architecture` or `os/architecture/variant`.
    pub fn on(child: &Document, platform: &str) -> Self {
        let mut parts = platform.split('/').map(str::to_owned);
        let (os, architecture) = (parts.next().unwrap(), parts.next().unwrap());
        let platform = Platform { architecture, os, variant: parts.next(), ..Platform::default() };
        Self { platform: Some(platform), ..Self::of(child) }
    }

    /// With another media type than the child has.
    pub fn called(mut self, media_type: &str) -> Self {
        media_type.clone_into(&mut self.media_type);
        self
    }

    pub fn annotated(mut self, key: &str, value: &str) -> Self {
        self.annotations.push((key.to_owned(), value.to_owned()));
        self
    }

    pub fn version(mut self, os_version: &str) -> Self {
        self.platform.as_mut().unwrap().os_version = Some(os_version.to_owned());
        self
    }

    pub fn artifact_type(mut self, artifact_type: &str) -> Self {
        self.artifact_type = Some(artifact_type.to_owned());
        self
    }
}

/// An attestation as `BuildKit` lists it, about the image with this digest.
pub fn attestation(statement: &Document, about: &str) -> Entry {
    Entry::on(statement, "unknown/unknown")
        .annotated("vnd.docker.reference.digest", about)
        .annotated("vnd.docker.reference.type", "attestation-manifest")
}

/// As `docker manifest push` writes it: indented by three spaces, `size` before `digest`, nothing but the platform beside.
pub fn docker_list(entries: &[Entry]) -> Document {
    let entries: Vec<String> = entries.iter().map(|entry| indented(&docker_entry(entry), "      ")).collect();
    let manifests =
        if entries.is_empty() { "[]".to_owned() } else { format!("[\n      {}\n   ]", entries.join(",\n      ")) };
    Document::new(
        LIST,
        format!("{{\n   \"schemaVersion\": 2,\n   \"mediaType\": \"{LIST}\",\n   \"manifests\": {manifests}\n}}"),
    )
}

/// As the OCI tools print it: compact, `digest` before `size`.
pub fn oci_index(entries: &[Entry]) -> Document {
    annotated_index(entries, &[])
}

/// With annotations of the index itself, in key order.
pub fn annotated_index(entries: &[Entry], annotations: &[(&str, &str)]) -> Document {
    let entries: Vec<String> = entries.iter().map(oci_entry).collect();
    let annotations: Vec<(String, String)> =
        annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let tail = if annotations.is_empty() { String::new() } else { format!(",{}", members(&annotations)) };
    Document::new(
        INDEX,
        format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]{tail}}}"#, entries.join(",")),
    )
}

/// The members of an object, each with its value's text, that are there.
type Members = Vec<(&'static str, String)>;

fn docker_entry(entry: &Entry) -> Members {
    let mut members = vec![
        ("mediaType", quoted(&entry.media_type)),
        ("size", entry.size.to_string()),
        ("digest", quoted(&entry.digest)),
    ];
    if let Some(platform) = &entry.platform {
        let mut said = platform_members(platform);
        if !platform.features.is_empty() {
            said.push(("features", indented_strings(&platform.features)));
        }
        for (key, value) in &mut said {
            if *key == "os.features" {
                *value = indented_strings(&platform.os_features);
            }
        }
        members.push(("platform", indented(&said, "   ")));
    }
    members
}

fn oci_entry(entry: &Entry) -> String {
    let mut parts = vec![
        format!(r#""mediaType":{}"#, quoted(&entry.media_type)),
        format!(r#""digest":{}"#, quoted(&entry.digest)),
        format!(r#""size":{}"#, entry.size),
    ];
    if !entry.urls.is_empty() {
        parts.push(format!(r#""urls":{}"#, json!(entry.urls)));
    }
    if !entry.annotations.is_empty() {
        parts.push(members(&entry.annotations));
    }
    if let Some(platform) = &entry.platform {
        let said: Vec<String> =
            platform_members(platform).iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        parts.push(format!(r#""platform":{{{}}}"#, said.join(",")));
    }
    if let Some(artifact_type) = &entry.artifact_type {
        parts.push(format!(r#""artifactType":{}"#, quoted(artifact_type)));
    }
    format!("{{{}}}", parts.join(","))
}

/// What both kinds of documents say of a platform, in the order in which both say it.
fn platform_members(platform: &Platform) -> Members {
    let mut said = vec![("architecture", quoted(&platform.architecture)), ("os", quoted(&platform.os))];
    if let Some(version) = &platform.os_version {
        said.push(("os.version", quoted(version)));
    }
    if !platform.os_features.is_empty() {
        said.push(("os.features", json!(platform.os_features).to_string()));
    }
    if let Some(variant) = &platform.variant {
        said.push(("variant", quoted(variant)));
    }
    said
}

fn members(annotations: &[(String, String)]) -> String {
    let pairs: Vec<String> =
        annotations.iter().map(|(key, value)| format!("{}:{}", quoted(key), quoted(value))).collect();
    format!(r#""annotations":{{{}}}"#, pairs.join(","))
}

/// Only for words that every JSON writer writes alike.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// An object whose own lines stand `deep` in.
fn indented(members: &Members, deep: &str) -> String {
    let lines: Vec<String> = members
        .iter()
        .map(|(key, value)| format!("{deep}   \"{key}\": {}", value.replace('\n', &format!("\n{deep}"))))
        .collect();
    format!("{{\n{}\n{deep}}}", lines.join(",\n"))
}

/// An array of strings, its lines as deep as those of a platform's members within their object.
fn indented_strings(values: &[String]) -> String {
    let lines: Vec<String> = values.iter().map(|value| format!("      {}", quoted(value))).collect();
    format!("[\n{}\n   ]", lines.join(",\n"))
}
