//! What is known about clients, as data: the first rule that matches a `User-Agent` says what its sender reads, whatever
//! it claims in `Accept`. A new quirk is a new line here.

use std::fmt;

use crate::image::media_type::Format::{Index, List, Oci, Schema1, Schema2};

use super::formats::Formats;
use super::user_agent::{UserAgent, Version};

/// One line of the table: which products of which versions it is about, and what is true of them.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// The product tokens it is about, case as written.
    pub products: &'static [&'static str],
    /// The versions it is about.
    pub versions: Versions,
    /// The class, for the access log and metrics. Several lines may share one.
    pub class: &'static str,
    /// The formats that it truly reads.
    pub reads: Formats,
    /// How its `Accept` counts.
    pub mode: Mode,
    /// What else is odd about it.
    pub quirks: &'static [Quirk],
}

/// A range of versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versions {
    /// Every version, even one that cannot be parsed.
    Any,
    /// From the first on, before the second. A version that cannot be parsed (`dev`) is in no such range.
    Within(Version, Version),
}

/// How the `Accept` of a client counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It gets what it both accepts and reads.
    Plain,
    /// Its `Accept` is ignored: Docker before 1.10 sends none, whatever a proxy adds.
    Strict,
    /// It compares digests with those that others pulled: it always gets the stored form.
    Probe,
}

/// Something that a class of clients cannot do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quirk {
    /// It cannot unpack layers that are compressed with zstd.
    NoZstd,
    /// A Docker document with OCI parts breaks it: a list with OCI children (they are parsed as signed schema 1,
    /// "missing signature key"), a schema 2 whose config has OCI's type.
    DockerPartsOnly,
    /// It takes the first entry of its architecture out of a list and looks at no variant.
    FirstOfArchitecture,
    /// An image without layers panics its request handler.
    ZeroLayersPanic,
}

/// Docker before 1.10.
const ONLY_SCHEMA1: Formats = Formats::of(&[Schema1]);
/// Docker before it knew OCI.
const DOCKER_TYPES: Formats = Formats::of(&[Schema1, Schema2, List]);
/// Docker since then: no artifacts.
const IMAGES: Formats = Formats::of(&[Schema1, Schema2, List, Oci, Index]);
/// Docker since it refuses schema 1 by default.
const MODERN_IMAGES: Formats = IMAGES.without(Schema1);
/// Everything, artifacts too.
const ALL: Formats = Formats::ALL;
/// Everything but schema 1.
const ALL_BUT_SCHEMA1: Formats = ALL.without(Schema1);

const fn from(from: Version) -> Versions {
    Versions::Within(from, Version::new(u32::MAX, 0, 0))
}

const fn within(from: Version, before: Version) -> Versions {
    Versions::Within(from, before)
}

const fn v(major: u32, minor: u32, patch: u32) -> Version {
    Version::new(major, minor, patch)
}

