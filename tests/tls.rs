//! TLS to clients: which certificate each sees, that new ones need no restart, and a word to who comes to the wrong port.

use std::path::Path;

use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};
use rustls::SignatureScheme;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::version::{TLS12, TLS13};
use schemabridge::server::tls::{ClientAuth, PairFiles, TlsOptions};

use crate::commands::complaint;
use crate::support::client::{Client, raw};
use crate::support::gateway::{Gateway, Setup};
use crate::support::process::Process;
use crate::support::secure::{Authority, Files};
use crate::support::secure_client::Secure;
use crate::support::upstream::Upstream;

/// The start of what `openssl s_client` sends.
const CLIENT_HELLO: [u8; 11] = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];

#[tokio::test]
async fn tls_on_a_plain_port_is_answered_with_a_bad_request_in_words() {
    let gateway = Gateway::before(&Upstream::start().await).await;
    let whole = [&CLIENT_HELLO[..], &[7; 2000]].concat();
    for hello in [&CLIENT_HELLO[..], &[0x16], &whole] {
        let answer = String::from_utf8(raw(gateway.address(), hello).await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("speaks plain HTTP"), "{answer}");
    }
}

#[tokio::test]
async fn plain_http_on_a_tls_port_is_answered_with_a_bad_request_in_words() {
    let (authority, upstream) = (Authority::new(), Upstream::start().await);
    let Files { chain, key } = authority.issue(&["gateway.test"]);
    let tls = TlsOptions::showing(chain, key);
    let gateway = Setup::default().tls_to_clients(&tls).before(&upstream).await;
    let request = "GET /v2/ HTTP/1.1\r\nHost: gateway.test\r\n\r\n";
    for request in [request, "G", &format!("POST / HTTP/1.1\r\nX-Long: {}", "x".repeat(20_000))] {
        let answer = String::from_utf8(raw(gateway.address(), request.as_bytes()).await).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("speaks TLS") && answer.contains("https://"), "{answer}");
    }
    assert!(upstream.requests().is_empty());
}

/// What Go up to 1.4 can check.
const GO_1_4: [SignatureScheme; 4] = [
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA1,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_SHA1_Legacy,
];

fn pair(files: &Files) -> PairFiles {
    PairFiles { chain: files.chain.clone(), key: files.key.clone() }
}

fn certificate(files: &Files) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(&files.chain).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A gateway that shows these.
async fn showing(all: &[&Files]) -> Gateway {
    let first = TlsOptions::showing(all[0].chain.clone(), all[0].key.clone());
    let options = TlsOptions { pairs: all.iter().map(|files| pair(files)).collect(), ..first };
    Setup::default().tls_to_clients(&options).before(&Upstream::start().await).await
}

#[tokio::test]
async fn each_client_sees_a_certificate_that_it_can_read_for_the_name_it_asks_for() {
    let authority = Authority::new();
    let p384 = authority.issue_with(&PKCS_ECDSA_P384_SHA384, &["gateway.test"]);
    let rsa = authority.issue_with(&PKCS_RSA_SHA256, &["gateway.test"]);
    let p256 = authority.issue_with(&PKCS_ECDSA_P256_SHA256, &["gateway.test"]);
    let other = authority.issue_with(&PKCS_RSA_SHA256, &["other.test", "*.other.test"]);
    let exact = authority.issue_with(&PKCS_RSA_SHA256, &["exact.other.test"]);
    let gateway = showing(&[&p384, &rsa, &p256, &other, &exact]).await;
    let client = |version| Secure::new(&authority.file(), version, None);
    let only_rsa = [SignatureScheme::RSA_PKCS1_SHA256];
    let asking = |name: &str| client(&TLS13).asking_for(name, name);
    let cases = [
        ("P-256 is preferred", client(&TLS13), &p256),
        ("P-256 is preferred, TLS 1.2", client(&TLS12), &p256),
        ("Go 1.4", client(&TLS12).checking(&GO_1_4), &p256),
        ("RSA alone", client(&TLS12).checking(&only_rsa), &rsa),
        ("RSA alone, TLS 1.3", client(&TLS13).checking(&[SignatureScheme::RSA_PSS_SHA256]), &rsa),
        ("P-384 alone", client(&TLS13).checking(&[SignatureScheme::ECDSA_NISTP384_SHA384]), &p384),
        ("another name", asking("other.test"), &other),
        ("in another spelling", client(&TLS13).asking_for("OTHER.Test", "other.test"), &other),
        ("a wildcard", asking("a.other.test"), &other),
        ("its own name before a wildcard", asking("exact.other.test"), &exact),
        ("the first for a name that nobody has", client(&TLS13).asking_for("a.b.other.test", "gateway.test"), &p384),
        ("the first for no name", client(&TLS13).asking_for_no_name(), &p384),
        ("the first for an address", client(&TLS13).asking_for("127.0.0.1", "gateway.test"), &p384),
        ("the first that can be read", client(&TLS12).checking(&GO_1_4).asking_for_no_name(), &rsa),
        (
            "one of another name rather than none",
            client(&TLS12).checking(&only_rsa).asking_for("nobody.test", "gateway.test"),
            &rsa,
        ),
    ];
    for (what, client, expected) in cases {
        assert_eq!(client.shown(gateway.address()).await, certificate(expected), "{what}");
    }
}

