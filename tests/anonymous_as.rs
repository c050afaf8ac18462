//! `anonymous_as = "gateway"`: the gateway speaks for those who show nothing, and for nobody else.

use std::time::Duration;

use schemabridge::upstream::{Authentication, Secret};
use serde_json::json;

use crate::support::basic;
use crate::support::client::{Call, Client, Reply};
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::Image;
use crate::support::upstream::Upstream;

const OF_THE_GATEWAY: &str = "/v2/app/manifests/latest";
const OF_ANN: &str = "/v2/own/manifests/latest";
const HOUR: Duration = Duration::from_secs(3600);
const CHALLENGE: &str = "Basic realm=\"registry\"";

/// The gateway may see `app`, and Ann `own`.
async fn upstream() -> Upstream {
    let upstream = Upstream::start().await;
    let image = Image::classic("app");
    for repository in ["app", "own"] {
        upstream.put_image(repository, "latest", &image, &image.oci());
    }
    upstream.contents().close(CHALLENGE);
    upstream.contents().admit(&basic("gate", "pw"), "app");
    upstream.contents().admit(&basic("ann", "1"), "own");
    upstream
}

fn setup() -> Setup {
    let password = Secret::new("pw".to_owned());
    Setup::default().anonymous_as_gateway(Authentication::Basic { username: "gate".to_owned(), password })
}

async fn ask(gateway: &Gateway, target: &str, caller: Option<&str>) -> Reply {
    let call = Client::docker_17().get(target);
    let call = caller.into_iter().fold(call, |call, caller| call.header("Authorization", caller));
    gateway.send(&call).await
}

/// What the upstream was shown, each once.
fn shown(upstream: &Upstream) -> Vec<Option<String>> {
    let mut shown: Vec<_> =
        upstream.requests().iter().map(|request| request.header("authorization").map(str::to_owned)).collect();
    shown.sort();
    shown.dedup();
    upstream.forget();
    shown
}

#[tokio::test]
async fn each_speaks_for_himself_and_the_gateway_for_who_shows_nothing() {
    let upstream = upstream().await;
    let gateway = setup().tag_ttl(HOUR).before(&upstream).await;
    let (gate, ann, bob) = (basic("gate", "pw"), basic("ann", "1"), basic("bob", "2"));
    let layer = format!("/v2/app/blobs/{}", Image::classic("app").config_digest());
    let targets = [OF_THE_GATEWAY, &layer, "/v2/app/tags/list"];
    // Docker 1.6 shows this where nobody is logged in.
    for nobody in [None, Some("Basic Og==")] {
        for target in targets {
            assert_eq!(ask(&gateway, target, nobody).await.status, 200, "{target}");
        }
    }
    let seen = shown(&upstream);
    assert!(seen.iter().flatten().all(|shown| *shown == gate), "{seen:?}");
    // What is remembered of the gateway's is no one else's; what they are refused is not tried again.
    for (caller, status) in [(&ann, 403), (&bob, 401)] {
        for target in targets {
            let refused = ask(&gateway, target, Some(caller)).await;
            assert_eq!(refused.status, status, "{target}");
            assert_eq!(refused.header("www-authenticate"), (status == 401).then_some(CHALLENGE), "{target}");
        }
        assert_eq!(shown(&upstream), [Some(caller.clone())]);
    }
    assert_eq!(ask(&gateway, OF_ANN, Some(&ann)).await.status, 200);
    assert_eq!(shown(&upstream), [Some(ann.clone())]);
    // Nor is Ann's the gateway's.
    let refused = ask(&gateway, OF_ANN, None).await;
    assert_eq!((refused.status, refused.header("www-authenticate")), (403, None));
    assert_eq!(shown(&upstream), [Some(gate)]);
    assert_eq!(ask(&gateway, OF_ANN, Some(&ann)).await.status, 200, "remembered");
    assert_eq!(shown(&upstream), Vec::new());
}

