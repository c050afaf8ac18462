//! TLS to clients, as real programs speak it: what Go 1.4 offers, TLS 1.3, HTTP/2, and TLS where none is spoken.

use std::{
    io::Write as _,
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
};

use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256};

use crate::{
    documents,
    home::Home,
    http::{self, Answer, DOCKER_1_9_1},
    images::{self, Twin, digest},
    programs,
    registries::{Gateway, Registry},
    upstream_tls::Certificates,
};

/// No extended master secret, which Go has had since 1.21 only.
const SETTINGS: &str = "openssl_conf = start\n[start]\nssl_conf = tls\n[tls]\nsystem_default = all\n[all]\n\
                        Options = -ExtendedMasterSecret\n";

/// All that Go 1.4 offers that any server today would take: no name, no ALPN.
const GO_1_4: [&str; 8] = [
    "-tls1_2",
    "-noservername",
    "-curves",
    "P-256:P-384:P-521",
    "-sigalgs",
    "RSA+SHA256:RSA+SHA1:ECDSA+SHA256:ECDSA+SHA1",
    "-cipher",
    "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-SHA:AES128-SHA:@SECLEVEL=0",
];

/// A registry with an image, and a gateway before it that has a P-256 and an RSA certificate.
struct Stage {
    registry: Registry,
    gateway: Gateway,
    certificates: Certificates,
    _directory: tempfile::TempDir,
}

fn stage() -> Stage {
    let registry = Registry::docker_registry();
    registry.push(&images::runnable(), Twin::Oci, "test/app", "v1");
    let certificates = Certificates::for_host("localhost");
    let directory = programs::directory();
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let [rsa, rsa_key] = ["rsa.pem", "rsa.key"].map(|name| directory.path().join(name));
    std::fs::write(&rsa, certificate.pem()).unwrap();
    std::fs::write(&rsa_key, key.serialize_pem()).unwrap();
    let list = |files: [&PathBuf; 2]| format!("['{}', '{}']", files[0].display(), files[1].display());
    let (chain, key) = &certificates.server;
    let file = format!(
        "tls_cert = {}\ntls_key = {}\n[[upstream]]\nname = 'all'\nurl = 'http://{}'\n",
        list([chain, &rsa]),
        list([key, &rsa_key]),
        registry.address
    );
    Stage { gateway: Gateway::start_with_file(&file, &[]), registry, certificates, _directory: directory }
}

/// What `openssl s_client` is answered, and what it says of the connection.
fn ask(to: SocketAddr, offers: &[&str]) -> (Option<Answer>, String) {
    let directory = programs::directory();
    let settings = directory.path().join("openssl.cnf");
    std::fs::write(&settings, SETTINGS).unwrap();
    let mut command = Command::new(programs::debian("openssl"));
    command.env("OPENSSL_CONF", &settings);
    command.args(["s_client", "-brief", "-ign_eof", "-connect", &to.to_string()]).args(offers);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("openssl starts");
    let request = format!(
        "GET /v2/test/app/manifests/v1 HTTP/1.1\r\nHost: {to}\r\nUser-Agent: {DOCKER_1_9_1}\r\nConnection: close\r\n\r\n"
    );
    let mut input = child.stdin.take().unwrap();
    // One whose handshake failed reads nothing.
    let _ended = input.write_all(request.as_bytes());
    let output = child.wait_with_output().unwrap();
    drop(input);
    (http::parse(&output.stdout, false), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_go_1_4_offers_is_enough_for_a_schema_1_manifest() {
    let stage = stage();
    let (answer, said) = ask(stage.gateway.address, &GO_1_4);
    documents::schema1_of(&answer.unwrap_or_else(|| panic!("{said}")), stage.registry.name);
    assert!(said.contains("TLSv1.2") && said.contains("ECDHE-ECDSA-AES128-GCM-SHA256"), "{said}");
    let only_rsa = [&GO_1_4[..5], &["RSA+SHA256:RSA+SHA1"], &GO_1_4[6..]].concat();
    for offers in [&only_rsa[..], &["-tls1_2", "-cipher", "ECDHE-RSA-AES256-GCM-SHA384"]] {
        let (answer, said) = ask(stage.gateway.address, offers);
        documents::schema1_of(&answer.unwrap_or_else(|| panic!("{said}")), stage.registry.name);
        assert!(said.contains("ECDHE-RSA-AES"), "{said}");
    }
    let (answer, said) = ask(stage.gateway.address, &["-tls1_3", "-servername", "localhost"]);
    documents::schema1_of(&answer.unwrap_or_else(|| panic!("{said}")), stage.registry.name);
    assert!(said.contains("TLSv1.3"), "{said}");
    let (answer, said) = ask(stage.gateway.address, &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
    assert!(answer.is_none(), "{said}");
}

#[test]
fn curl_and_nghttp_fetch_a_manifest_and_a_blob_over_http2() {
    let stage = stage();
    let origin = format!("https://localhost:{}", stage.gateway.address.port());
    let curl = |target: &str, more: &[&str]| {
        let mut command = Command::new(programs::debian("curl"));
        command.args(["--silent", "--show-error", "--fail", "--http2", "--cacert"]).arg(&stage.certificates.authority);
        programs::run(command.args(more).arg(format!("{origin}{target}")))
    };
    let manifest = "/v2/test/app/manifests/v1";
    assert_eq!(curl(manifest, &["--output", "/dev/null", "--write-out", "%{http_version} %{http_code}"]), "2 200");
    let document: serde_json::Value = serde_json::from_str(&curl(manifest, &[])).unwrap();
    let config = document["config"]["digest"].as_str().unwrap();
    let blob = format!("/v2/test/app/blobs/{config}");
    assert_eq!(digest(curl(&blob, &[]).as_bytes()), config);
    let nghttp = programs::run(Command::new(programs::debian("nghttp")).arg(format!("{origin}{blob}")));
    assert_eq!(digest(nghttp.as_bytes()), config);
}

#[test]
fn skopeo_copies_an_image_through_tls() {
    let stage = stage();
    let certificates = programs::directory();
    std::fs::copy(&stage.certificates.authority, certificates.path().join("ca.crt")).unwrap();
    let reference = format!("localhost:{}/test/app:v1", stage.gateway.address.port());
    let folder = certificates.path().to_str().unwrap();
    let home = Home::new();
    let (mut copy, _) = home.skopeo_copy(&["--src-cert-dir", folder], &reference, "copied");
    programs::run(&mut copy);
}

#[test]
fn tls_to_a_plain_port_is_told_so() {
    let registry = Registry::docker_registry();
    let gateway = Gateway::start(&registry);
    let (answer, said) = ask(gateway.address, &[]);
    assert!(answer.is_none() && said.contains("wrong version number"), "{said}");
    let mut curl = Command::new(programs::debian("curl"));
    let output = programs::outcome(curl.arg(format!("https://{}/v2/", gateway.address)));
    assert!(!output.status.success());
    let plain = http::ask(gateway.address, "GET", "/v2/", &[], b"").unwrap();
    assert_eq!(plain.status, 200, "{}", plain.text());
}