#[tokio::test]
async fn go_1_4_reads_no_p384_and_no_ed25519() {
    let authority = Authority::new();
    for kind in [&PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
        let gateway = showing(&[&authority.issue_with(kind, &["gateway.test"])]).await;
        let old = Secure::new(&authority.file(), &TLS12, None).checking(&GO_1_4);
        assert!(old.connect(gateway.address()).await.is_err(), "{kind:?}");
        assert!(Secure::new(&authority.file(), &TLS12, None).connect(gateway.address()).await.is_ok(), "{kind:?}");
    }
}

#[tokio::test]
async fn a_client_certificate_may_be_required() {
    let (authority, clients, upstream) = (Authority::new(), Authority::new(), Upstream::start().await);
    let Files { chain, key } = authority.issue(&["gateway.test"]);
    let asking = TlsOptions { client_authorities: Some(clients.file()), ..TlsOptions::showing(chain, key) };
    let shows = clients.issue(&["seven.ci.example"]);
    let call = Client::docker_17().get("/v2/");
    for (client_auth, without) in [(ClientAuth::Request, true), (ClientAuth::Require, false)] {
        let options = TlsOptions { client_auth, ..asking.clone() };
        let gateway = Setup::default().tls_to_clients(&options).before(&upstream).await;
        for version in [&TLS12, &TLS13] {
            let client = |shows| Secure::new(&authority.file(), version, shows);
            let known = client(Some(&shows)).ask(gateway.address(), &call).await;
            assert_eq!(known.unwrap().1.status, 200, "{client_auth:?} {version:?}");
            let unknown = client(None).ask(gateway.address(), &call).await;
            assert_eq!(unknown.is_some(), without, "{client_auth:?} {version:?}");
        }
    }
}

/// The flags of a gateway that needs no upstream.
const ALONE: [&str; 4] = ["--upstream", "http://127.0.0.1:1", "--store", "memory:"];

#[tokio::test]
async fn new_certificates_are_in_force_without_a_restart_and_broken_ones_never() {
    // the last days of 4096, 4097 and 4098, as `date -u -d 4096-12-31 +%s` has them
    const ENDS: [u64; 3] = [67_121_654_400, 67_153_190_400, 67_184_726_400];
    let (authority, upstream) = (Authority::new(), Upstream::start().await);
    let content = vec![7_u8; 2_000_000];
    let blob = format!("/v2/app/blobs/{}", upstream.contents().put_blob("app", content.clone().into()));
    let [first, second, third] =
        [4096, 4097, 4098].map(|last_year| authority.issue_until(last_year, &["gateway.test"]));
    // as Kubernetes does it: a link to a folder, which is swapped as a whole
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("now");
    let show = |name: &str, chain: &Path, key: &Path| {
        let [version, fresh] = [name, "fresh"].map(|name| folder.path().join(name));
        std::fs::create_dir(&version).unwrap();
        std::fs::copy(chain, version.join("tls.crt")).unwrap();
        std::fs::copy(key, version.join("tls.key")).unwrap();
        std::os::unix::fs::symlink(&version, &fresh).unwrap();
        std::fs::rename(&fresh, &link).unwrap();
    };
    show("1", &first.chain, &first.key);
    let (chain, key) = (link.join("tls.crt"), link.join("tls.key"));
    let (url, tls) = (upstream.url(), ["--tls-cert", text(&chain), "--tls-key", text(&key)]);
    let gateway = Process::serve(&[&["--upstream", &url, "--store", "memory:"][..], &tls].concat(), &[]).await;
    let client = Secure::new(&authority.file(), &TLS13, None);
    let expiry = format!(
        "schemabridge_tls_cert_not_after_timestamp_seconds{{listener=\"clients\",certificate=\"{}\"}}",
        chain.display()
    );
    assert_eq!(client.shown(gateway.address).await, certificate(&first));
    assert_eq!(gateway.metric(&expiry).await, ENDS[0]);

    let gate = upstream.when("GET", &blob).hold_body(1_000_000);
    let stream = client.connect(gateway.address).await.unwrap();
    let mut reading = Client::docker_20_10().get(&blob).open_over(stream, gateway.address).await;
    reading.at_least(100_000).await;
    gate.reached(1).await;

    show("2", &second.chain, &second.key);
    gateway.logged("the certificates were read again and are in force").await;
    assert_eq!(client.shown(gateway.address).await, certificate(&second));
    assert_eq!(gateway.metric(&expiry).await, ENDS[1]);

    show("3", &third.chain, &second.key);
    gateway.logged("the certificates cannot be used; those before stay in force").await;
    assert!(gateway.log().contains("is not the private key of the certificate in"), "{}", gateway.log());
    assert_eq!(client.shown(gateway.address).await, certificate(&second));
    assert_eq!(gateway.metric(&expiry).await, ENDS[1]);
    assert_eq!(gateway.metric("schemabridge_config_reloads_total{result=\"failed\"}").await, 1);

    show("4", &third.chain, &third.key);
    gateway.logged_times("the certificates were read again and are in force", 2).await;
    assert_eq!(client.shown(gateway.address).await, certificate(&third));
    assert_eq!(gateway.metric("schemabridge_config_reloads_total{result=\"ok\"}").await, 2);

    gate.open();
    reading.rest().await;
    let reply = reading.reply(false);
    assert!(reply.is_whole && reply.body == content);
}