/// Permission comes from the upstream, so one that is away gives none.
#[tokio::test]
async fn nothing_is_stale() {
    let mut upstream = upstream().await;
    let gateway = setup().before(&upstream).await;
    assert_eq!(ask(&gateway, OF_THE_GATEWAY, None).await.status, 200);
    upstream.go_down().await;
    assert_eq!(ask(&gateway, OF_THE_GATEWAY, None).await.status, 502);
}

#[tokio::test]
async fn who_asks_how_to_log_in_hears_it_from_the_upstream() {
    let upstream = upstream().await;
    let gateway = setup().before(&upstream).await;
    for _ in 0..2 {
        let ping = ask(&gateway, "/v2/", None).await;
        assert_eq!((ping.status, ping.header("www-authenticate")), (401, Some(CHALLENGE)));
    }
    assert_eq!(shown(&upstream), [None]);
    let ann = basic("ann", "1");
    assert_eq!(ask(&gateway, "/v2/", Some(&ann)).await.status, 200);
    assert_eq!(ask(&gateway, "/v2/", Some(&basic("ann", "wrong"))).await.status, 401);
    assert_eq!(shown(&upstream), [Some(ann), Some(basic("ann", "wrong"))]);
    let open = Upstream::start().await;
    let gateway = setup().before(&open).await;
    assert_eq!(ask(&gateway, "/v2/", None).await.status, 200);
}

/// Docker and others ask for a token as soon as they are challenged, whether they have anything to show or not.
#[tokio::test]
async fn a_client_that_wants_a_token_gets_one_that_counts_as_nothing() {
    let upstream = upstream().await;
    let realm = format!("Bearer realm=\"{}/token\",service=\"registry\"", upstream.url());
    upstream.contents().close(&realm);
    for credential in [basic("ann", "1"), "ann:1".to_owned(), basic("gate", "pw")] {
        upstream.contents().mint_for(&credential);
    }
    let gateway = setup().rewrite_challenges().before(&upstream).await;
    let ping = ask(&gateway, "/v2/", None).await;
    assert_eq!(ping.status, 401);
    assert!(ping.header("www-authenticate").unwrap().contains(&format!("http://{}/token", gateway.address())));
    let target = "/token?service=registry&scope=repository:app:pull";
    let nobodys = ask(&gateway, target, None).await.json();
    assert_eq!(nobodys["token"], nobodys["access_token"]);
    assert!(upstream.requests_to("*", "/token").is_empty());
    let bearer = format!("Bearer {}", nobodys["token"].as_str().unwrap());
    assert_eq!(ask(&gateway, OF_THE_GATEWAY, Some(&bearer)).await.status, 200);
    assert!(!shown(&upstream).contains(&Some(bearer)));

    let own = ask(&gateway, &target.replace("app", "own"), Some(&basic("ann", "1"))).await.json();
    assert_ne!(own["token"], nobodys["token"]);
    let bearer = format!("Bearer {}", own["token"].as_str().unwrap());
    assert_eq!(ask(&gateway, OF_ANN, Some(&bearer)).await.status, 200);
    assert_eq!(ask(&gateway, OF_THE_GATEWAY, Some(&bearer)).await.status, 401, "it is for another repository");
    let form = "grant_type=password&username=ann&password=1&service=registry&scope=repository:own:pull";
    let call = Call::new("POST", "/token").header("Content-Type", "application/x-www-form-urlencoded");
    let posted = gateway.send(&call.body(form)).await;
    assert_eq!((posted.status, posted.json()["access_token"] == json!("nobody")), (200, false));
    // Where each logs in for himself, nobody's token is worth nothing.
    let gateway = Setup::default().rewrite_challenges().before(&upstream).await;
    assert_eq!(ask(&gateway, OF_THE_GATEWAY, Some("Bearer nobody")).await.status, 401);
    assert_eq!(ask(&gateway, target, None).await.status, 401);
}