/// The table. The first line that matches counts.
///
/// Versions before 1.0 of Docker and before 0.1 of `BuildKit` are nightly and development builds (`0.0.0-20231223-abc`):
/// nobody knows what they read, so they match nothing. Docker 19.03.0 to 19.03.4 lists OCI and cannot read it.
#[rustfmt::skip]
const TABLE: &[Rule] = &[
    docker(within(v(1, 0, 0), v(1, 10, 0)),    "docker<1.10",       ONLY_SCHEMA1,  Mode::Strict, &[Quirk::NoZstd]),
    docker(within(v(1, 10, 0), v(1, 11, 0)),   "docker 1.10-18.05", DOCKER_TYPES,  Mode::Plain,  &[Quirk::NoZstd, Quirk::DockerPartsOnly, Quirk::FirstOfArchitecture, Quirk::ZeroLayersPanic]),
    docker(within(v(1, 11, 0), v(18, 6, 0)),   "docker 1.10-18.05", DOCKER_TYPES,  Mode::Plain,  &[Quirk::NoZstd, Quirk::DockerPartsOnly, Quirk::FirstOfArchitecture]),
    docker(within(v(18, 6, 0), v(19, 3, 0)),   "docker 18.06-25",   IMAGES,        Mode::Plain,  &[Quirk::NoZstd]),
    docker(within(v(19, 3, 0), v(19, 3, 5)),   "docker 1.10-18.05", DOCKER_TYPES,  Mode::Plain,  &[Quirk::NoZstd, Quirk::DockerPartsOnly]),
    docker(within(v(19, 3, 5), v(23, 0, 0)),   "docker 18.06-25",   IMAGES,        Mode::Plain,  &[Quirk::NoZstd]),
    docker(within(v(23, 0, 0), v(26, 0, 0)),   "docker 18.06-25",   IMAGES,        Mode::Plain,  &[]),
    docker(from(v(26, 0, 0)),                  "docker>=26",        MODERN_IMAGES, Mode::Plain,  &[]),

    tool(&["containerd"], within(v(1, 0, 0), v(1, 5, 0)),  "containerd<2.0",  ALL,             &[Quirk::NoZstd]),
    tool(&["containerd"], within(v(1, 5, 0), v(2, 0, 0)),  "containerd<2.0",  ALL,             &[]),
    tool(&["containerd"], from(v(2, 0, 0)),                "containerd>=2.0", ALL_BUT_SCHEMA1, &[]),
    tool(&["buildkit"],   within(v(0, 1, 0), v(0, 23, 0)), "buildkit<0.23",   ALL,             &[]),
    tool(&["buildkit"],   from(v(0, 23, 0)),               "buildkit>=0.23",  ALL_BUT_SCHEMA1, &[]),

    // the library's own token first: it carries the version that tells whether zstd can be read
    tool(&["go-containerregistry"], within(v(0, 0, 0), v(0, 13, 0)), "ggcr", ALL_BUT_SCHEMA1, &[Quirk::NoZstd]),
    tool(&["go-containerregistry"], Versions::Any,                   "ggcr", ALL_BUT_SCHEMA1, &[]),
    tool(&["crane", "ko", "cosign", "trivy", "kaniko", "clairctl"], Versions::Any, "ggcr", ALL_BUT_SCHEMA1, &[]),
    // before 1.5 it was built on containers/image, which reads everything
    tool(&["Apptainer"], from(v(1, 5, 0)), "apptainer>=1.5", ALL_BUT_SCHEMA1, &[]),
    tool(&["oras-go", "oras", "Helm"], Versions::Any, "oras/helm", ALL_BUT_SCHEMA1, &[]),

    Rule { products: &["Watchtower"], versions: Versions::Any, class: "digest probe", reads: ALL, mode: Mode::Probe, quirks: &[] },
];

const fn docker(versions: Versions, class: &'static str, reads: Formats, mode: Mode, quirks: &'static [Quirk]) -> Rule {
    Rule { products: &["docker"], versions, class, reads, mode, quirks }
}

const fn tool(
    products: &'static [&'static str],
    versions: Versions,
    class: &'static str,
    reads: Formats,
    quirks: &'static [Quirk],
) -> Rule {
    Rule { products, versions, class, reads, mode: Mode::Plain, quirks }
}

/// A rule that matched, and the version of the product that it matched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recognised {
    /// The line of the table.
    pub rule: &'static Rule,
    /// The product that matched, as it writes itself.
    pub product: &'static str,
    /// The version, where it can be parsed.
    pub version: Option<Version>,
}

/// The first rule that matches a product of `user_agent`; `None` for a client that is not known.
pub fn recognise(user_agent: &UserAgent<'_>) -> Option<Recognised> {
    TABLE.iter().find_map(|rule| {
        user_agent.products().find_map(|found| {
            let product = rule.products.iter().copied().find(|name| *name == found.name)?;
            let version = Version::parse(found.version);
            rule.versions.hold(version).then_some(Recognised { rule, product, version })
        })
    })
}

