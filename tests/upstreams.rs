//! One address in front of several registries: each request reaches the one that it names, and no other.

use prometheus_client::registry::Registry;
use schemabridge::gateway::service::ServiceOptions;
use schemabridge::gateway::{Options, Service};
use schemabridge::upstream::route::RouteNames;

use crate::support::basic;
use crate::support::client::{Call, Client};
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::Image;
use crate::support::upstream::Upstream;

struct Stage {
    first: Upstream,
    second: Upstream,
    gateway: Gateway,
    images: [Image; 2],
}

/// Both hold `app:latest`, each another one.
async fn stage_with(setup: Setup) -> Stage {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    let images = [Image::classic("first"), Image::classic("second")];
    first.put_image("app", "latest", &images[0], &images[0].oci());
    second.put_image("app", "latest", &images[1], &images[1].oci());
    let gateway = setup.beside("hub", &second, "hub.example", "hub.gateway.example").before(&first).await;
    Stage { first, second, gateway, images }
}

async fn stage() -> Stage {
    stage_with(Setup::default()).await
}

#[tokio::test]
async fn each_way_to_name_an_upstream_reaches_it_alone() {
    let Stage { first, second, gateway, images } = stage().await;
    let client = Client::docker_17();
    for (call, is_second) in [
        (client.get("/v2/app/manifests/latest"), false),
        (client.get("/v2/app/manifests/latest?ns=hub.example"), true),
        (client.get("/v2/hub/app/manifests/latest"), true),
        (client.get("/hub/v2/app/manifests/latest"), true),
        (client.get("/v2/hub/app/manifests/latest?ns=hub.example"), true),
        (client.get("/v2/app/manifests/latest").host("hub.gateway.example"), true),
        (client.get("/v2/app/manifests/latest").host("HUB.gateway.example:5000"), true),
        (client.get("/v2/app/manifests/latest").host("other.gateway.example"), false),
    ] {
        first.forget();
        second.forget();
        let got = gateway.send(&call).await;
        let image = &images[usize::from(is_second)];
        assert_eq!((got.status, got.digest()), (200, image.schema2().digest.as_str()), "{call:?}");
        let (asked, other) = if is_second { (&second, &first) } else { (&first, &second) };
        assert!(!asked.lines().is_empty() && other.lines().is_empty(), "{call:?}");
        assert!(
            asked.requests().iter().all(|request| request.path.starts_with("/v2/app/") && request.query.is_empty())
        );
    }
}

#[tokio::test]
async fn blobs_tags_and_derived_digests_go_the_same_way() {
    let Stage { first, second, gateway, images } = stage().await;
    let derived = images[1].schema2().digest;
    assert_eq!(gateway.manifest(&Client::docker_17(), "/v2/hub/app/manifests/latest").await.digest(), derived);
    first.forget();
    let config = images[1].config_digest();
    for (target, body) in [
        (format!("/v2/hub/app/blobs/{config}"), images[1].config.clone()),
        (format!("/v2/app/blobs/{config}?ns=hub.example"), images[1].config.clone()),
        (format!("/v2/hub/app/manifests/{derived}"), images[1].schema2().bytes),
        (format!("/hub/v2/app/manifests/{derived}"), images[1].schema2().bytes),
    ] {
        let got = gateway.get(&Client::docker_17(), &target).await;
        assert_eq!((got.status, &got.body[..]), (200, &body[..]), "{target}");
    }
    let tags = gateway.get(&Client::curl(), "/v2/hub/app/tags/list").await;
    assert_eq!(tags.json()["tags"], serde_json::json!(["latest"]));
    assert_eq!(first.lines(), Vec::<String>::new());
    // What one upstream's image became is nothing to the other's repository of the same name.
    assert_eq!(gateway.get(&Client::docker_17(), &format!("/v2/app/manifests/{derived}")).await.status, 404);
    drop(second);
}

#[tokio::test]
async fn a_prefix_is_in_every_path_that_the_client_is_sent_to() {
    let stage = stage_with(Setup::default().push()).await;
    stage.second.put("app", "second", &stage.images[0].oci());
    for (prefix, path) in [("/v2/hub/", "/v2/hub/app"), ("/hub/v2/", "/hub/v2/app")] {
        let page = stage.gateway.get(&Client::curl(), &format!("{path}/tags/list?n=1")).await;
        let link = page.header("link").unwrap();
        assert!(link.starts_with(&format!("<{prefix}app/tags/list?")), "{link}");
    }
    // The second upstream takes no pushes: its options are its own.
    let refused = stage.gateway.send(&Call::new("POST", "/v2/hub/app/blobs/uploads/")).await;
    assert_eq!(refused.status, 405);
    let begun = stage.gateway.send(&Call::new("POST", "/v2/app/blobs/uploads/")).await;
    assert_eq!(begun.status, 202);
}

