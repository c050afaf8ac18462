//! TLS to clients: who comes in by a certificate, and that what is no TLS, or no end of a handshake, harms nobody.

use std::path::Path;
use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, SupportedProtocolVersion};
use schemabridge::gateway::door::DoorOptions;
use schemabridge::server::tls::TlsOptions;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use url::Url;

use crate::commands::complaint;
use crate::door::{ALICE, ALICES};
use crate::support::client::{Call, Client, raw};
use crate::support::fault::Answer;
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::Image;
use crate::support::process::Process;
use crate::support::secure::{Authority, Files};
use crate::support::secure_client::Secure;
use crate::support::upstream::Upstream;
use crate::support::{basic, patiently};

const TAGGED: &str = "/v2/app/manifests/latest";
const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

async fn upstream() -> Upstream {
    let upstream = Upstream::start().await;
    let image = Image::small("app");
    upstream.put_image("app", "latest", &image, &image.oci());
    upstream
}

/// The authorities of a gateway and of its clients.
struct Authorities {
    own: Authority,
    clients: Authority,
}

impl Authorities {
    fn new() -> Self {
        Self { own: Authority::new(), clients: Authority::new() }
    }

    /// TLS that asks for no certificate.
    fn tls(&self) -> TlsOptions {
        let Files { chain, key } = self.own.issue(&["gateway.test"]);
        TlsOptions::showing(chain, key)
    }

    /// TLS that asks for one.
    fn mutual(&self) -> TlsOptions {
        TlsOptions { client_authorities: Some(self.clients.file()), ..self.tls() }
    }

    /// A client that shows this, if anything.
    fn client(&self, version: &'static SupportedProtocolVersion, shows: Option<&Files>) -> Secure {
        Secure::new(&self.own.file(), version, shows)
    }
}

fn door_for_certificates() -> DoorOptions {
    let certificates = ["*.ci.example", "spiffe://example/ns/build/*"].map(|name| name.parse().unwrap()).to_vec();
    DoorOptions { certificates, ..DoorOptions::default() }
}

fn get(authorization: &str) -> Call {
    Client::docker_17().get(TAGGED).header("Authorization", authorization)
}

#[tokio::test]
async fn a_name_that_the_door_knows_comes_in_and_its_login_goes_to_the_upstream() {
    let (authorities, upstream) = (Authorities::new(), upstream().await);
    let gateway =
        Setup::default().tls_to_clients(&authorities.mutual()).door(&door_for_certificates()).before(&upstream).await;
    let login = basic("ann", "pw");
    for version in VERSIONS {
        for names in [&["seven.ci.example"][..], &["other.test", "spiffe://example/ns/build/x"]] {
            let client = authorities.client(version, Some(&authorities.clients.issue(names)));
            assert_eq!(client.reply(&gateway, &get(&login)).await.status, 200, "{version:?} {names:?}");
        }
        let asked = upstream.requests();
        assert!(!asked.is_empty());
        assert!(asked.iter().all(|request| request.header("authorization") == Some(login.as_str())));
        upstream.forget();
        let wrong = [
            Some(authorities.clients.issue(&["ci.example", "seven.ci.example.attacker.test"])),
            Some(authorities.clients.issue(&["spiffe://example/ns/other/x"])),
            // a common name is no name of the subject
            Some(authorities.clients.issue_called("seven.ci.example", &[])),
            Some(authorities.clients.issue_called("seven.ci.example", &["other.test"])),
            None,
        ];
        for shows in &wrong {
            let refused = authorities.client(version, shows.as_ref()).reply(&gateway, &get(&login)).await;
            assert_eq!((refused.status, refused.error().0.as_str()), (403, "DENIED"), "{version:?} {shows:?}");
            assert_eq!(refused.header("www-authenticate"), None);
        }
        // the gateway's own authority vouches for servers, not for clients
        for other in [&authorities.own, &Authority::new()] {
            let client = authorities.client(version, Some(&other.issue(&["seven.ci.example"])));
            assert!(client.ask(gateway.address(), &get(&login)).await.is_none(), "{version:?}");
        }
        assert!(upstream.requests().is_empty(), "{:?}", upstream.lines());
    }
}

