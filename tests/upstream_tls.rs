//! TLS to the upstream: whom the gateway trusts, what it shows of itself, and that neither reaches beyond the upstream's
//! own origin.

use schemabridge::gateway::service::ServiceOptions;
use schemabridge::gateway::{Options, Service};
use schemabridge::upstream::{ClientCertificate, Redirects, Tls, Verification};

use crate::support::basic;
use crate::support::client::{Call, Client, Reply};
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::Image;
use crate::support::secure::{Asks, Authority, Door, Files, self_signed};
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/app/manifests/latest";

/// A registry behind TLS, known as `localhost`.
struct Stage {
    upstream: Upstream,
    door: Door,
    authority: Authority,
    layer: String,
    image: Image,
}

async fn stage() -> Stage {
    stage_that(|_| Asks::Nothing).await
}

async fn stage_that(asks: impl FnOnce(&Authority) -> Asks) -> Stage {
    let upstream = Upstream::start().await;
    let image = Image::classic("app");
    upstream.put_image("app", "latest", &image, &image.oci());
    let authority = Authority::new();
    let door = Door::before(&upstream, &authority.issue(&["localhost"]), asks(&authority)).await;
    let layer = format!("/v2/app/blobs/{}", image.layers[0].digest);
    Stage { upstream, door, authority, layer, image }
}

impl Stage {
    fn url(&self) -> String {
        format!("https://localhost:{}", self.door.port())
    }

    fn trusting(&self) -> Tls {
        Tls { authorities: Some(self.authority.file()), ..Tls::default() }
    }

    async fn gateway(&self, tls: Tls) -> Gateway {
        Setup::default().tls(tls).before_url(&self.url()).await
    }
}

/// A translation (documents) and a layer (a stream).
async fn pulled(gateway: &Gateway, stage: &Stage) -> [Reply; 2] {
    [gateway.get(&Client::docker_1_9_1(), TAGGED).await, gateway.get(&Client::docker_1_9_1(), &stage.layer).await]
}

fn certificate(files: Files) -> ClientCertificate {
    ClientCertificate { chain: files.chain, key: files.key }
}