/// They are the default's, or those of the upstream whose host was connected to; any other gets none.
#[tokio::test]
async fn a_clients_credentials_go_to_one_upstream_only() {
    let Stage { first, second, gateway, .. } = stage().await;
    let secret = basic("ann", "1");
    let ask = |target: &str| Client::docker_17().get(target).header("Authorization", &secret);
    for call in [
        ask("/v2/hub/app/manifests/latest"),
        ask("/hub/v2/app/manifests/latest"),
        ask("/v2/app/manifests/latest?ns=hub.example"),
    ] {
        assert_eq!(gateway.send(&call).await.status, 200);
    }
    assert!(!second.requests().is_empty());
    assert!(second.requests().iter().all(|request| request.header("authorization").is_none()));
    gateway.send(&ask("/v2/app/manifests/latest")).await;
    assert!(first.requests().iter().all(|request| request.header("authorization") == Some(secret.as_str())));
    second.forget();
    gateway.send(&ask("/v2/app/manifests/latest").host("hub.gateway.example")).await;
    assert!(second.requests().iter().all(|request| request.header("authorization") == Some(secret.as_str())));
}

/// A client would take what it has for the one upstream to the token service of the other.
#[tokio::test]
async fn a_challenge_reaches_only_who_can_answer_it() {
    let Stage { second, gateway, .. } = stage().await;
    let challenge = format!("Bearer realm=\"{}/token\",service=\"second\"", second.url());
    second.contents().close(&challenge);
    for target in ["/v2/app/manifests/latest?ns=hub.example", "/v2/hub/app/tags/list", "/hub/v2/"] {
        let got = gateway.get(&Client::docker_17(), target).await;
        assert_eq!((got.status, got.header("www-authenticate")), (401, None), "{target}");
    }
    let bound = Client::docker_17().get("/v2/app/manifests/latest").host("hub.gateway.example");
    assert_eq!(gateway.send(&bound).await.header("www-authenticate"), Some(challenge.as_str()));
}

/// Who named the upstream by `ns` is sent on with it: without it the way leads to another upstream.
#[tokio::test]
async fn a_namespace_is_in_every_path_that_the_client_is_sent_to() {
    let stage = stage().await;
    stage.second.put("app", "second", &stage.images[0].oci());
    let page = stage.gateway.get(&Client::curl(), "/v2/app/tags/list?n=1&ns=hub.example").await;
    let link = page.header("link").unwrap();
    let next = link.trim_start_matches('<').split('>').next().unwrap();
    let rest = stage.gateway.get(&Client::curl(), next).await;
    assert_eq!(rest.json()["tags"], serde_json::json!(["second"]), "{next}");
    stage.second.when("GET", "/v2/app/blobs/*").redirect(307, "/v2/other/blobs/sha256:00?a=1");
    let blob = format!("/v2/app/blobs/{}?ns=hub.example", stage.images[1].config_digest());
    let redirected = stage.gateway.get(&Client::curl(), &blob).await;
    assert_eq!(redirected.header("location"), Some("/v2/other/blobs/sha256:00?a=1&ns=hub.example"));
}

#[tokio::test]
async fn without_a_default_what_names_nobody_is_nobodys() {
    let Stage { first, second, gateway, .. } = stage_with(Setup::default().without_default()).await;
    let got = gateway.manifest(&Client::docker_17(), "/v2/app/manifests/latest").await;
    assert_eq!((got.status, got.error().0.as_str()), (404, "NAME_UNKNOWN"));
    assert_eq!(
        gateway.get(&Client::curl(), "/v2/").await.status,
        200,
        "clients ask this first, whatever they want next"
    );
    assert_eq!(gateway.get(&Client::curl(), "/").await.status, 404);
    assert!(first.lines().is_empty() && second.lines().is_empty());
    assert_eq!(gateway.manifest(&Client::docker_17(), "/v2/hub/app/manifests/latest").await.status, 200);
}