/// The name in a sentence: `Docker 17.03.2`, `crane 0.21.9`, `Watchtower`.
impl fmt::Display for Recognised {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.product {
            "docker" => "Docker",
            "buildkit" => "BuildKit",
            product => product,
        })?;
        match self.version {
            // Docker counted months from 17.03 to 19.03
            Some(Version { major: major @ 17..=19, minor, patch }) if self.product == "docker" => {
                write!(formatter, " {major}.{minor:02}.{patch}")
            }
            Some(version) => write!(formatter, " {version}"),
            None => Ok(()),
        }
    }
}

impl Versions {
    fn hold(self, version: Option<Version>) -> bool {
        match (self, version) {
            (Self::Any, _) => true,
            (Self::Within(from, before), Some(version)) => from <= version && version < before,
            (Self::Within(..), None) => false,
        }
    }
}

/// A client as it introduces itself, for showing what it would get.
#[derive(Clone, Copy, Debug)]
pub struct KnownClient {
    /// What people call it.
    pub name: &'static str,
    /// Its `User-Agent`, where it sends one.
    pub user_agent: Option<&'static str>,
    /// Its `Accept` lines.
    pub accept: &'static [&'static str],
}

const DOCKER_ACCEPT: &[&str] = &[
    "application/json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const DOCKER_OCI_ACCEPT: &[&str] = &[
    "application/json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
];
const CONTAINERD_ACCEPT: &[&str] = &["application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, */*"];
const CONTAINERS_IMAGE_ACCEPT: &[&str] = &[
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.index.v1+json",
];
const GGCR_ACCEPT: &[&str] = &["application/vnd.docker.distribution.manifest.v1+json,\
     application/vnd.docker.distribution.manifest.v1+prettyjws,application/vnd.docker.distribution.manifest.v2+json,\
     application/vnd.oci.image.manifest.v1+json,application/vnd.docker.distribution.manifest.list.v2+json,\
     application/vnd.oci.image.index.v1+json"];
const ORAS_ACCEPT: &[&str] = &["application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, application/vnd.oci.artifact.manifest.v1+json"];
const WATCHTOWER_ACCEPT: &[&str] = &[
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
];

const fn known(name: &'static str, user_agent: &'static str, accept: &'static [&'static str]) -> KnownClient {
    KnownClient { name, user_agent: Some(user_agent), accept }
}

