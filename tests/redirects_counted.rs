//! What became of the redirects of an upstream is counted, and what was stale is in the log.

use schemabridge::upstream::Redirects;

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::Image;
use crate::support::process::Process;
use crate::support::upstream::Upstream;

const ACTIONS: [&str; 3] = ["passed", "followed", "refused"];

fn counted(gateway: &Gateway) -> [u64; 3] {
    ACTIONS.map(|action| {
        gateway.metric(&format!("schemabridge_redirects_total{{upstream=\"default\",action=\"{action}\"}}"))
    })
}

#[tokio::test]
async fn each_redirect_is_counted_by_what_became_of_it() {
    let upstream = Upstream::start().await;
    let image = Image::classic("app");
    upstream.put_image("app", "latest", &image, &image.oci());
    let blob = image.layers[0].clone();
    let target = format!("/v2/app/blobs/{}", blob.digest);
    upstream.contents().place("/there", blob.bytes.clone().unwrap());
    for (redirects, location, expected) in [
        (Redirects::Pass, "/there", [1, 0, 0]),
        (Redirects::Follow, "/there", [0, 1, 0]),
        (Redirects::Pass, "ftp://127.0.0.1/there", [0, 0, 1]),
        (Redirects::Follow, "ftp://127.0.0.1/there", [0, 0, 1]),
        (Redirects::Pass, "http://169.254.169.254/there", [0, 0, 1]),
    ] {
        upstream.behave();
        upstream.when("GET", &target).redirect(307, location);
        let gateway = Setup::default().redirects(redirects.clone()).before(&upstream).await;
        assert_eq!(counted(&gateway), [0; 3]);
        gateway.get(&Client::docker_20_10(), &target).await;
        assert_eq!(counted(&gateway), expected, "{redirects:?} {location}");
    }
    // The gateway's own reading follows whatever the operator wants for blobs.
    upstream.behave();
    let config = format!("/v2/app/blobs/{}", image.config_digest());
    upstream.contents().place("/config", image.config.clone());
    upstream.when("GET", &config).redirect(302, "/config");
    let gateway = Setup::default().redirects(Redirects::Pass).before(&upstream).await;
    assert_eq!(gateway.get(&Client::docker_1_9_1(), "/v2/app/manifests/latest").await.status, 200);
    assert_eq!(counted(&gateway), [0, 1, 0]);
}

#[tokio::test]
async fn the_access_log_says_what_was_stale() {
    let mut upstream = Upstream::start().await;
    let image = Image::classic("app");
    upstream.put_image("app", "latest", &image, &image.oci());
    let url = format!("main={}", upstream.url());
    let arguments = ["--store", "memory:", "--upstream", &url, "--auth", "anonymous", "--tag-ttl", "0s"];
    let process = Process::serve(&arguments, &[]).await;
    let target = "/v2/app/manifests/latest";
    for client in [Client::curl(), Client::docker_17()] {
        assert_eq!(process.get(&client, target).await.status, 200);
    }
    assert!(!process.log().contains("\"cache\":\"stale\""));
    upstream.go_down().await;
    for client in [Client::curl(), Client::docker_17()] {
        assert_eq!(process.get(&client, target).await.status, 200);
    }
    process.get(&Client::curl(), "/mark").await;
    process.logged("/mark").await;
    let log = process.log();
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let cache: Vec<_> = lines
        .filter(|line| line["path"] == format!("{target:?}"))
        .map(|line| line["cache"].as_str().map(str::to_owned))
        .collect();
    let stale = Some("stale".to_owned());
    assert_eq!(cache, [None, Some("miss".to_owned()), stale.clone(), stale]);
}