#[tokio::test]
async fn a_session_that_is_taken_up_again_does_not_bring_its_certificate_along() {
    let (authorities, upstream) = (Authorities::new(), upstream().await);
    let setup = Setup::default().door(&door_for_certificates());
    let gateway = setup.tls_to_clients(&authorities.mutual()).before(&upstream).await;
    let unasked = Setup::default().tls_to_clients(&authorities.tls()).before(&upstream).await;
    let call = get(&basic("ann", "pw"));
    for version in VERSIONS {
        let client = authorities.client(version, Some(&authorities.clients.issue(&["seven.ci.example"])));
        for _ in 0..2 {
            let (kind, reply) = client.ask(gateway.address(), &call).await.unwrap();
            assert_eq!((kind, reply.status), (HandshakeKind::Full, 200), "{version:?}");
        }
        client.hide();
        let (kind, reply) = client.ask(gateway.address(), &call).await.unwrap();
        assert_eq!((kind, reply.status), (HandshakeKind::Full, 403), "{version:?}");
        // this client does take sessions up where it may
        let client = authorities.client(version, None);
        assert_eq!(client.ask(unasked.address(), &call).await.unwrap().0, HandshakeKind::Full);
        assert_eq!(client.ask(unasked.address(), &call).await.unwrap().0, HandshakeKind::Resumed, "{version:?}");
    }
}

#[tokio::test]
async fn a_certificate_and_a_login_are_two_ways_in() {
    let (authorities, upstream) = (Authorities::new(), upstream().await);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ALICE).unwrap();
    let door = DoorOptions { htpasswd: Some(file.path().to_owned()), ..door_for_certificates() };
    let gateway = Setup::default().tls_to_clients(&authorities.mutual()).door(&door).before(&upstream).await;
    let [right, wrong] = [["seven.ci.example"], ["other.test"]].map(|names| authorities.clients.issue(&names));
    let (login, guess) = (basic("alice", ALICES), basic("alice", "guess"));
    for (shows, authorization, status) in [
        (Some(&right), None, 200),
        (Some(&right), Some(&login), 200),
        (Some(&wrong), Some(&login), 200),
        (None, Some(&login), 200),
        (Some(&wrong), None, 401),
        (Some(&wrong), Some(&guess), 401),
        (None, None, 401),
    ] {
        let call = Client::docker_17().get(TAGGED);
        let call = authorization.into_iter().fold(call, |call, login| call.header("Authorization", login));
        let reply = authorities.client(&TLS13, shows).reply(&gateway, &call).await;
        assert_eq!(reply.status, status, "{shows:?} {authorization:?}");
        let challenge = (status == 401).then_some("Basic realm=\"schemabridge\"");
        assert_eq!(reply.header("www-authenticate"), challenge);
    }
    assert!(upstream.requests().iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test]
async fn what_clients_are_told_to_ask_next_is_https() {
    let (authorities, upstream) = (Authorities::new(), upstream().await);
    let setup = || Setup::default().tls_to_clients(&authorities.tls()).rewrite_challenges().push();
    let gateway = setup().before(&upstream).await;
    let behind_a_proxy = setup().trust_proxies("127.0.0.1/32").before(&upstream).await;
    let client = authorities.client(&TLS13, None);
    let upload = Call::new("POST", "/v2/app/blobs/uploads/").body("");
    let begun = client.reply(&gateway, &upload).await;
    let asked: Url = format!("https://{}/v2/app/blobs/uploads/", gateway.address()).parse().unwrap();
    let next = asked.join(begun.header("location").unwrap()).unwrap();
    assert_eq!((begun.status, next.origin()), (202, asked.origin()), "{next}");
    let challenge = format!("Bearer realm=\"{}/token\",service=\"registry\"", upstream.url());
    let refusal = Answer::error(401, "UNAUTHORIZED", "no").header("WWW-Authenticate", &challenge);
    upstream.when("GET", "/v2/").answer(refusal);
    let realm = |scheme: &str, gateway: &Gateway| format!("realm=\"{scheme}://{}/token\"", gateway.address());
    for (gateway, forwarded, scheme) in [
        (&gateway, None, "https"),
        (&gateway, Some("http"), "https"),
        (&behind_a_proxy, None, "https"),
        (&behind_a_proxy, Some("https"), "https"),
        (&behind_a_proxy, Some("http"), "http"),
    ] {
        let call = Client::docker_17().get("/v2/");
        let call = forwarded.into_iter().fold(call, |call, named| call.header("X-Forwarded-Proto", named));
        let refused = client.reply(gateway, &call).await;
        let challenge = refused.header("www-authenticate").unwrap_or_default();
        assert_eq!(refused.status, 401, "{forwarded:?}");
        assert!(challenge.contains(&realm(scheme, gateway)), "{forwarded:?}: {challenge}");
    }
}

