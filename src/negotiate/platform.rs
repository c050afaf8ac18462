//! One platform's image out of a list or index, for a client that reads neither.

use std::fmt;

use crate::image::descriptor::{Descriptor, Role};
use crate::image::platform::Platform;

use super::glob::Glob;

/// The most entries that are worth trying for one request: each may cost a fetch. Real lists have one to three.
pub const RANKED_MAX: usize = 8;

/// The most platforms that a refusal names, and the most bytes of one that it prints: the words are the document's.
const NAMED_MAX: usize = 16;
const NAMED_BYTES_MAX: usize = 64;

/// The platform that a client runs, and the variants of its architecture in the order in which they suit it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedPlatform {
    platform: Platform,
    /// What is not among them comes last, or never where the client's own variant is known.
    variants: Vec<Option<String>>,
    /// The build of Windows that the client runs on: an image of a later one does not start there.
    windows_build: Option<u32>,
}

/// A platform that the operator fixed for some repositories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformRule {
    /// For which.
    pub repositories: Glob,
    /// Which.
    pub platform: Platform,
}

/// As it is written: `GLOB=OS/ARCHITECTURE`.
impl fmt::Display for PlatformRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}={}", self.repositories, self.platform)
    }
}

impl WantedPlatform {
    /// `platform`, with `arm_variants` as the order of variants for an `arm` that does not say its own.
    pub fn new(platform: Platform, arm_variants: &[Option<String>]) -> Self {
        let variants = match (&platform.variant, platform.architecture.as_str()) {
            (Some(variant), _) => runs_on(variant),
            (None, "arm") => arm_variants.to_vec(),
            (None, "arm64") => vec![Some("v8".into()), None],
            (None, _) => vec![None],
        };
        Self { platform, variants, windows_build: None }
    }

    /// The same on this build of Windows, if the client says it.
    #[must_use]
    pub fn on_windows_build(mut self, build: Option<u32>) -> Self {
        self.windows_build = build.filter(|_| self.platform.os == "windows");
        self
    }

    /// The platform itself.
    pub fn platform(&self) -> &Platform {
        &self.platform
    }

    /// The build of Windows that the client says it runs on.
    pub fn windows_build(&self) -> Option<u32> {
        self.windows_build
    }

    /// How well `offered` suits, 0 the best; `None` where it does not.
    fn rank(&self, offered: &Platform) -> Option<(usize, u32)> {
        Some((self.variant_rank(offered)?, self.build_rank(offered)))
    }

    /// The highest build that is not later than the client's own goes first; without builds, the document's order.
    fn build_rank(&self, offered: &Platform) -> u32 {
        let build = offered.os_version.as_deref().and_then(|version| version.split('.').nth(2)?.parse::<u32>().ok());
        match (self.windows_build, build) {
            (None, _) => 0,
            (Some(own), Some(build)) => own.checked_sub(build).unwrap_or(u32::MAX),
            (Some(_), None) => u32::MAX - 1,
        }
    }

    fn variant_rank(&self, offered: &Platform) -> Option<usize> {
        if offered.os != self.platform.os || offered.architecture != self.platform.architecture {
            return None;
        }
        let offered = offered.variant.as_deref().filter(|variant| !variant.is_empty());
        let position = self.variants.iter().position(|variant| variant.as_deref() == offered);
        match (position, &self.platform.variant) {
            (Some(position), _) => Some(position),
            (None, None) => Some(self.variants.len()),
            (None, Some(_)) => None,
        }
    }
}

impl fmt::Display for WantedPlatform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.platform.fmt(formatter)
    }
}

/// The variants whose programs run on `variant`, best first: of `v7` itself, `v6` down to `v1`, then none.
fn runs_on(variant: &str) -> Vec<Option<String>> {
    let level: Option<u8> = variant.strip_prefix('v').and_then(|level| level.parse().ok());
    let mut variants = vec![Some(variant.to_owned())];
    if let Some(level) = level {
        variants.extend((1..level.min(10)).rev().map(|lower| Some(format!("v{lower}"))));
    }
    variants.push(None);
    variants
}