/// One client per class and notable version, oldest first.
#[rustfmt::skip]
pub const KNOWN: &[KnownClient] = &[
    known("Docker 1.6", "docker/1.6.2 go/go1.4.2 git-commit/7c8fca2 kernel/3.16.0-4-amd64 os/linux arch/amd64", &[]),
    known("Docker 1.9", "docker/1.9.1 go/go1.4.3 git-commit/a34a1d5 kernel/3.16.0-4-amd64 os/linux arch/amd64", &[]),
    known("Docker 1.10", "docker/1.10.3 go/go1.5.3 git-commit/20f81dd kernel/3.16.0-4-amd64 os/linux arch/amd64", DOCKER_ACCEPT),
    known("Docker 17.03", "docker/17.03.2-ce go/go1.7.5 git-commit/f5ec1e2 kernel/3.16.0-4-amd64 os/linux arch/amd64", DOCKER_ACCEPT),
    known("Docker 18.09", "docker/18.09.9 go/go1.11.13 git-commit/039a7df kernel/3.16.0-4-amd64 os/linux arch/amd64", DOCKER_OCI_ACCEPT),
    known("Docker 20.10", "docker/20.10.24 go/go1.19.8 git-commit/5d6db84 kernel/6.1.0-18-amd64 os/linux arch/amd64", DOCKER_OCI_ACCEPT),
    known("Docker 24", "docker/24.0.9 go/go1.20.13 git-commit/fca702d kernel/6.1.0-18-amd64 os/linux arch/amd64", DOCKER_OCI_ACCEPT),
    known("Docker 28", "docker/28.1.1 go/go1.23.8 git-commit/01f442b kernel/6.1.0-18-amd64 os/linux arch/amd64", DOCKER_OCI_ACCEPT),
    known("containerd 1.4", "containerd/v1.4.13", CONTAINERD_ACCEPT),
    known("containerd 1.7", "containerd/v1.7.28", CONTAINERD_ACCEPT),
    known("containerd 2", "containerd/v2.1.4", CONTAINERD_ACCEPT),
    known("BuildKit 0.23", "buildkit/v0.23", CONTAINERD_ACCEPT),
    known("skopeo, podman, CRI-O", "skopeo/1.22.2", CONTAINERS_IMAGE_ACCEPT),
    known("crane, ko, trivy, cosign", "crane/v0.21.9 go-containerregistry/v0.21.9", GGCR_ACCEPT),
    known("oras, Helm", "oras/1.3.0", ORAS_ACCEPT),
    known("Watchtower", "Watchtower", WATCHTOWER_ACCEPT),
    known("curl", "curl/8.5.0", &["*/*"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn class(user_agent: &str) -> Option<&'static str> {
        recognise(&UserAgent::parse(user_agent.as_bytes())).map(|recognised| recognised.rule.class)
    }

    #[test]
    fn the_boundaries_are_where_the_engines_changed() {
        for (user_agent, expected) in [
            ("docker/1.9.99", "docker<1.10"),
            ("docker/1.10.0-rc1", "docker 1.10-18.05"),
            ("docker/18.05.0-ce", "docker 1.10-18.05"),
            ("docker/18.06.0-ce", "docker 18.06-25"),
            ("docker/19.03.0", "docker 1.10-18.05"),
            ("docker/19.03.4", "docker 1.10-18.05"),
            ("docker/19.03.5", "docker 18.06-25"),
            ("docker/25.0.16", "docker 18.06-25"),
            ("docker/26.0.0", "docker>=26"),
            ("containerd/1.7.28~ds1", "containerd<2.0"),
            ("containerd/v2.0.0", "containerd>=2.0"),
            ("buildkit/v0.22", "buildkit<0.23"),
            ("buildkit/v0.23-dev", "buildkit>=0.23"),
            ("go-containerregistry/(devel)", "ggcr"),
            ("ko/0.18.0 go-containerregistry/v0.20.6", "ggcr"),
            ("trivy/dev", "ggcr"),
            ("Apptainer/1.5.3 (Linux amd64) Go/1.25.1", "apptainer>=1.5"),
            ("oras-go", "oras/helm"),
            ("Helm/3.18.6", "oras/helm"),
            ("Watchtower", "digest probe"),
        ] {
            assert_eq!(class(user_agent), Some(expected), "{user_agent}");
        }
    }

    #[test]
    fn a_product_matches_whole_and_as_written() {
        for user_agent in [
            "Mozilla/5.0 (X11; rv:128.0) Gecko/20100101 Firefox/128.0",
            "Docker/1.9.1",
            "mydocker/1.9.1",
            "docker-client/1.9.1",
            "docker/dev",
            "Apptainer/1.3.0 (Linux amd64) Go/1.21",
            "skopeo/1.22.2",
            "Go-http-client/1.1",
            "watchtower",
            "",
        ] {
            assert_eq!(class(user_agent), None, "{user_agent}");
        }
    }

    #[test]
    fn the_lines_of_a_product_leave_no_gap() {
        for (earlier, later) in TABLE.iter().zip(TABLE.iter().skip(1)) {
            if let (Versions::Within(_, before), Versions::Within(from, _)) = (earlier.versions, later.versions)
                && earlier.products == later.products
            {
                assert_eq!(before, from, "between {} and {}", earlier.class, later.class);
            }
        }
    }

    #[test]
    fn every_class_has_a_client_to_show() {
        for rule in TABLE {
            let shown = KNOWN.iter().any(|known| known.user_agent.and_then(class) == Some(rule.class));
            let alike = matches!(rule.class, "buildkit<0.23" | "apptainer>=1.5");
            assert!(shown || alike, "{}", rule.class);
        }
    }
}