#[tokio::test]
async fn nothing_is_shown_of_how_an_upstream_stands_that_is_no_more() {
    let named = |name: &str| {
        let options = Options::for_upstream("http://127.0.0.1:9".parse().unwrap());
        (Options { upstream_name: name.to_owned(), ..options }, RouteNames::default())
    };
    let mut options = ServiceOptions::alone(named("kept").0);
    options.site.upstreams.push(named("gone"));
    let mut site = options.site.clone();
    let service = Service::start(options).unwrap();
    let mut metrics = Registry::default();
    service.shared().register_metrics(&mut metrics);
    let shown = |name: &str| {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &metrics).unwrap();
        text.contains(&format!("upstream_breaker_state{{upstream=\"{name}\"}}"))
    };
    assert!(shown("kept") && shown("gone"));
    site.upstreams.pop();
    service.change(site).unwrap();
    assert!(shown("kept") && !shown("gone"));
}

#[tokio::test]
async fn rules_hold_for_every_endpoint_of_a_repository() {
    let upstream = Upstream::start().await;
    let image = Image::classic("app");
    for repository in ["open/app", "open/secret/app", "closed/app"] {
        upstream.put_image(repository, "latest", &image, &image.oci());
    }
    let setup = Setup::default().push().repositories(&["open/**"], &["open/secret/**"]);
    let gateway = setup.before(&upstream).await;
    assert_eq!(gateway.manifest(&Client::docker_17(), "/v2/open/app/manifests/latest").await.status, 200);
    upstream.forget();
    let (digest, config) = (image.oci().digest, image.config_digest());
    for repository in ["open/secret/app", "closed/app", "openx/app"] {
        for (method, rest) in [
            ("GET", "manifests/latest".to_owned()),
            ("HEAD", "manifests/latest".to_owned()),
            ("GET", format!("manifests/{digest}")),
            ("GET", format!("blobs/{config}")),
            ("GET", "tags/list".to_owned()),
            ("GET", format!("referrers/{digest}")),
            ("POST", "blobs/uploads/".to_owned()),
            ("PUT", "manifests/latest".to_owned()),
            ("DELETE", format!("manifests/{digest}")),
        ] {
            let got = gateway.send(&Call::new(method, &format!("/v2/{repository}/{rest}"))).await;
            assert_eq!(got.status, 403, "{method} {repository}/{rest}");
            if method != "HEAD" {
                assert_eq!(got.error().0, "DENIED");
            }
        }
        // What is no endpoint to the gateway may be one to the upstream.
        for (method, rest, status) in
            [("GET", "tags/list/", 403), ("GET", "_extension/x", 404), ("DELETE", "tags/latest", 404)]
        {
            let got = gateway.send(&Call::new(method, &format!("/v2/{repository}/{rest}"))).await;
            assert_eq!(got.status, status, "{method} {repository}/{rest}");
        }
    }
    let mount = "/v2/open/app/blobs/uploads/?from=closed%2Fapp&mount=sha256:00";
    assert_eq!(gateway.send(&Call::new("POST", mount)).await.status, 403, "a mount reads what it names");
    assert_eq!(upstream.lines(), Vec::<String>::new());
}

#[tokio::test]
async fn docker_hubs_library_is_added_inside() {
    let upstream = Upstream::start().await;
    let image = Image::classic("app");
    upstream.put_image("library/alpine", "latest", &image, &image.oci());
    upstream.put_image("corp/alpine", "latest", &image, &image.oci());
    upstream.put_image("library/v2", "latest", &image, &image.oci());
    let gateway = Setup::default().in_library().repositories(&["library/**", "corp/**"], &[]).before(&upstream).await;
    for repository in ["alpine", "library/alpine", "corp/alpine", "v2"] {
        let got = gateway.manifest(&Client::docker_17(), &format!("/v2/{repository}/manifests/latest")).await;
        assert_eq!((got.status, got.digest()), (200, image.schema2().digest.as_str()), "{repository}");
        let digest = got.digest().to_owned();
        for target in [
            format!("/v2/{repository}/manifests/{digest}"),
            format!("/v2/{repository}/blobs/{}", image.config_digest()),
            format!("/v2/{repository}/tags/list"),
        ] {
            assert_eq!(gateway.get(&Client::docker_17(), &target).await.status, 200, "{target}");
        }
    }
    // Schema 1 says the name as the upstream knows it, so every route to an image gives one digest.
    let [short, long] = ["alpine", "library/alpine"].map(|name| format!("/v2/{name}/manifests/latest"));
    let short = gateway.manifest(&Client::docker_1_9_1(), &short).await;
    assert_eq!(short.digest(), gateway.manifest(&Client::docker_1_9_1(), &long).await.digest());
    assert_eq!(short.json()["name"], "library/alpine");
    assert!(upstream.requests().iter().all(|request| !request.path.starts_with("/v2/alpine/")));
}