#[tokio::test]
async fn what_is_no_tls_and_who_never_ends_a_handshake_are_cut_off() {
    let (authorities, upstream) = (Authorities::new(), upstream().await);
    let hurried = TlsOptions { handshake_timeout: Duration::from_millis(50), ..authorities.tls() };
    let setup = |tls: &TlsOptions| Setup::default().tls_to_clients(tls);
    let gateway = setup(&authorities.tls()).before(&upstream).await;
    for bytes in [&[0; 64][..], b"get", &[0x16, 0x03, 0x01, 0xff, 0xff, 0]] {
        let gateway = setup(&hurried).before(&upstream).await;
        let answer = raw(gateway.address(), bytes).await;
        assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
    }
    let waiting = setup(&hurried).before(&upstream).await;
    raw(waiting.address(), b"").await;
    raw(waiting.address(), &[0x16, 0x03, 0x01, 0x00]).await;
    assert!(upstream.requests().is_empty());
    let served = authorities.client(&TLS12, None).reply(&gateway, &Client::docker_17().get(TAGGED)).await;
    assert_eq!(served.status, 200);
}

#[tokio::test]
async fn a_stop_waits_for_answers_and_not_for_handshakes() {
    let (authorities, upstream) = (Authorities::new(), Upstream::start().await);
    let content = vec![7_u8; 2_000_000];
    let digest = upstream.contents().put_blob("app", content.clone().into());
    let patient = TlsOptions { handshake_timeout: Duration::from_secs(3600), ..authorities.tls() };
    let gateway = Setup::default().tls_to_clients(&patient).before(&upstream).await;
    let address = gateway.address();
    let blob = format!("/v2/app/blobs/{digest}");
    let gate = upstream.when("GET", &blob).hold_body(1_000_000);
    let mut silent = TcpStream::connect(address).await.unwrap();
    let secure = authorities.client(&TLS13, None).connect(address).await.unwrap();
    let mut reading = Client::docker_20_10().get(&blob).open_over(secure, address).await;
    reading.at_least(100_000).await;
    gate.reached(1).await;
    let stopping = tokio::spawn(gateway.stop());
    let closed = patiently("the end of the handshake", silent.read(&mut [0; 1])).await;
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    assert!(!stopping.is_finished());
    gate.open();
    patiently("the rest of the answer", reading.rest()).await;
    let reply = reading.reply(false);
    assert!(reply.is_whole && reply.body == content);
    stopping.await.unwrap();
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test]
async fn the_flags_make_a_gateway_that_goes_by_certificates() {
    let (authorities, upstream) = (Authorities::new(), upstream().await);
    let (own, right) = (authorities.own.issue(&["gateway.test"]), authorities.clients.issue(&["seven.ci.example"]));
    let ca = authorities.clients.file();
    let url = upstream.url();
    let flags = ["--upstream", &url, "--store", "memory:", "--log-level", "debug", "--auth", "passthrough"];
    let tls = ["--tls-cert", text(&own.chain), "--tls-key", text(&own.key), "--client-ca", text(&ca)];
    let names = ["--client-names", "*.ci.example", "--client-names", "spiffe://example/**"];
    let gateway = Process::serve(&[&flags[..], &tls, &names].concat(), &[]).await;
    for (shows, status) in [(Some(&right), 200), (None, 403)] {
        let call = get(&basic("ann", "pw"));
        let (_, reply) = authorities.client(&TLS13, shows).ask(gateway.address, &call).await.unwrap();
        assert_eq!(reply.status, status);
    }
    raw(gateway.address, b"GET /v2/ HTTP/1.1\r\nHost: gateway.test\r\n\r\n").await;
    gateway.logged("a connection ended before a request").await;
}

