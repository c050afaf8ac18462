//! An egress proxy between the gateway and everything else: it dials, so who may be asked is all that the gateway decides.

use schemabridge::upstream::{Proxies, ProxyUse, Redirects, Tls};

use crate::support::basic;
use crate::support::client::{Client, Reply};
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::Image;
use crate::support::proxy::Proxy;
use crate::support::secure::{Asks, Authority, Door};
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/app/manifests/latest";

fn through(proxy: &Proxy, login: &str, no_proxy: &[&str]) -> ProxyUse {
    let url: url::Url = format!("http://{login}{}", proxy.address()).parse().unwrap();
    let no_proxy = no_proxy.iter().map(|&host| host.to_owned()).collect();
    ProxyUse::Named(Proxies { https: Some(url.clone()), http: Some(url), no_proxy })
}

async fn upstream() -> (Upstream, Image, String) {
    let upstream = Upstream::start().await;
    let image = Image::classic("app");
    upstream.put_image("app", "latest", &image, &image.oci());
    let layer = format!("/v2/app/blobs/{}", image.layers[0].digest);
    (upstream, image, layer)
}

async fn pulled(gateway: &Gateway, layer: &str) -> [Reply; 2] {
    [gateway.get(&Client::docker_1_9_1(), TAGGED).await, gateway.get(&Client::docker_1_9_1(), layer).await]
}

/// `registry.example` and `cdn.example` are names that only the proxy knows.
#[tokio::test]
async fn a_registry_beyond_the_proxy_and_where_it_leads_are_reached_by_it() {
    let (upstream, image, layer) = upstream().await;
    let authority = Authority::new();
    let door = Door::before(&upstream, &authority.issue(&["registry.example"]), Asks::Nothing).await;
    let cdn = Upstream::start().await;
    cdn.contents().place("/layer", image.layers[0].bytes.clone().unwrap());
    let cdn_door = Door::before(&cdn, &authority.issue(&["cdn.example"]), Asks::Nothing).await;
    let elsewhere = format!("cdn.example:{}", cdn_door.port());
    upstream.when("GET", &layer).redirect(307, &format!("https://{elsewhere}/layer"));

    let login = basic("gate:way", "p@ss").replace("Basic", "basic");
    let proxy = Proxy::start(Some(login.replace("basic", "Basic"))).await;
    let gateway = Setup::default()
        .tls(Tls { authorities: Some(authority.file()), ..Tls::default() })
        .proxy(through(&proxy, "gate%3Away:p%40ss@", &[]))
        .before_url(&format!("https://registry.example:{}", door.port()))
        .await;
    for reply in pulled(&gateway, &layer).await {
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    let own = format!("CONNECT registry.example:{}", door.port());
    for line in [own, format!("CONNECT {elsewhere}")] {
        assert!(proxy.lines().contains(&line), "{line} in {:?}", proxy.lines());
    }
    for request in upstream.requests().iter().chain(&cdn.requests()) {
        assert_eq!(request.header("proxy-authorization"), None);
    }
}

#[tokio::test]
async fn the_allow_rule_decides_and_metadata_services_stay_forbidden() {
    let (upstream, image, layer) = upstream().await;
    let proxy = Proxy::start(None).await;
    let cdn = Upstream::start().await;
    cdn.contents().place("/layer", image.layers[0].bytes.clone().unwrap());
    let gateway = Setup::default()
        .redirects(Redirects::Follow)
        .names(|_| panic!("a name behind a proxy is not looked up"))
        .proxy(through(&proxy, "", &[]))
        .before_url(&format!("http://registry.example:{}", upstream.address().port()))
        .await;
    let port = cdn.address().port();
    for (host, status) in [("cdn.example", 200), ("10.0.0.7", 200), ("169.254.169.254", 502), ("[fe80::1]", 502)] {
        upstream.behave();
        upstream.when("GET", &layer).redirect(307, &format!("http://{host}:{port}/layer"));
        assert_eq!(gateway.get(&Client::curl(), &layer).await.status, status, "{host}");
    }
    assert_eq!(cdn.requests().len(), 2);
}

#[tokio::test]
async fn what_needs_no_proxy_is_dialled_and_checked() {
    let (upstream, _, layer) = upstream().await;
    let proxy = Proxy::start(None).await;
    let gateway =
        Setup::default().proxy(through(&proxy, "", &["127.0.0.0/8", "internal.example"])).before(&upstream).await;
    for reply in pulled(&gateway, &layer).await {
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    assert!(proxy.lines().is_empty(), "{:?}", proxy.lines());

    let gateway = Setup::default()
        .redirects(Redirects::Follow)
        .names(|name| vec![if name == "registry.example" { [93, 184, 216, 34] } else { [127, 0, 0, 1] }.into()])
        .proxy(through(&proxy, "", &["internal.example"]))
        .before_url(&format!("http://registry.example:{}", upstream.address().port()))
        .await;
    upstream.when("GET", &layer).redirect(307, "http://cdn.internal.example:1/layer");
    let reply = gateway.get(&Client::curl(), &layer).await;
    assert!(reply.error().1.contains("leads to where the gateway does not go"), "{}", reply.text());
}

#[tokio::test]
async fn the_proxys_password_is_in_no_answer() {
    let (upstream, _, layer) = upstream().await;
    let authority = Authority::new();
    let door = Door::before(&upstream, &authority.issue(&["registry.example"]), Asks::Nothing).await;
    let proxy = Proxy::start(Some(basic("gateway", "right"))).await;
    let gateway = Setup::default()
        .proxy(through(&proxy, "gateway:hunter2@", &[]))
        .before_url(&format!("https://registry.example:{}", door.port()))
        .await;
    for reply in pulled(&gateway, &layer).await {
        assert_eq!(reply.status, 502);
        let text = reply.text();
        assert!(!text.contains("hunter2") && !text.contains(&basic("gateway", "hunter2")), "{text}");
        assert!(text.contains("proxy"), "{text}");
    }
    assert!(proxy.heads()[0].to_ascii_lowercase().contains("proxy-authorization"), "{:?}", proxy.heads());
    assert!(upstream.requests().is_empty());
}
