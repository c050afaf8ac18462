//! What else can be read of a registry: with the gateway's credentials nothing that the operator did not mean to show.

use serde_json::json;

use crate::support::basic;
use crate::support::client::{Client, Reply};
use crate::support::fault::Answer;
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::Image;
use crate::support::upstream::Upstream;

const CATALOG: &str = "/v2/_catalog";

async fn upstream() -> Upstream {
    let upstream = Upstream::start().await;
    let image = Image::small("app");
    for repository in ["team/app", "team/secret", "other/app"] {
        upstream.put_image(repository, "latest", &image, &image.oci());
    }
    upstream
}

async fn get(gateway: &Gateway, target: &str) -> Reply {
    gateway.get(&Client::curl(), target).await
}

fn ruled(setup: Setup) -> Setup {
    setup.repositories(&["team/*"], &["*/secret"])
}

#[tokio::test]
async fn the_gateways_credentials_ask_for_nothing_else() {
    let upstream = upstream().await;
    let gateway = Setup::default().permission_from_the_gateway().before(&upstream).await;
    for target in [
        CATALOG,
        "/v2/_catalog/",
        "/v2/_catalog?n=1",
        "/v2/_oci/ext/discover",
        "/v2/team/app/_oci/ext",
        "/v2/team/app/tags",
        "/v2/team/app/manifests/latest/more",
        "/v2/tags/list",
        "/v2/search",
        "/v2/team/app/blobs/uploads/1",
        "/v2/team/app/blobs/uploads/",
    ] {
        let got = get(&gateway, target).await;
        assert_eq!(got.status, 404, "{target}: {}", got.text());
        got.error();
    }
    assert_eq!(upstream.lines(), Vec::<String>::new());
    for target in ["/v2/team/app/tags/list", "/v2/team/app/manifests/latest"] {
        assert_eq!(get(&gateway, target).await.status, 200, "{target}");
    }
}

#[tokio::test]
async fn the_list_of_repositories_holds_those_that_are_served() {
    let upstream = upstream().await;
    for (gateway, served) in [
        (ruled(Setup::default().permission_from_the_gateway().catalog()), json!(["team/app"])),
        (ruled(Setup::default()), json!(["team/app"])),
        (ruled(Setup::default().anonymous_as_gateway(held()).catalog()), json!(["team/app"])),
        (Setup::default().permission_from_the_gateway().catalog(), json!(["other/app", "team/app", "team/secret"])),
        (Setup::default(), json!(["other/app", "team/app", "team/secret"])),
    ] {
        let gateway = gateway.before(&upstream).await;
        let got = get(&gateway, CATALOG).await;
        assert_eq!((got.status, got.json()["repositories"].clone()), (200, served));
        assert!(got.is_whole);
        let head = gateway.head(&Client::curl(), CATALOG).await;
        assert_eq!((head.status, head.header("content-length")), (200, got.header("content-length")));
    }
}

fn held() -> schemabridge::upstream::Authentication {
    schemabridge::upstream::Authentication::Anonymous
}

/// A final slash is no way around the rules.
#[tokio::test]
async fn rules_hold_however_the_path_ends() {
    let upstream = upstream().await;
    upstream.when("GET", "/v2/_catalog/").answer(Answer::new(200).body(r#"{"repositories":["team/secret"]}"#));
    upstream.when("GET", "/v2/team/secret/*").answer(Answer::new(200).body("{}"));
    let gateway = ruled(Setup::default()).before(&upstream).await;
    assert_eq!(get(&gateway, "/v2/_catalog/").await.json(), json!({"repositories": []}));
    for target in ["/v2/team/secret/tags/list", "/v2/team/secret/tags/list/"] {
        assert_eq!(get(&gateway, target).await.status, 403, "{target}");
    }
    assert!(upstream.requests_to("*", "/v2/team/*").is_empty(), "{:?}", upstream.lines());
}

#[tokio::test]
async fn the_next_page_is_at_the_gateway() {
    let (main, hub) = (Upstream::start().await, upstream().await);
    let page = Answer::new(200).body(r#"{"repositories":["other/app","team/app"]}"#);
    let next = format!("<{}/v2/_catalog?last=team%2Fapp&n=2>; rel=\"next\"", hub.url());
    hub.when("GET", CATALOG).answer(page.header("link", &next).header("etag", "\"of-another-page\""));
    let setup = Setup::default().repositories(&["team/*"], &[]).prefix("hub").permission_from_the_gateway();
    let gateway = setup.catalog().beside("main", &main, "main.example", "main.example").before(&hub).await;
    for (target, prefix) in
        [("/v2/hub/_catalog?n=2", "/v2/hub/"), ("/hub/v2/_catalog?n=2", "/hub/v2/"), ("/v2/_catalog?n=2", "/v2/")]
    {
        let got = get(&gateway, target).await;
        let link = format!("<{prefix}_catalog?last=team%2Fapp&n=2>; rel=\"next\"");
        assert_eq!((got.status, got.header("link")), (200, Some(link.as_str())), "{target}");
        assert_eq!((got.json(), got.header("etag")), (json!({"repositories": ["team/app"]}), None));
    }
    assert!(hub.requests().iter().all(|request| request.query == "n=2" && request.path == CATALOG));
    assert!(main.lines().is_empty());
}

#[tokio::test]
async fn a_page_that_cannot_be_looked_through_is_not_shown() {
    let upstream = upstream().await;
    let gateway = ruled(Setup::default().permission_from_the_gateway().catalog()).before(&upstream).await;
    let large = format!("{{\"repositories\":[{}\"team/app\"]}}", "\"team/secret\",".repeat(700_000));
    assert!(large.len() > 8 << 20);
    for (status, body) in
        [(200, "no JSON"), (200, "[\"team/secret\"]"), (200, "{}"), (200, ""), (200, &large), (204, ""), (304, "")]
    {
        upstream.behave();
        upstream.when("GET", CATALOG).answer(Answer::new(status).body(body.to_owned()));
        let got = get(&gateway, CATALOG).await;
        assert_eq!(got.status, 502, "{status} {}", body.len());
        let (_, words) = got.error();
        assert!(!words.contains("secret"), "{words}");
    }
    let call = Client::curl().get(CATALOG).header("If-None-Match", "*").header("Range", "bytes=0-1");
    upstream.behave();
    upstream.forget();
    assert_eq!(gateway.send(&call.header("Authorization", &basic("ann", "1"))).await.status, 200);
    let asked = &upstream.requests_to("GET", CATALOG)[0];
    assert!(["if-none-match", "range", "authorization"].iter().all(|name| asked.header(name).is_none()));
}