#[tokio::test]
async fn changed_names_in_the_file_need_no_restart() {
    let (authorities, upstream) = (Authorities::new(), upstream().await);
    let own = authorities.own.issue(&["gateway.test"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    let write = |name: &str| {
        let tls = [("tls_cert", &own.chain), ("tls_key", &own.key), ("client_ca", &authorities.clients.file())];
        let tls = tls.map(|(key, file)| format!("{key} = '{}'\n", file.display())).concat();
        let upstream = format!("[[upstream]]\nname = 'corp'\nurl = '{}'\n", upstream.url());
        std::fs::write(file.path(), format!("client_names = ['{name}']\n{tls}{upstream}")).unwrap();
    };
    write("seven.ci.example");
    let gateway = Process::serve(&["--config", text(file.path()), "--store", "memory:"], &[]).await;
    let client = authorities.client(&TLS13, Some(&authorities.clients.issue(&["seven.ci.example"])));
    let call = get(&basic("ann", "pw"));
    assert_eq!(client.ask(gateway.address, &call).await.unwrap().1.status, 200);
    write("eight.ci.example");
    gateway.logged("the configuration was read again and is in force").await;
    assert_eq!(client.ask(gateway.address, &call).await.unwrap().1.status, 403);
}

#[tokio::test]
async fn what_is_wrong_with_the_files_is_told_at_the_start_with_the_file() {
    let authority = Authority::new();
    let (own, other, ca) = (authority.issue(&["gateway.test"]), authority.issue(&["other.test"]), authority.file());
    let (chain, key, ca) = (text(&own.chain), text(&own.key), text(&ca));
    let missing = format!("{chain}.missing");
    let names = ["--client-names", "*.ci.example"];
    let cases: [(&[&str], &[&str]); 10] = [
        (&["--tls-cert", chain], &["--tls-cert", "without --tls-key"]),
        (&["--tls-key", key], &["--tls-key", "without --tls-cert"]),
        (&["--client-ca", ca, names[0], names[1]], &["--client-ca", "without --tls-cert"]),
        (&names, &["--client-names", "without --client-ca"]),
        (&["--tls-cert", chain, "--tls-key", key, "--client-ca", ca], &["--client-ca", "without --client-names"]),
        (&["--client-names", "a b"], &["--client-names", "a b", "*.ci.example"]),
        (&["--tls-cert", &missing, "--tls-key", key], &[&missing, "No such file"]),
        (&["--tls-cert", key, "--tls-key", key], &[key, "holds no certificate"]),
        (&["--tls-cert", chain, "--tls-key", chain], &[chain, "expected a private key in PEM"]),
        (&["--tls-cert", chain, "--tls-key", text(&other.key)], &[text(&other.key), "is not the private key", chain]),
    ];
    let own = ["--upstream", "http://127.0.0.1:1", "--store", "memory:"];
    for (arguments, expected) in cases {
        for command in [&["check-config"][..], &["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]] {
            let told = complaint(&[command, &own, arguments].concat(), &[]).await;
            assert!(expected.iter().all(|words| told.contains(words)), "{arguments:?}: {told}");
        }
    }
}

/// A gateway that holds credentials and can be reached from elsewhere has a door, or was told that it needs none. Nothing is
/// sent to it here.
mod beyond_this_machine {
    use super::*;

    const ANYWHERE: [&str; 2] = ["--listen", "0.0.0.0:0"];

    struct Held {
        folder: tempfile::TempDir,
    }

    impl Held {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("password"), "the gateway's own").unwrap();
            std::fs::write(folder.path().join("htpasswd"), ALICE).unwrap();
            Self { folder }
        }

        fn file(&self, name: &str) -> String {
            text(&self.folder.path().join(name)).to_owned()
        }

        fn flags(&self) -> Vec<String> {
            let upstream = ["--upstream", "http://127.0.0.1:1", "--store", "memory:"].map(str::to_owned);
            let held = ["--auth", "basic", "--username", "gateway", "--password-file"].map(str::to_owned);
            [&upstream[..], &held, &[self.file("password")]].concat()
        }
    }

    async fn refusal(flags: &[&str]) -> String {
        let listen = ["serve", "--admin-listen", "127.0.0.1:0"];
        complaint(&[&listen, flags].concat(), &[]).await
    }

    #[tokio::test]
    async fn held_credentials_without_a_door_do_not_start() {
        let held = Held::new();
        let flags = held.flags();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let told = refusal(&[&flags[..], &ANYWHERE].concat()).await;
        for words in ["holds credentials", "0.0.0.0:0", "file of passwords", "allow_anonymous", "127.0.0.1"] {
            assert!(told.contains(words), "without {words}: {told}");
        }
    }

    #[tokio::test]
    async fn held_credentials_start_with_a_door_or_the_operators_word() {
        let (held, authority) = (Held::new(), Authority::new());
        let (flags, htpasswd) = (held.flags(), held.file("htpasswd"));
        let (own, ca) = (authority.issue(&["gateway.test"]), authority.file());
        let tls = ["--tls-cert", text(&own.chain), "--tls-key", text(&own.key), "--client-ca", text(&ca)];
        let certificates = [&tls[..], &["--client-names", "**"]].concat();
        for safe in [&["--htpasswd", &htpasswd][..], &["--allow-anonymous"], &certificates] {
            let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
            let gateway = Process::serve(&[&flags[..], &ANYWHERE, safe].concat(), &[]).await;
            gateway.logged("0.0.0.0:").await;
        }
        // and where nobody else can connect, nothing is asked for
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        Process::serve(&flags, &[]).await;
    }

    #[tokio::test]
    async fn a_login_for_the_door_and_for_the_upstream_is_a_mistake() {
        let held = Held::new();
        let htpasswd = held.file("htpasswd");
        let flags = ["--upstream", "http://127.0.0.1:1", "--store", "memory:", "--auth", "passthrough"];
        let told = refusal(&[&flags[..], &["--listen", "127.0.0.1:0", "--htpasswd", &htpasswd]].concat()).await;
        assert!(told.contains("passes the client's own credentials through"), "{told}");
    }
}