#[tokio::test]
async fn other_authorities_of_clients_are_in_force_without_a_restart() {
    let (authority, before, after) = (Authority::new(), Authority::new(), Authority::new());
    let Files { chain, key } = authority.issue(&["gateway.test"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::copy(before.file(), file.path()).unwrap();
    let tls = ["--tls-cert", text(&chain), "--tls-key", text(&key), "--client-ca", text(file.path())];
    let names = ["--client-names", "*.ci.example", "--client-auth", "require"];
    let gateway = Process::serve(&[&ALONE[..], &tls, &names].concat(), &[]).await;
    let call = Client::docker_17().get("/elsewhere");
    let is_let_in = async |of: &Authority| {
        let shows = of.issue(&["seven.ci.example"]);
        Secure::new(&authority.file(), &TLS13, Some(&shows)).ask(gateway.address, &call).await.is_some()
    };
    assert!(is_let_in(&before).await && !is_let_in(&after).await);
    std::fs::copy(after.file(), file.path()).unwrap();
    gateway.hang_up();
    gateway.logged("the certificates were read again and are in force").await;
    assert!(!is_let_in(&before).await && is_let_in(&after).await);
}

#[tokio::test]
async fn what_clients_may_not_take_is_warned_of_at_the_start() {
    const OLD: &str = "Docker before 1.10 cannot connect";
    let authority = Authority::new();
    let expired = authority.issue_until(2020, &["gateway.test"]);
    let p384 = authority.issue_with(&PKCS_ECDSA_P384_SHA384, &["gateway.test"]);
    let rsa = authority.issue_with(&PKCS_RSA_SHA256, &["gateway.test"]);
    let nameless = authority.issue(&[]);
    let cases: [(&[&Files], &[&str], &[&str]); 5] = [
        (&[&rsa], &[], &["certificate that clients see"]),
        (&[&expired], &["has expired at 2020-12-31"], &[OLD]),
        (&[&p384], &[OLD], &["expire"]),
        (&[&p384, &rsa], &[], &[OLD]),
        (&[&nameless], &["has no DNS name"], &[OLD]),
    ];
    for (shown, warned, unsaid) in cases {
        let pairs = shown.iter().flat_map(|files| ["--tls-cert", text(&files.chain), "--tls-key", text(&files.key)]);
        let flags: Vec<&str> = ALONE.into_iter().chain(pairs).collect();
        let log = Process::serve(&flags, &[]).await.log();
        assert!(warned.iter().all(|words| log.contains(words)), "{log}");
        assert!(!unsaid.iter().any(|words| log.contains(words)), "{log}");
    }
}

#[tokio::test]
async fn what_flags_of_tls_lack_is_told() {
    let authority = Authority::new();
    let (own, other) = (authority.issue(&["gateway.test"]), authority.issue(&["other.test"]));
    let both = format!("{},{}", text(&own.chain), text(&other.chain));
    let cases: [(&[&str], &[&str]); 4] = [
        (&["--tls-cert", &both, "--tls-key", text(&own.key)], &["--tls-cert is there 2 times and --tls-key 1 times"]),
        (
            &["--tls-cert", &both, "--tls-key", text(&other.key), "--tls-key", text(&own.key)],
            &["is not the private key", text(&own.chain)],
        ),
        (&["--tls-cert", text(&own.chain), "--tls-key", text(&own.key), "--client-auth", "require"], &["--client-ca"]),
        (&["--client-auth", "none"], &["--client-auth", "request", "require"]),
    ];
    for (arguments, expected) in cases {
        let told = complaint(&[&["check-config"][..], &ALONE, arguments].concat(), &[]).await;
        assert!(expected.iter().all(|words| told.contains(words)), "{arguments:?}: {told}");
    }
}