/// The entries of a list or index that suit `wanted`, the best first and at most [`RANKED_MAX`]; among equals the
/// document's order, which for Windows is how Docker orders `os.version`. Never an attestation, an artifact or a nested
/// index.
///
/// An entry without a platform counts only where it is the only image of the document: there is nothing else it could be.
///
/// # Errors
/// [`NoPlatform`] if nothing suits: an image of another platform would only fail later, with a worse message.
pub fn rank<'a>(entries: &'a [Descriptor], wanted: &WantedPlatform) -> Result<Vec<&'a Descriptor>, NoPlatform> {
    let images: Vec<&Descriptor> = entries.iter().filter(|entry| entry.role() == Role::Image).collect();
    if let [only] = images[..]
        && only.known_platform().is_none()
    {
        return Ok(images);
    }
    let mut ranked: Vec<((usize, u32), &Descriptor)> =
        images.iter().filter_map(|image| Some((wanted.rank(image.known_platform()?)?, *image))).collect();
    if ranked.is_empty() {
        return Err(NoPlatform::among(&images, wanted));
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    Ok(ranked.into_iter().take(RANKED_MAX).map(|(_, image)| image).collect())
}

/// No image of the list or index suits the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct NoPlatform {
    wanted: String,
    available: Vec<String>,
    more: bool,
}

impl NoPlatform {
    fn among(images: &[&Descriptor], wanted: &WantedPlatform) -> Self {
        let is_printable =
            |text: &String| text.len() <= NAMED_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
        let mut named =
            images.iter().filter_map(|image| image.known_platform()).map(Platform::to_string).filter(is_printable);
        let mut available: Vec<String> = Vec::new();
        let more = named.any(|platform| {
            let known = available.contains(&platform);
            let full = available.len() == NAMED_MAX;
            if !known && !full {
                available.push(platform);
            }
            !known && full
        });
        Self { wanted: wanted.to_string(), available, more }
    }
}

