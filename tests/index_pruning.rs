//! What a list or index is made of: images that the client can run, one for each platform, in an order that serves the
//! client, and nothing else.

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::{self, Document, Image, Kind};
use crate::support::parents::{Entry, annotated_index, attestation, docker_list, oci_index};
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/app/manifests/latest";

fn gzip(name: &str, architecture: &str) -> Image {
    Image::buildkit(name, architecture, Kind::Gzip, 1)
}

fn zstd(architecture: &str) -> Image {
    Image::buildkit("zstd", architecture, Kind::Zstd, 1)
}

/// A registry that holds these documents beside the one under the tag.
async fn upstream_with(stored: &Document, children: &[&Document]) -> Upstream {
    let upstream = Upstream::start().await;
    for child in children {
        upstream.put("app", None, child);
    }
    upstream.put("app", "latest", stored);
    upstream
}

/// What the client is given for this document in front of these children.
async fn given(client: &Client, stored: &Document, children: &[&Document]) -> String {
    let upstream = upstream_with(stored, children).await;
    let gateway = Gateway::before(&upstream).await;
    gateway.manifest(client, TAGGED).await.text()
}

fn docker(version: &str) -> Client {
    let mut client = Client::docker_20_10();
    client.user_agent = Some(format!("docker/{version} go/go1.19 kernel/6.1.0 os/linux arch/amd64"));
    client
}

#[tokio::test]
async fn attestations_artifacts_and_what_cannot_be_translated_are_left_out_of_a_list() {
    let app = gzip("app", "amd64");
    let statement = Image::buildkit("statement", "unknown", Kind::InToto, 1).oci();
    let (sbom, chart) = (images::artifact("sbom"), images::helm_chart());
    let encrypted = Image::buildkit("secret", "ppc64le", Kind::Encrypted, 1).oci();
    let index = oci_index(&[
        attestation(&statement, &app.oci().digest),
        Entry::on(&sbom, "linux/riscv64").artifact_type("application/vnd.example.sbom.v1"),
        // Neither says what it is; their bytes do.
        Entry::on(&sbom, "linux/mips"),
        Entry::on(&chart, "linux/mipsle"),
        Entry::on(&zstd("s390x").oci(), "linux/s390x"),
        Entry::on(&encrypted, "linux/ppc64le"),
        Entry::on(&gzip("gone", "arm64").oci(), "linux/arm64"),
        Entry::on(&sbom, "linux/386").called("application/vnd.example.thing"),
        Entry::on(&statement, "linux/amd64").annotated("vnd.docker.reference.type", "attestation-manifest"),
        Entry::on(&app.oci(), "linux/amd64"),
    ]);
    let there = [&statement, &sbom, &chart, &zstd("s390x").oci(), &encrypted, &app.oci()];
    let expected = docker_list(&[Entry::on(&app.schema2(), "linux/amd64")]);
    assert_eq!(given(&Client::docker_17(), &index, &there).await, expected.text());
}

#[tokio::test]
async fn nothing_left_is_406_that_says_what_was_left_out_and_why() {
    let statement = Image::buildkit("statement", "unknown", Kind::InToto, 1).oci();
    let gone = gzip("gone", "arm64").oci();
    let index = oci_index(&[
        Entry::on(&zstd("s390x").oci(), "linux/s390x"),
        Entry::on(&gone, "linux/arm64"),
        attestation(&statement, &gone.digest),
        Entry::on(&images::artifact("sbom"), "linux/mips"),
    ]);
    let upstream = upstream_with(&index, &[&zstd("s390x").oci(), &statement, &images::artifact("sbom")]).await;
    let gateway = Gateway::before(&upstream).await;
    let refused = gateway.manifest(&Client::docker_17(), TAGGED).await;
    let (code, message) = refused.error();
    assert_eq!((refused.status, code.as_str()), (406, "UNSUPPORTED"));
    for words in [
        "linux/s390x",
        "zstd",
        "linux/arm64 is not in the registry",
        "is an attestation",
        "linux/mips is not an image",
        "Docker 17.05",
        "an OCI index",
    ] {
        assert!(message.contains(words), "no `{words}` in: {message}");
    }
}

