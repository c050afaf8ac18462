//! An image that was pulled once can be pulled with the registry gone.

use std::{collections::BTreeMap, path::Path};

use crate::{
    disguise::disguised,
    documents,
    engines::{Dockerd, reference},
    guises::READS_SCHEMA_1,
    home::Home,
    http,
    images::{self, Image, Twin},
    programs::{self, run},
    registries::{Gateway, Registry, said},
};

const REPOSITORY: &str = "test/offline";
const TAG: &str = "v1";

/// A gateway that keeps blobs in `folder`, and asks the registry about a tag each time.
fn mirror(registry: &Registry, folder: &Path) -> Gateway {
    let file = format!(
        r#"
[[upstream]]
name = "away"
url = "http://{}"
auth = {{ mode = "anonymous" }}
tags = {{ ttl = "0s", stale_if_error = "1h" }}

[blob_cache]
directory = "{}"
max_size = "64MiB"
"#,
        registry.address,
        folder.display()
    );
    Gateway::start_with_file(&file, &[])
}

/// Pulls blobs of the image until the mirror has them all: it keeps none before it has looked what its folder holds, and a
/// blob counts only once it was checked.
fn wait_until_kept(gateway: &mut Gateway, image: &Image, folder: &Path) {
    for blob in image.blobs() {
        let hexadecimal = images::hexadecimal(&blob.bytes);
        let kept = folder.join("v1/blobs").join(&hexadecimal[..2]).join(format!("sha256-{hexadecimal}"));
        let (address, target) = (gateway.address, format!("/v2/{REPOSITORY}/blobs/{}", blob.digest));
        gateway.wait_until(&format!("keep {}", blob.digest), || {
            kept.is_file() || {
                let answer = http::ask(address, "GET", &target, &[], b"").unwrap();
                assert_eq!(answer.status, 200, "{target}: {}", answer.text());
                false
            }
        });
    }
}

/// Every file of a folder.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

#[test]
fn what_was_pulled_once_is_pulled_with_the_registry_gone() {
    for twin in Twin::BOTH {
        let (registry, image, folder) = (Registry::docker_registry(), images::runnable(), programs::directory());
        registry.push(&image, twin, REPOSITORY, TAG);
        let mut gateway = mirror(&registry, folder.path());
        let (home, image_name) = (Home::new(), reference(gateway.address, REPOSITORY, TAG));
        let copy = |name: &str| {
            let (mut copy, target) = home.skopeo_copy(&["--src-tls-verify=false"], &image_name, name);
            run(&mut copy);
            files(&target)
        };
        let before = copy("before");
        wait_until_kept(&mut gateway, &image, folder.path());
        registry.kill();

        let after = copy("after");
        assert!(before == after, "{twin:?}: {:?} and {:?}", before.keys(), after.keys());
        assert_eq!(after["manifest.json"], image.manifest(twin), "{twin:?}");
        for blob in image.blobs() {
            assert!(after[&images::hexadecimal(&blob.bytes)] == blob.bytes, "{twin:?}: {}", blob.digest);
        }
        let absent = http::ask(gateway.address, "GET", "/v2/test/never-pulled/manifests/v1", &[], b"").unwrap();
        assert_eq!(absent.status, 502, "{}", absent.text());
    }
}

/// Nobody who reads schema 1 had asked while the registry was there: it is made of what is kept.
#[test]
fn docker_1_9_pulls_with_the_registry_gone_what_others_had_pulled() {
    let (registry, image, folder) = (Registry::docker_registry(), images::runnable(), programs::directory());
    registry.push(&image, Twin::Schema2, REPOSITORY, TAG);
    let target = format!("/v2/{REPOSITORY}/manifests/{TAG}");
    let expected = documents::schema1_of(&http::ask_as_docker_1_9(registry.address, &target), registry.name);
    let mut gateway = mirror(&registry, folder.path());
    let home = Home::new();
    let (mut copy, _) =
        home.skopeo_copy(&["--src-tls-verify=false"], &reference(gateway.address, REPOSITORY, TAG), "before");
    run(&mut copy);
    wait_until_kept(&mut gateway, &image, folder.path());
    registry.kill();

    let old = reference(disguised(gateway.address, READS_SCHEMA_1), REPOSITORY, TAG);
    let dockerd = Dockerd::start();
    assert_eq!(dockerd.pull(&old), images::digest(&expected));
    dockerd.assert_files(&old, "Docker 1.9");
    gateway
        .wait_for_line("log a translation", |line| said(line, "path") == target && said(line, "served") == "schema1");
}