impl fmt::Display for NoPlatform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "no image for {} is stored under this tag", self.wanted)?;
        match (self.available.is_empty(), self.more) {
            (true, _) => formatter.write_str(", nor for any other platform that is named"),
            (false, false) => write!(formatter, ", only for {}", self.available.join(", ")),
            (false, true) => write!(formatter, ", only for {} and others", self.available.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::image::descriptor::ATTESTATION;
    use crate::image::media_type::{OCI_CONFIG, OCI_MANIFEST};

    use std::collections::BTreeMap;

    use super::super::client::Policy;
    use super::*;
    use crate::image::digest::Digest;

    fn entry(platform: Option<&str>) -> Descriptor {
        let platform = platform.map(|text| text.parse().unwrap());
        Descriptor {
            media_type: OCI_MANIFEST.into(),
            digest: Digest::sha256(b"child"),
            size: 7,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            platform,
            artifact_type: None,
        }
    }

    fn entries(platforms: &[&str]) -> Vec<Descriptor> {
        platforms.iter().map(|platform| entry(Some(platform))).collect()
    }

    fn wanted(platform: &str) -> WantedPlatform {
        WantedPlatform::new(platform.parse().unwrap(), &Policy::default().arm_variants)
    }

    fn ranked(platforms: &[&str], platform: &str) -> Vec<String> {
        let entries = entries(platforms);
        let found = rank(&entries, &wanted(platform)).unwrap();
        found.iter().map(|entry| entry.platform.as_ref().unwrap().to_string()).collect()
    }

    #[test]
    fn an_arm_client_gets_what_runs_everywhere() {
        let all = ["linux/arm/v7", "linux/arm64/v8", "linux/arm/v8", "linux/arm", "linux/arm/v5", "linux/arm/v6"];
        assert_eq!(
            ranked(&all, "linux/arm"),
            ["linux/arm/v6", "linux/arm/v5", "linux/arm", "linux/arm/v7", "linux/arm/v8"]
        );
        assert_eq!(ranked(&all, "linux/arm/v6"), ["linux/arm/v6", "linux/arm/v5", "linux/arm"]);
    }

    #[test]
    fn variants_of_64_bits_are_ranked() {
        assert_eq!(ranked(&["linux/arm64", "linux/arm64/v8"], "linux/arm64"), ["linux/arm64/v8", "linux/arm64"]);
        let amd64 = ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64"];
        assert_eq!(ranked(&amd64, "linux/amd64"), ["linux/amd64", "linux/amd64/v3", "linux/amd64/v2"]);
    }

    #[test]
    fn windows_gets_the_first_version() {
        let mut entries = entries(&["linux/amd64", "windows/amd64", "windows/amd64"]);
        for (entry, version) in entries.iter_mut().zip(["", "10.0.20348.1", "10.0.17763.1"]) {
            entry.platform.as_mut().unwrap().os_version = Some(version.into());
        }
        let found = rank(&entries, &wanted("windows/amd64")).unwrap();
        assert_eq!(found.first().unwrap().platform.as_ref().unwrap().os_version.as_deref(), Some("10.0.20348.1"));
    }

    #[test]
    fn attestations_artifacts_and_nested_indexes_are_never_picked() {
        let attestation = entry(Some("unknown/unknown"));
        let mut annotated = entry(Some("linux/amd64"));
        annotated.annotations.insert(ATTESTATION.into(), "attestation-manifest".into());
        let mut artifact = entry(Some("linux/amd64"));
        artifact.artifact_type = Some("application/vnd.example.sbom".into());
        let mut nested = entry(Some("linux/amd64"));
        nested.media_type = "application/vnd.oci.image.index.v1+json".into();
        let mut image = entry(Some("linux/amd64"));
        image.artifact_type = Some(OCI_CONFIG.into());
        let entries = [attestation, annotated, artifact, nested, image];
        let found = rank(&entries, &wanted("linux/amd64")).unwrap();
        assert_eq!(found, [entries.last().unwrap()]);
    }

    #[test]
    fn an_entry_without_a_platform_counts_if_it_is_the_only_image() {
        let alone = [entry(None), entry(Some("unknown/unknown"))];
        assert_eq!(rank(&alone, &wanted("linux/arm")).unwrap().len(), 1);
        let mut empty = entry(None);
        empty.platform = Some(Platform { os: String::new(), architecture: String::new(), ..Platform::linux_amd64() });
        assert_eq!(rank(&[empty], &wanted("linux/arm")).unwrap().len(), 1);
        let two = [entry(None), entry(None)];
        assert!(rank(&two, &wanted("linux/arm")).is_err());
    }

    #[test]
    fn no_platform_names_those_that_there_are() {
        let entries = entries(&["linux/amd64", "linux/amd64", "linux/arm64/v8", "unknown/unknown"]);
        let error = rank(&entries, &wanted("linux/arm")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no image for linux/arm is stored under this tag, only for linux/amd64, linux/arm64/v8"
        );
        let nothing = rank(&[], &wanted("linux/arm")).unwrap_err();
        assert!(nothing.to_string().ends_with("nor for any other platform that is named"));
    }

    #[test]
    fn what_a_document_says_at_length_is_not_repeated() {
        let mut long = entry(Some("linux/amd64"));
        long.platform.as_mut().unwrap().variant = Some("v".repeat(100));
        let architectures: Vec<String> = (0..1000).map(|number| format!("linux/a{number}")).collect();
        let mut entries: Vec<Descriptor> = architectures.iter().map(|platform| entry(Some(platform))).collect();
        entries.push(long);
        let text = rank(&entries, &wanted("linux/arm")).unwrap_err().to_string();
        assert!(text.ends_with("linux/a14, linux/a15 and others") && text.len() < 300, "{text}");
    }

    #[test]
    fn no_more_are_tried_than_is_sane() {
        let same = vec!["linux/amd64"; 100];
        assert_eq!(ranked(&same, "linux/amd64").len(), RANKED_MAX);
    }
}