#[tokio::test]
async fn a_refusal_of_many_children_stays_short() {
    let many: Vec<Entry> =
        (0..200).map(|number| Entry::on(&gzip("gone", "amd64").oci(), &format!("linux/arch{number}"))).collect();
    let upstream = upstream_with(&oci_index(&many), &[]).await;
    let gateway = Gateway::before(&upstream).await;
    let (_, message) = gateway.manifest(&Client::docker_17(), TAGGED).await.error();
    assert!(message.contains("and 192 more") && message.len() < 1000, "{message}");
}

#[tokio::test]
async fn an_empty_index_is_406_for_who_cannot_read_it_and_itself_for_who_can() {
    for empty in
        [oci_index(&[]), oci_index(&[]).changed(|index| _ = index.as_object_mut().unwrap().remove("mediaType"))]
    {
        let upstream = upstream_with(&empty, &[]).await;
        let gateway = Gateway::before(&upstream).await;
        for client in [Client::docker_17(), Client::docker_1_9_1(), Client::only(images::SCHEMA2)] {
            let refused = gateway.manifest(&client, TAGGED).await;
            assert_eq!((refused.status, refused.error().0.as_str()), (406, "UNSUPPORTED"), "{}", refused.text());
        }
        for client in [Client::docker_20_10(), Client::containerd_1_6(), Client::curl()] {
            assert_eq!(gateway.manifest(&client, TAGGED).await.body, empty.bytes);
        }
    }
}

