//! Where a switch of the operator would help, whoever is refused is told its name, and so is the operator who asks `explain`.
//! Where it would not, or is on already, it is not named.

use schemabridge::negotiate::{Schema1, Senders, Treatment};
use serde_json::Value;
use tokio::process::Command;

use crate::support::client::{Call, Client};
use crate::support::gateway::Setup;
use crate::support::images::{Image, Kind, SCHEMA1_SIGNED, SCHEMA2, index, list};
use crate::support::layers::{archive, gzip, image, schema1, zstd};
use crate::support::upstream::Upstream;

const UPGRADE: &str = "`--upgrade-schema1`";
const TRANSCODE: &str = "`--transcode zstd`";
const ALL: [&str; 2] = [UPGRADE, TRANSCODE];

/// A registry with these tags: `schema1`, and `schema1-zstd` whose layer is packed so; `list` with the first one in it; `zstd`,
/// and `index` with that one in it.
async fn stage() -> (Upstream, Image) {
    let upstream = Upstream::start().await;
    let archive = archive("etc/one", b"one");
    let layer = upstream.contents().put_blob("app", gzip(&archive));
    let old = schema1(&[&layer]);
    upstream.put("app", "schema1", &old);
    upstream.put("app", "list", &list(&[(&old, "linux/amd64")]));
    let layer = upstream.contents().put_blob("app", zstd(&archive));
    upstream.put("app", "schema1-zstd", &schema1(&[&layer]));
    let image = image("amd64", &[(Kind::Zstd, &archive)]);
    upstream.put_image("app", "zstd", &image, &image.oci());
    upstream.put("app", "index", &index(&[(&image.oci(), "linux/amd64")]));
    (upstream, image)
}

async fn refused(upstream: &Upstream, setup: Setup, client: &Client, tag: &str) -> String {
    let gateway = setup.before(upstream).await;
    let reply = gateway.get(client, &format!("/v2/app/manifests/{tag}")).await;
    assert_eq!(reply.status, 406, "{tag}: {}", reply.text());
    reply.error().1
}

fn assert_names(words: &str, wanted: &[&str]) {
    for switch in ALL {
        assert_eq!(words.contains(switch), wanted.contains(&switch), "{switch}: {words}");
    }
}

#[tokio::test]
async fn a_refusal_of_stored_schema_1_names_the_upgrade_for_who_reads_anything_newer() {
    let (upstream, _) = stage().await;
    for tag in ["schema1", "list"] {
        let words = refused(&upstream, Setup::default(), &Client::oci_only(), tag).await;
        assert_names(&words, &[UPGRADE]);
    }
    let denied = || {
        let treatment = Treatment { schema1: Schema1::Denied, ..Treatment::default() };
        let everybody = Senders { user_agents: vec!["*".parse().unwrap()], ..Senders::default() };
        Setup::default().client_rule(everybody, treatment)
    };
    let words = refused(&upstream, denied(), &Client::docker_20_10(), "schema1").await;
    assert_names(&words, &[UPGRADE]);
    // An engine that reads nothing newer.
    let words = refused(&upstream, denied(), &Client::docker_1_9_1(), "schema1").await;
    assert_names(&words, &[]);
}

#[tokio::test]
async fn a_refusal_of_zstd_names_the_transcoding() {
    let (upstream, _) = stage().await;
    for client in [Client::docker_20_10(), Client::docker_17(), Client::docker_1_9_1(), Client::only(SCHEMA2)] {
        for tag in ["zstd", "index"] {
            let words = refused(&upstream, Setup::default(), &client, tag).await;
            assert_names(&words, &[TRANSCODE]);
        }
    }
    let upgrades = Setup::default().upgrade_schema1();
    let words = refused(&upstream, upgrades, &Client::only(SCHEMA2), "schema1-zstd").await;
    assert_names(&words, &[TRANSCODE]);
}

#[tokio::test]
async fn a_refused_push_names_the_switch_for_pushes() {
    let (upstream, _) = stage().await;
    let gateway = Setup::default().before(&upstream).await;
    let document = upstream.contents().manifest("app", "schema1").unwrap().clone();
    let push = Call::new("PUT", "/v2/app/manifests/pushed").header("content-type", SCHEMA1_SIGNED);
    for call in [push.body(document.bytes.to_vec()), Call::new("POST", "/v2/app/blobs/uploads/")] {
        let reply = gateway.send(&call).await;
        let (code, words) = reply.error();
        assert_eq!((reply.status, code.as_str()), (405, "UNSUPPORTED"), "{words}");
        assert!(words.contains("--push"), "{words}");
    }
}

/// What `explain` says to each client about a tag, by the client's name.
async fn explained(upstream: &Upstream, switches: &[&str], tag: &str) -> Vec<(String, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_schemabridge"));
    command.args(["explain", "--json", "--upstream", &upstream.url()]).args(switches).arg(format!("app:{tag}"));
    let output = command.env_clear().output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    said["clients"].as_array().unwrap().iter().map(|told| (text(&told["client"]), text(&told["why"]))).collect()
}

#[tokio::test]
async fn explain_names_the_switches_for_those_clients_that_they_would_help() {
    let (upstream, _) = stage().await;
    for (tag, switch, flag, helped, not_helped) in [
        ("schema1", UPGRADE, &["--upgrade-schema1"][..], ["Docker 28", "crane"], ["Docker 1.9", "Docker 20.10"]),
        ("zstd", TRANSCODE, &["--transcode", "zstd"], ["Docker 1.9", "Docker 20.10"], ["Docker 28", "crane"]),
    ] {
        let told = explained(&upstream, &[], tag).await;
        let words = |client: &str| {
            let found = told.iter().find(|(name, _)| name.starts_with(client));
            &found.unwrap_or_else(|| panic!("no {client} in {told:?}")).1
        };
        for client in helped {
            assert!(words(client).contains(switch), "{tag}, {client}: {}", words(client));
        }
        for client in not_helped {
            assert!(!words(client).contains(switch), "{tag}, {client}: {}", words(client));
        }
        for (client, words) in explained(&upstream, flag, tag).await {
            assert!(!words.contains(switch), "{tag}, {client}: {words}");
        }
    }
}
