//! Real engines in the guise of older ones pull lists and indexes: derived ones with derived children, or the one image of
//! the platform that they say they are.

use serde_json::Value;

use crate::{
    disguise::disguised,
    engines::{Dockerd, reference},
    guises::{Guise, READS_SCHEMA_1, READS_SCHEMA_2},
    images::{Twin, digest},
    parents::{AMD64, ARM_V6, ARM_V7, ARM64, Child, FILE, Form, Parent},
    registries::{Gateway, Registry, said},
};

const TAG: &str = "v1";

const DOCKER_17_03: Guise = Guise {
    user_agent: "docker/17.03.2-ce go/go1.7.5 git-commit/f5ec1e2 kernel/4.9.0 os/linux arch/amd64",
    served: "list",
    ..READS_SCHEMA_2
};

const DOCKER_1_9_ON_ARM: Guise = Guise {
    user_agent: "docker/1.9.1 go/go1.4.3 git-commit/a34a1d5 kernel/3.16.0 os/linux arch/arm",
    ..READS_SCHEMA_1
};

const DOCKER_1_9_ON_S390X: Guise = Guise {
    user_agent: "docker/1.9.1 go/go1.4.3 git-commit/a34a1d5 kernel/3.16.0 os/linux arch/s390x",
    ..READS_SCHEMA_1
};

/// Calls `check` for every registry and each of what `parents` makes for it: with a gateway of their own, words, and the
/// list or index, which is pushed.
fn each_stored(parents: impl Fn(&str) -> Vec<Parent>, check: impl Fn(&mut Gateway, &str, &Parent)) {
    for registry in Registry::both() {
        let mut gateway = Gateway::start_with_directory_store(&registry);
        for parent in parents(registry.name) {
            parent.push(&registry, TAG);
            check(&mut gateway, &format!("{} in {}", parent.repository, registry.name), &parent);
        }
    }
}

/// Pulls for a platform and looks for the image of that platform, and none but that.
fn assert_pulls(dockerd: &Dockerd, reference: &str, child: &Child, what: &str) -> String {
    let digest = dockerd.pull_for(child.platform, reference);
    let container = dockerd.container(reference);
    assert_eq!(dockerd.file(&container, FILE).as_ref(), Some(&child.text), "{what} for {}", child.platform);
    digest
}

/// What the gateway gives to this guise under a tag or digest, checked against its own digest.
fn document(gateway: &Gateway, guise: Guise, parent: &Parent, reference: &str) -> (String, Value) {
    let answer = guise.ask(gateway.address, &format!("/v2/{}/manifests/{reference}", parent.repository));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("docker-content-digest"), Some(digest(&answer.body).as_str()));
    let media_type = answer.header("content-type").unwrap().to_owned();
    (media_type, serde_json::from_slice(&answer.body).unwrap())
}

/// `os/architecture/variant` of the entries of a list or index, and their digests, in their order.
fn listed(document: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let entries = document["manifests"].as_array().unwrap().iter().map(|entry| {
        let words = ["os", "architecture", "variant"].into_iter().filter_map(|key| text(&entry["platform"][key]));
        (words.collect::<Vec<_>>().join("/"), text(&entry["digest"]).unwrap())
    });
    entries.collect()
}

/// Docker 1.10 to 18.05 read lists and nothing of OCI, take the first entry of their architecture whatever its variant, and
/// ask for it by digest.
#[test]
fn docker_before_18_06_pulls_derived_lists() {
    let dockerd = Dockerd::start();
    each_stored(Parent::mixtures, |gateway, what, parent| {
        let from = reference(disguised(gateway.address, DOCKER_17_03), &parent.repository, TAG);
        for platform in [ARM_V6, AMD64] {
            let child = parent.child(platform);
            let pulled = assert_pulls(&dockerd, &from, child, what);
            // The config is never rewritten, so that the image has one id however it is pulled.
            assert_eq!(dockerd.image_id(&from), child.image.config.digest, "{what} for {platform}");

            let line = gateway.wait_for_manifest(&parent.repository, TAG);
            let found = (said(&line, "stored"), said(&line, "served"), said(&line, "digest"));
            assert_eq!(found, (parent.form.word(), DOCKER_17_03.served, pulled.as_str()), "{what}");
        }
        assert_serves_children(gateway, what, parent);
    });
}

/// Everything that the list for Docker 17.03 names is schema 2 and to be had, and is what Docker asked for.
fn assert_serves_children(gateway: &mut Gateway, what: &str, parent: &Parent) {
    let (media_type, list) = document(gateway, DOCKER_17_03, parent, TAG);
    assert_eq!(media_type, Form::List.media_type(), "{what}");
    let listed = listed(&list);
    let platforms = listed.iter().map(|(platform, _)| platform.as_str()).collect::<Vec<_>>();
    let is_stored = parent.form == Form::List && listed[0].1 == parent.children[0].digest();
    // A stored list with nothing in it that this Docker cannot read is not touched.
    let expected = if is_stored { [AMD64, ARM_V7, ARM_V6, ARM64] } else { [AMD64, ARM_V6, ARM_V7, ARM64] };
    assert_eq!(platforms, expected, "{what}");
    for (platform, digest) in listed {
        if [ARM_V6, AMD64].contains(&platform.as_str()) {
            // Docker's own request: nobody else has asked for this digest by now.
            let line = gateway.wait_for_manifest(&parent.repository, &digest);
            assert_eq!(said(&line, "served"), "schema2", "{what} for {platform}: {line}");
        }
        let (media_type, child) = document(gateway, DOCKER_17_03, parent, &digest);
        assert_eq!(media_type, Twin::Schema2.media_type(), "{what} for {platform}");
        assert_eq!(child["config"]["digest"], parent.child(&platform).image.config.digest, "{what} for {platform}");
    }
}