#[tokio::test]
async fn an_index_without_a_media_type_is_one() {
    let app = gzip("app", "amd64");
    let index = oci_index(&[Entry::on(&app.oci(), "linux/amd64")]);
    let untyped = index.rewritten(|text| text.replace(&format!(r#""mediaType":"{}","#, images::INDEX), ""));
    let upstream = upstream_with(&untyped, &[&app.oci()]).await;
    let gateway = Gateway::before(&upstream).await;
    let got = gateway.manifest(&Client::docker_20_10(), TAGGED).await;
    assert_eq!((got.content_type(), got.text().as_str()), (images::INDEX, untyped.text()));
    let expected = docker_list(&[Entry::on(&app.schema2(), "linux/amd64")]);
    assert_eq!(gateway.manifest(&Client::docker_17(), TAGGED).await.text(), expected.text());
}

#[tokio::test]
async fn one_entry_is_left_for_each_platform_and_gzip_before_zstd_in_either_order() {
    let (first, second) = (gzip("first", "amd64"), gzip("second", "amd64"));
    let packed = zstd("amd64").oci();
    let there = [&first.oci(), &second.oci(), &packed];
    let [one, two, three] = [&packed, &first.oci(), &second.oci()].map(|child| Entry::on(child, "linux/amd64"));
    let expected = docker_list(&[Entry::on(&first.schema2(), "linux/amd64")]);
    for order in [[one.clone(), two.clone(), three.clone()], [two.clone(), one, three.clone()]] {
        for client in [Client::docker_17(), docker("19.03.4")] {
            assert_eq!(given(&client, &oci_index(&order), &there).await, expected.text());
        }
    }
    let expected = docker_list(&[Entry::on(&second.schema2(), "linux/amd64")]);
    assert_eq!(given(&Client::docker_17(), &oci_index(&[three, two]), &there).await, expected.text());
}

/// Of two images of one platform the one with layers that every reader of the list can unpack, whatever their manifests'
/// format.
#[tokio::test]
async fn a_schema_2_image_of_zstd_layers_does_not_hide_its_gzip_sibling() {
    let (packed, app) = (zstd("amd64"), gzip("app", "amd64"));
    let [first, second] = [Entry::on(&packed.schema2(), "linux/amd64"), Entry::on(&app.oci(), "linux/amd64")];
    let expected = docker_list(&[Entry::on(&app.schema2(), "linux/amd64")]);
    let script = Client::new("", &[&format!("{}, {}", images::LIST, images::SCHEMA2)]);
    for order in [[first.clone(), second.clone()], [second, first]] {
        let there = [&packed.schema2(), &app.oci()];
        assert_eq!(given(&script, &oci_index(&order), &there).await, expected.text());
    }
}

/// `arm64` and `arm64/v8` are one platform; variants of arm, and versions of Windows, are not.
#[tokio::test]
async fn platforms_that_differ_in_variant_or_version_all_stay() {
    let names = ["windows/amd64", "windows/amd64", "linux/arm64/v8", "linux/arm64", "linux/arm/v6", "linux/arm/v7"];
    let images: Vec<Image> = (0..names.len()).map(|number| gzip(&number.to_string(), "any")).collect();
    let entries = |documents: Vec<Document>| -> Vec<Entry> {
        let mut entries: Vec<Entry> =
            documents.iter().zip(names).map(|(document, platform)| Entry::on(document, platform)).collect();
        for (entry, version) in entries.iter_mut().zip(["10.0.17763.1", "10.0.20348.1"]) {
            *entry = entry.clone().version(version);
        }
        entries
    };
    let stored: Vec<Document> = images.iter().map(Image::oci).collect();
    let mut expected = entries(images.iter().map(Image::schema2).collect());
    expected.remove(3);
    let got =
        given(&Client::docker_17(), &oci_index(&entries(stored.clone())), &stored.iter().collect::<Vec<_>>()).await;
    assert_eq!(got, docker_list(&expected).text());
}

/// These take the first entry of their architecture and look at no variant.
#[tokio::test]
async fn for_docker_before_18_06_the_lowest_variant_of_an_architecture_stands_first() {
    let stored_order = [
        "linux/arm/v7",
        "linux/amd64",
        "linux/arm",
        "linux/arm/v5",
        "linux/arm64/v9",
        "linux/arm/v6",
        "linux/arm64/v8",
    ];
    let grouped = [
        "linux/arm/v6",
        "linux/arm/v5",
        "linux/arm",
        "linux/arm/v7",
        "linux/amd64",
        "linux/arm64/v8",
        "linux/arm64/v9",
    ];
    let own_order = [
        "linux/arm/v5",
        "linux/arm",
        "linux/arm/v6",
        "linux/arm/v7",
        "linux/amd64",
        "linux/arm64/v8",
        "linux/arm64/v9",
    ];
    let image = |platform: &str| gzip(platform, platform.split('/').nth(1).unwrap());
    let stored: Vec<Document> = stored_order.iter().map(|platform| image(platform).oci()).collect();
    let index: Vec<Entry> =
        stored.iter().zip(stored_order).map(|(child, platform)| Entry::on(child, platform)).collect();
    let list = |order: &[&str]| {
        let entries: Vec<Entry> =
            order.iter().map(|platform| Entry::on(&image(platform).schema2(), platform)).collect();
        docker_list(&entries)
    };
    let there: Vec<&Document> = stored.iter().collect();
    let index = oci_index(&index);
    assert_eq!(given(&Client::docker_17(), &index, &there).await, list(&grouped).text());
    assert_eq!(given(&docker("19.03.4"), &index, &there).await, list(&stored_order).text(), "it ranks variants itself");
    let upstream = upstream_with(&index, &there).await;
    let gateway = Setup::default().arm_variants(&["v5", "", "v6", "v7"]).before(&upstream).await;
    assert_eq!(gateway.manifest(&Client::docker_17(), TAGGED).await.text(), list(&own_order).text());
}

/// In the place where the nested index stands, whatever type or platform its entry claims.
#[tokio::test]
async fn nested_indexes_are_taken_apart_where_they_stand() {
    let [first, second, third] = ["amd64", "arm64", "s390x"].map(|architecture| gzip("app", architecture));
    let innermost = oci_index(&[Entry::on(&second.oci(), "linux/arm64")]);
    let inner = docker_list(&[Entry::of(&innermost)]);
    let outer = oci_index(&[
        Entry::on(&first.oci(), "linux/amd64"),
        Entry::on(&inner, "linux/ppc64le"),
        Entry::on(&third.oci(), "linux/s390x"),
    ]);
    let there = [&first.oci(), &second.oci(), &third.oci(), &innermost, &inner];
    let expected = docker_list(&[
        Entry::on(&first.schema2(), "linux/amd64"),
        Entry::on(&second.schema2(), "linux/arm64"),
        Entry::on(&third.schema2(), "linux/s390x"),
    ]);
    assert_eq!(given(&Client::docker_17(), &outer, &there).await, expected.text());
    let upstream = upstream_with(&outer, &there).await;
    upstream.put_image("app", "other", &second, &second.oci());
    let gateway = Gateway::before(&upstream).await;
    let mut on_arm64 = Client::docker_1_9_1();
    on_arm64.user_agent = Some("docker/1.9.1 go/go1.4.3 os/linux arch/arm64".to_owned());
    let chosen = gateway.manifest(&on_arm64, TAGGED).await;
    assert_eq!(chosen.json()["fsLayers"][0]["blobSum"], second.layers[0].digest.as_str());
}

#[tokio::test]
async fn a_platform_that_no_entry_names_is_the_configs() {
    let named = gzip("app", "amd64");
    let mut arm = gzip("app", "arm");
    let config = String::from_utf8(arm.config.to_vec()).unwrap();
    arm.config = config.replacen('{', r#"{"variant":"v6","os.version":"1.2","os.features":["one"],"#, 1).into();
    let unnamed = gzip("unnamed", "s390x");
    let mut blank = Entry::on(&unnamed.oci(), "linux/s390x");
    blank.platform = Some(crate::support::parents::Platform::default());
    let index = oci_index(&[Entry::of(&arm.oci()), blank, Entry::on(&named.oci(), "linux/amd64")]);
    let upstream = upstream_with(&index, &[]).await;
    for image in [&named, &arm, &unnamed] {
        upstream.put_image("app", "other", image, &image.oci());
    }
    let gateway = Gateway::before(&upstream).await;
    let mut first = Entry::on(&arm.schema2(), "linux/arm/v6").version("1.2");
    first.platform.as_mut().unwrap().os_features = vec!["one".to_owned()];
    let expected =
        docker_list(&[first, Entry::on(&unnamed.schema2(), "linux/s390x"), Entry::on(&named.schema2(), "linux/amd64")]);
    assert_eq!(gateway.manifest(&Client::docker_17(), TAGGED).await.text(), expected.text());
    let configs: Vec<String> =
        upstream.requests_to("*", "/v2/app/blobs/*").iter().map(|one| one.path.clone()).collect();
    assert_eq!(configs.len(), 2, "a config that nobody needs is not read: {configs:?}");
}

/// A list has no place for annotations; what it can say of a platform is kept.
#[tokio::test]
async fn a_list_keeps_all_of_a_platform_and_nothing_else() {
    let app = gzip("app", "amd64");
    let mut entry = Entry::on(&app.oci(), "windows/amd64/v2").version("10.0.17763.1").annotated("a", "b");
    entry.urls = vec!["https://example.com/child".to_owned()];
    entry.artifact_type = Some(images::OCI_CONFIG.to_owned());
    let platform = entry.platform.as_mut().unwrap();
    platform.os_features = vec!["win32k".to_owned(), "other".to_owned()];
    let index = annotated_index(&[entry.clone()], &[("org.example", "index")]);
    let mut expected = Entry::of(&app.schema2());
    expected.platform = entry.platform;
    assert_eq!(given(&Client::docker_17(), &index, &[&app.oci()]).await, docker_list(&[expected]).text());
}

/// Attestations go with what they are about: by its new digest, and out with it.
#[tokio::test]
async fn an_index_made_of_a_list_keeps_its_attestations_about_the_new_digests() {
    let (kept, gone) = (gzip("app", "amd64"), gzip("app", "arm64"));
    let [about_kept, about_gone] = ["kept", "gone"].map(|name| Image::buildkit(name, "unknown", Kind::InToto, 1).oci());
    let list = docker_list(&[Entry::on(&kept.schema2(), "linux/amd64"), Entry::on(&gone.schema2(), "linux/arm64")]);
    let with_attestations = list.rewritten(|text| {
        let entries =
            [attestation(&about_kept, &kept.schema2().digest), attestation(&about_gone, &gone.schema2().digest)];
        let index = oci_index(&entries);
        let (_, entries) = index.text().split_once('[').unwrap();
        let entries = entries.strip_suffix("]}").unwrap();
        text.replacen("\n   ]\n}", &format!(",{entries}\n   ]\n}}"), 1)
    });
    let there = [&kept.schema2(), &about_kept, &about_gone];
    let expected = oci_index(&[Entry::on(&kept.oci(), "linux/amd64"), attestation(&about_kept, &kept.oci().digest)]);
    assert_eq!(given(&Client::oci_only(), &with_attestations, &there).await, expected.text());
}

#[tokio::test]
async fn an_index_of_which_only_attestations_and_artifacts_are_left_is_406() {
    let gone = gzip("gone", "amd64");
    let statement = Image::buildkit("statement", "unknown", Kind::InToto, 1).oci();
    let sbom = Entry::on(&images::artifact("sbom"), "linux/mips").artifact_type("application/vnd.example.sbom.v1");
    let stored = docker_list(&[Entry::on(&gone.schema2(), "linux/amd64")]).rewritten(|text| {
        let index = oci_index(&[attestation(&statement, &sha256_of_nothing()), sbom]);
        let (_, entries) = index.text().split_once('[').unwrap();
        text.replacen("\n   ]\n}", &format!(",{}\n   ]\n}}", entries.strip_suffix("]}").unwrap()), 1)
    });
    let upstream = upstream_with(&stored, &[&statement, &images::artifact("sbom")]).await;
    let gateway = Gateway::before(&upstream).await;
    let refused = gateway.manifest(&Client::oci_only(), TAGGED).await;
    assert_eq!(refused.status, 406, "{}", refused.text());
    assert!(refused.error().1.contains("linux/amd64 is not in the registry"), "{}", refused.text());
}

fn sha256_of_nothing() -> String {
    crate::support::sha256(b"")
}

/// The stored index goes out to these without what they cannot unpack, every other byte as it was written.
#[tokio::test]
async fn zstd_images_are_taken_out_of_a_stored_index_for_clients_that_cannot_unpack_them() {
    let (app, packed) = (gzip("app", "amd64"), [zstd("amd64").oci(), zstd("arm64").oci()]);
    let statement = Image::buildkit("statement", "unknown", Kind::InToto, 1).oci();
    let entry = |child: &Document, platform: &str| {
        format!(
            r#"{{ "size":{},"digest":"{}",  "mediaType":"{}","platform":{{"os":"linux","architecture":"{platform}"}},"x-own" : [1.0, "\u00e9"] }}"#,
            child.bytes.len(),
            child.digest,
            child.content_type
        )
    };
    let about = format!(
        r#"{{"mediaType":"{}","digest":"{}","size":{},"annotations":{{"vnd.docker.reference.type":"attestation-manifest"}}}}"#,
        statement.content_type,
        statement.digest,
        statement.bytes.len()
    );
    let parent = |media_type: &str, entries: &[&str]| {
        Document::new(
            media_type,
            format!(
                r#"{{"mediaType":"{media_type}","schemaVersion":2,"manifests":[{}],"annotations":{{"a":"\u00e9"}},"x-top":1.50}}"#,
                entries.join(",")
            ),
        )
    };
    let [first, second, third] = [entry(&packed[0], "amd64"), entry(&app.oci(), "amd64"), entry(&packed[1], "arm64")];
    for media_type in [images::INDEX, images::LIST] {
        let stored = parent(media_type, &[&first, &second, &about, &third]);
        let expected = parent(media_type, &[&second, &about]);
        let upstream = upstream_with(&stored, &[&app.oci(), &packed[0], &packed[1], &statement]).await;
        let gateway = Gateway::before(&upstream).await;
        for version in ["18.06.3-ce", "19.03.15", "20.10.24", "22.06.0-beta.0"] {
            let got = gateway.manifest(&docker(version), TAGGED).await;
            assert_eq!((got.content_type(), got.text().as_str()), (media_type, expected.text()), "Docker {version}");
            let again = gateway.manifest(&docker(version), &format!("/v2/app/manifests/{}", expected.digest)).await;
            assert_eq!((again.status, again.text().as_str()), (200, expected.text()));
        }
        for client in [docker("23.0.0"), docker("28.1.1"), Client::containerd_1_6(), Client::curl()] {
            assert_eq!(gateway.manifest(&client, TAGGED).await.text(), stored.text());
        }
        let mut old_containerd = Client::containerd_1_6();
        old_containerd.user_agent = Some("containerd/1.4.13".to_owned());
        assert_eq!(gateway.manifest(&old_containerd, TAGGED).await.text(), expected.text());
    }
}

#[tokio::test]
async fn an_index_of_zstd_images_only_is_406_for_who_cannot_unpack_them() {
    let packed = zstd("amd64");
    let index = oci_index(&[Entry::on(&packed.oci(), "linux/amd64")]);
    let upstream = upstream_with(&index, &[]).await;
    upstream.put_image("app", "other", &packed, &packed.oci());
    let gateway = Gateway::before(&upstream).await;
    for client in [Client::docker_20_10(), Client::docker_17(), Client::docker_1_9_1()] {
        let refused = gateway.manifest(&client, TAGGED).await;
        assert_eq!(refused.status, 406, "{}", refused.text());
        assert!(refused.error().1.contains("zstd"), "{}", refused.text());
    }
    assert_eq!(gateway.manifest(&docker("24.0.9"), TAGGED).await.text(), index.text());
}
