//! A corporate proxy between the gateway and the registry: squid, which asks for a password and alone knows the
//! registry's name.

use std::{fs::Permissions, net::SocketAddr, os::unix::fs::PermissionsExt, process::Command};

use tempfile::TempDir;

use crate::{
    documents,
    http::{self, DOCKER_1_9_1},
    images::{self, Twin},
    programs::{self, Program},
    registries::{Clients, Gateway, PASSWORD, PASSWORD_HASH, Registry, USER},
    upstream_tls::Certificates,
};

const NAME: &str = "registry.internal.example";

/// squid on loopback, for those who know the password.
struct Squid {
    address: SocketAddr,
    /// Ends before its directory goes.
    program: Program,
    directory: TempDir,
}

impl Squid {
    fn start() -> Self {
        let directory = programs::directory();
        let address = programs::free_address();
        let path = |name: &str| directory.path().join(name).display().to_string();
        // squid gives up root for a user of its own.
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
        std::fs::write(path("passwords"), format!("{USER}:{PASSWORD_HASH}\n")).unwrap();
        std::fs::write(path("hosts"), format!("127.0.0.1 {NAME}\n")).unwrap();
        let settings = format!(
            "http_port {address}\npid_filename none\ncache deny all\ncoredump_dir none\nhosts_file {}\n\
             access_log stdio:{}\ncache_log {}\nauth_param basic program {} {}\nauth_param basic children 1\n\
             acl known proxy_auth REQUIRED\nhttp_access allow known\nhttp_access deny all\nshutdown_lifetime 0 seconds\n",
            path("hosts"),
            path("access.log"),
            path("cache.log"),
            "/usr/lib/squid/basic_ncsa_auth",
            path("passwords"),
        );
        std::fs::write(path("squid.conf"), settings).unwrap();
        let mut command = Command::new(programs::debian("squid"));
        command.args(["-N", "-f", &path("squid.conf")]);
        let mut program = Program::start("squid", command, directory.path());
        program.wait_for_port(address);
        Self { address, program, directory }
    }

    /// The proxy's URL as the environment names it, with this password.
    fn url(&self, password: &str) -> String {
        format!("http://{USER}:{password}@{}", self.address)
    }

    /// Waits until squid's log, which is written after its answer, says this.
    fn wait_until_it_says(&mut self, words: &str) {
        let log = self.directory.path().join("access.log");
        let says = || std::fs::read_to_string(&log).is_ok_and(|text| text.contains(words));
        self.program.wait_until(&format!("log {words}"), says);
    }
}

fn pull(gateway: &Gateway) -> http::Answer {
    http::ask(gateway.address, "GET", "/v2/test/app/manifests/v1", &[("User-Agent", DOCKER_1_9_1)], b"").unwrap()
}

#[test]
fn a_registry_beyond_squid_is_reached_in_plain_and_under_tls() {
    let mut squid = Squid::start();
    let certificates = Certificates::for_host(NAME);
    for scheme in ["http", "https"] {
        let mut registry = Registry::docker_registry();
        registry.push(&images::runnable(), Twin::Oci, "test/app", "v1");
        if scheme == "https" {
            registry = registry.under_tls(&certificates, Clients::Anybody);
        }
        let port = registry.address.port();
        let proxy = squid.url(PASSWORD);
        let authority = certificates.authority.display().to_string();
        let environment = [("HTTPS_PROXY", proxy.as_str()), ("HTTP_PROXY", &proxy), ("SSL_CERT_FILE", &authority)];
        let gateway = Gateway::start_before(&format!("{scheme}://{NAME}:{port}"), &environment);
        let answer = pull(&gateway);
        documents::schema1_of(&answer, scheme);
        let layer = images::runnable().layers[0].digest.clone();
        let blob = http::ask(gateway.address, "GET", &format!("/v2/test/app/blobs/{layer}"), &[], b"").unwrap();
        assert_eq!((blob.status, images::digest(&blob.body)), (200, layer));
    }
    squid.wait_until_it_says(&format!("GET http://{NAME}:"));
    squid.wait_until_it_says(&format!("CONNECT {NAME}:"));
}

#[test]
fn who_does_not_know_squids_password_does_not_get_through_and_does_not_print_it() {
    let mut squid = Squid::start();
    let certificates = Certificates::for_host(NAME);
    let registry = Registry::docker_registry().under_tls(&certificates, Clients::Anybody);
    let proxy = squid.url("hunter2");
    let gateway =
        Gateway::start_before(&format!("https://{NAME}:{}", registry.address.port()), &[("HTTPS_PROXY", &proxy)]);
    let answer = pull(&gateway);
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert!(!answer.text().contains("hunter2"), "{}", answer.text());
    assert!(!gateway.log().contains("hunter2"), "{}", gateway.log());
    squid.wait_until_it_says("407");
}