#[tokio::test]
async fn an_authority_of_ones_own_is_trusted_where_it_is_named() {
    let stage = stage().await;
    let gateway = stage.gateway(stage.trusting()).await;
    for reply in pulled(&gateway, &stage).await {
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
}

/// Certificates are replaced in place, under the names that the configuration has for them.
#[tokio::test]
async fn a_file_that_was_replaced_counts_when_the_configuration_is_read_again() {
    let stage = stage().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("authorities.pem");
    std::fs::copy(Authority::new().file(), &file).unwrap();
    let mut options = ServiceOptions::alone(Options::for_upstream(stage.url().parse().unwrap()));
    options.site.upstreams[0].0.upstream.tls = Tls { authorities: Some(file.clone()), ..Tls::default() };
    let site = options.site.clone();
    let service = Service::start(options).unwrap();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = schemabridge::server::serve(listener, service.clone(), std::future::pending());
    let serving = tokio::spawn(serving);
    let pull = Client::docker_17().get(TAGGED);
    assert_eq!(pull.send(address).await.status, 502);
    std::fs::copy(stage.authority.file(), &file).unwrap();
    service.change(site.clone()).unwrap();
    assert_eq!(pull.send(address).await.status, 200);
    std::fs::write(&file, "").unwrap();
    assert!(service.change(site).is_err(), "a file that cannot be used leaves the one before in force");
    assert_eq!(pull.send(address).await.status, 200);
    serving.abort();
}

#[tokio::test]
async fn a_certificate_of_nobody_known_is_refused_in_clear_words() {
    let stage = stage().await;
    let other = Authority::new();
    for tls in [Tls::default(), Tls { authorities: Some(other.file()), ..Tls::default() }] {
        for reply in pulled(&stage.gateway(tls).await, &stage).await {
            let words = reply.error().1;
            assert_eq!(reply.status, 502);
            assert!(words.contains("certificate") && words.contains("authority"), "{words}");
            assert!(words.contains(&format!("localhost:{}", stage.door.port())), "{words}");
        }
    }
    assert!(stage.upstream.requests().is_empty());
}

#[tokio::test]
async fn a_self_signed_certificate_is_trusted_where_it_is_named() {
    let stage = stage().await;
    let folder = tempfile::tempdir().unwrap();
    for (name, last_year, status) in [("localhost", 2100, 200), ("other.example", 2100, 502), ("localhost", 2020, 502)]
    {
        let files = self_signed(folder.path(), name, last_year);
        let door = Door::before(&stage.upstream, &files, Asks::Nothing).await;
        let url = format!("https://localhost:{}", door.port());
        let trusting = Tls { authorities: Some(files.chain), ..Tls::default() };
        for (tls, status) in [(trusting, status), (stage.trusting(), 502)] {
            let gateway = Setup::default().tls(tls).before_url(&url).await;
            for reply in pulled(&gateway, &stage).await {
                assert_eq!(reply.status, status, "{name} until {last_year}: {}", reply.text());
            }
        }
    }
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused() {
    let stage = stage().await;
    let door = Door::before(&stage.upstream, &stage.authority.issue(&["other.example"]), Asks::Nothing).await;
    let gateway =
        Setup::default().tls(stage.trusting()).before_url(&format!("https://localhost:{}", door.port())).await;
    for reply in pulled(&gateway, &stage).await {
        assert_eq!(reply.status, 502);
        assert!(reply.error().1.contains("certificate"), "{}", reply.text());
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_who_asks_for_it() {
    let stage = stage_that(|authority| Asks::MustShow(authority.file())).await;
    let tls = Tls { certificate: Some(certificate(stage.authority.issue(&["gateway"]))), ..stage.trusting() };
    for reply in pulled(&stage.gateway(tls).await, &stage).await {
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    stage.upstream.forget();
    // Whether the words of the refusal arrive before the end of the connection is up to the sockets.
    for reply in pulled(&stage.gateway(stage.trusting()).await, &stage).await {
        assert_eq!(reply.status, 502);
        assert!(reply.error().1.contains("cannot be reached"), "{}", reply.text());
    }
    assert!(stage.upstream.requests().is_empty());
}

#[tokio::test]
async fn insecure_is_the_upstreams_own_origin_and_no_other() {
    let stage = stage().await;
    let tls = Tls { verification: Verification::Insecure, ..Tls::default() };
    let gateway = Setup::default().redirects(Redirects::Follow).tls(tls).before_url(&stage.url()).await;
    for reply in pulled(&gateway, &stage).await {
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    // The same host at another port is another origin, and another host anyway.
    let attacker = Upstream::start().await;
    for name in ["localhost", "127.0.0.1"] {
        let door = Door::before(&attacker, &Authority::new().issue(&[name]), Asks::Nothing).await;
        stage.upstream.behave();
        stage.upstream.when("GET", &stage.layer).redirect(307, &format!("https://{name}:{}/layer", door.port()));
        let reply = gateway.get(&Client::curl(), &stage.layer).await;
        assert_eq!(reply.status, 502);
        assert!(reply.error().1.contains("certificate"), "{}", reply.text());
    }
    assert!(attacker.requests().is_empty());
}

#[tokio::test]
async fn the_client_certificate_is_shown_to_nobody_else() {
    let stage = stage_that(|authority| Asks::MayShow(authority.file())).await;
    let elsewhere = Upstream::start().await;
    elsewhere.contents().place("/layer", stage.image.layers[0].bytes.clone().unwrap());
    let files = stage.authority.issue(&["localhost"]);
    let other = Door::before(&elsewhere, &files, Asks::MayShow(stage.authority.file())).await;
    stage.upstream.when("GET", &stage.layer).redirect(307, &format!("https://localhost:{}/layer", other.port()));
    let tls = Tls { certificate: Some(certificate(stage.authority.issue(&["gateway"]))), ..stage.trusting() };
    for reply in pulled(&stage.gateway(tls).await, &stage).await {
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    assert!(!stage.door.shown().is_empty() && stage.door.shown().iter().all(|shown| *shown));
    assert_eq!(other.shown(), [false]);
}

#[tokio::test]
async fn what_began_under_tls_never_leaves_it() {
    let stage = stage().await;
    let attacker = Upstream::start().await;
    attacker.contents().place("/x", stage.image.layers[0].bytes.clone().unwrap());
    for redirects in [Redirects::Pass, Redirects::Follow] {
        let gateway = Setup::default().redirects(redirects).tls(stage.trusting()).before_url(&stage.url()).await;
        stage.upstream.when("*", "/v2/app/*").redirect(307, &format!("{}/x", attacker.url()));
        for target in [&stage.layer, TAGGED, "/v2/app/tags/list"] {
            let reply = gateway.get(&Client::curl(), target).await;
            assert_eq!((reply.status, reply.header("location")), (502, None), "{target}");
            assert!(reply.error().1.contains("from https to http"), "{}", reply.text());
        }
    }
    assert_eq!(attacker.connections(), 0);
}

#[tokio::test]
async fn a_realm_without_tls_is_not_asked() {
    let stage = stage().await;
    let attacker = Upstream::start().await;
    stage.upstream.contents().close(&format!("Bearer realm=\"{}/token\",service=\"registry\"", attacker.url()));
    let gateway = Setup::default()
        .rewrite_challenges()
        .token_realm(&format!("{}/", attacker.url()))
        .tls(stage.trusting())
        .before_url(&stage.url())
        .await;
    let call = Call::new("GET", "/token?service=registry").header("Authorization", &basic("ann", "secret"));
    let reply = gateway.send(&call).await;
    assert_eq!(reply.status, 502);
    assert!(reply.error().1.contains("not https"), "{}", reply.text());
    assert_eq!(attacker.connections(), 0);
}

#[test]
fn a_file_that_cannot_be_used_is_named() {
    let authority = Authority::new();
    let (one, other) = (authority.issue(&["a"]), authority.issue(&["b"]));
    let missing = authority.file().with_file_name("missing.pem");
    let shown = |chain, key| Tls { certificate: Some(ClientCertificate { chain, key }), ..Tls::default() };
    let trusted = |file| Tls { authorities: Some(file), ..Tls::default() };
    for (tls, file, reason) in [
        (trusted(missing.clone()), &missing, "No such file"),
        (trusted(one.key.clone()), &one.key, "no certificate"),
        (shown(missing.clone(), one.key.clone()), &missing, "No such file"),
        (shown(one.chain.clone(), one.chain.clone()), &one.chain, "private key"),
        (shown(one.chain.clone(), other.key.clone()), &other.key, "not the private key"),
    ] {
        let mut options = Options::for_upstream("https://registry.example".parse().unwrap());
        options.upstream.tls = tls;
        let words = Service::start(ServiceOptions::alone(options)).err().unwrap().to_string();
        assert!(words.contains(&file.display().to_string()) && words.contains(reason), "{words}");
        assert!(words.contains("registry.example"), "{words}");
    }
}