/// Docker 1.6 to 1.9 read no lists: they get the image of the platform that their User-Agent names, as schema 1.
#[test]
fn docker_1_9_pulls_the_image_of_its_architecture() {
    let dockerd = Dockerd::start();
    each_stored(Parent::mixtures, |gateway, what, parent| {
        for (guise, platform) in [(READS_SCHEMA_1, AMD64), (DOCKER_1_9_ON_ARM, ARM_V6)] {
            let from = reference(disguised(gateway.address, guise), &parent.repository, TAG);
            let pulled = assert_pulls(&dockerd, &from, parent.child(platform), what);
            let by_tag = gateway.wait_for_line("log the answer for the tag", |line| {
                said(line, "path").ends_with(&format!("/{}/manifests/{TAG}", parent.repository))
                    && said(line, "user_agent") == guise.user_agent
            });
            let by_digest = gateway.wait_for_manifest(&parent.repository, &pulled);
            for line in [&by_tag, &by_digest] {
                let found = (said(line, "served"), said(line, "digest"));
                assert_eq!(found, (guise.served, &*pulled), "{what} for {platform}: {line}");
            }
            assert_eq!(said(&by_tag, "stored"), parent.form.word(), "{what} for {platform}: {by_tag}");
        }
        assert_refuses_other_architectures(&dockerd, gateway, what, parent);
    });
}

/// Never the image of another architecture: the refusal names what there is, and Docker shows it.
fn assert_refuses_other_architectures(dockerd: &Dockerd, gateway: &Gateway, what: &str, parent: &Parent) {
    let from = reference(disguised(gateway.address, DOCKER_1_9_ON_S390X), &parent.repository, TAG);
    let refusal = dockerd.pull_in_vain("linux/s390x", &from);
    for word in ["linux/s390x", AMD64, ARM_V6, ARM_V7, ARM64] {
        assert!(refusal.contains(word), "{what}: docker does not say {word}: {refusal}");
    }
    let answer = DOCKER_1_9_ON_S390X.ask(gateway.address, &format!("/v2/{}/manifests/{TAG}", parent.repository));
    assert_eq!(answer.status, 406, "{what}: {}", answer.text());
}

/// Docker 18.06 to 22 accept OCI and cannot unpack zstd: they get the index without such images, where one is left.
#[test]
fn docker_20_10_gets_indexes_without_zstd() {
    let dockerd = Dockerd::start();
    each_stored(with_zstd, |gateway, what, parent| {
        let from = reference(gateway.address, &parent.repository, TAG);
        let Some(gzip) = parent.children.iter().find(|child| !child.text.contains("zstd")) else {
            let refusal = dockerd.pull_in_vain(AMD64, &from);
            assert!(refusal.contains("compressed with zstd"), "{what}: docker does not say why: {refusal}");
            return;
        };
        let pulled = assert_pulls(&dockerd, &from, gzip, what);
        assert_ne!(pulled, parent.digest(), "{what}");
        let line = gateway.wait_for_manifest(&parent.repository, TAG);
        assert_eq!((said(&line, "stored"), said(&line, "served")), ("index", "index"), "{what}: {line}");
        assert_eq!((said(&line, "source"), said(&line, "digest")), (&*parent.digest(), &*pulled), "{what}: {line}");

        let entries = listed(&document(gateway, DOCKER_17_03, parent, &pulled).1);
        assert_eq!(entries, [(AMD64.to_owned(), gzip.digest())], "{what}");
        let refusal = dockerd.pull_in_vain(ARM64, &from);
        assert!(refusal.contains("no matching manifest"), "{what}: {refusal}");
    });
}

/// Indexes with zstd for another platform, for this one beside gzip, and for all of them.
fn with_zstd(whose: &str) -> Vec<Parent> {
    let index = |name: &str, children: Vec<Child>| Parent::new(Form::Index, name, children);
    let beside_gzip = [Child::zstd(AMD64, whose), Child::gzip(AMD64, Twin::Oci, whose), Child::zstd(ARM64, whose)];
    let zstd_alone = [AMD64, ARM64].map(|platform| Child::zstd(platform, whose));
    vec![
        Parent::with_zstd_for_arm64(&format!("another {whose}")),
        index("zstd-beside-gzip", beside_gzip.into()),
        index("zstd-alone", zstd_alone.into()),
    ]
}
