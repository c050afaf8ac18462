//! Real engines that pull what was translated: a proxy gives their requests the headers of another client.

use crate::{
    disguise::disguised,
    documents,
    engines::{Containerd, Dockerd, reference},
    guises::{Guise, READS_OCI, READS_SCHEMA_1, READS_SCHEMA_2},
    http,
    images::{self, Twin},
    registries::{Gateway, Registry, said},
};

const REPOSITORY: &str = "test/old";
const TAG: &str = "v1";

/// A gateway in front of a registry that stores one twin of the runnable image, and the proxy in front of the gateway.
struct Stage {
    _registry: Registry,
    gateway: Gateway,
    guise: Guise,
    reference: String,
    what: String,
}

impl Stage {
    fn set(registry: Registry, twin: Twin, guise: Guise) -> Self {
        registry.push(&images::runnable(), twin, REPOSITORY, TAG);
        let gateway = Gateway::start_with_directory_store(&registry);
        let reference = reference(disguised(gateway.address, guise), REPOSITORY, TAG);
        let what = format!("{twin:?} in {} as {}", registry.name, guise.served);
        Self { _registry: registry, gateway, guise, reference, what }
    }

    /// One for each registry and each of these twins.
    fn each(twins: &[Twin], guise: Guise) -> Vec<Self> {
        let of_twin = |twin: &Twin| {
            Registry::both().into_iter().map(|registry| Self::set(registry, *twin, guise)).collect::<Vec<_>>()
        };
        twins.iter().flat_map(of_twin).collect()
    }

    /// Waits for the gateway's own words: a document of the right format given for the tag, then the same one fetched by
    /// its digest. Gives that digest.
    fn wait_for_log(&mut self) -> String {
        let Self { gateway, guise, .. } = self;
        let by_tag = gateway.wait_for_line("log a translation for the tag", |line| {
            said(line, "path").ends_with(&format!("/{REPOSITORY}/manifests/{TAG}"))
                && said(line, "served") == guise.served
        });
        let digest = said(&by_tag, "digest").to_owned();
        gateway.wait_for_line("log the same digest fetched by digest", |line| {
            said(line, "path").ends_with(&format!("/{REPOSITORY}/manifests/{digest}"))
                && said(line, "method") == "GET"
                && said(line, "served") == guise.served
                && said(line, "digest") == digest
        });
        digest
    }
}

/// The digest of the schema 1 that docker-registry makes of the schema 2 twin.
fn schema_1_digest() -> String {
    let oracle = Registry::docker_registry();
    oracle.push(&images::runnable(), Twin::Schema2, REPOSITORY, TAG);
    let answer = http::ask_as_docker_1_9(oracle.address, &format!("/v2/{REPOSITORY}/manifests/{TAG}"));
    images::digest(&documents::schema1_of(&answer, "docker-registry"))
}

#[test]
fn docker_pulls_the_derived_schema_1() {
    let expected = schema_1_digest();
    for mut stage in Stage::each(&Twin::BOTH, READS_SCHEMA_1) {
        let dockerd = Dockerd::start();
        assert_eq!(dockerd.pull(&stage.reference), expected, "{}", stage.what);
        dockerd.assert_files(&stage.reference, &stage.what);
        assert_eq!(stage.wait_for_log(), expected, "{}", stage.what);
    }
}

#[test]
fn containerd_pulls_the_derived_schema_1() {
    let expected = schema_1_digest();
    for mut stage in Stage::each(&Twin::BOTH, READS_SCHEMA_1) {
        let containerd = Containerd::start();
        // containerd converts what it gets and keeps the digest of the result, so that the log is the witness.
        containerd.pull(&stage.reference);
        containerd.assert_files(&stage.what);
        assert_eq!(stage.wait_for_log(), expected, "{}", stage.what);
    }
}

/// The config is never rewritten, so that the image has one id however it is pulled.
#[test]
fn docker_pulls_the_derived_schema_2_and_oci() {
    let config = images::runnable().config.digest;
    for (twin, guise) in [(Twin::Oci, READS_SCHEMA_2), (Twin::Schema2, READS_OCI)] {
        for mut stage in Stage::each(&[twin], guise) {
            let dockerd = Dockerd::start();
            let digest = dockerd.pull(&stage.reference);
            assert_eq!(dockerd.image_id(&stage.reference), config, "{}", stage.what);
            dockerd.assert_files(&stage.reference, &stage.what);
            assert_eq!(stage.wait_for_log(), digest, "{}", stage.what);
        }
    }
}

#[test]
fn containerd_pulls_the_derived_schema_2_and_oci() {
    for (twin, guise) in [(Twin::Oci, READS_SCHEMA_2), (Twin::Schema2, READS_OCI)] {
        for mut stage in Stage::each(&[twin], guise) {
            let containerd = Containerd::start();
            let digest = containerd.pull(&stage.reference);
            containerd.assert_files(&stage.what);
            assert_eq!(stage.wait_for_log(), digest, "{}", stage.what);
        }
    }
}
