//! A real registry under TLS, whose authority nobody else knows, and which may ask who is there.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use schemabridge::{
    gateway::{Options, Service, service::ServiceOptions},
    server,
    upstream::{ClientCertificate, Tls, Verification},
};
use tempfile::TempDir;
use tokio::{net::TcpListener, runtime::Runtime};

use crate::{
    documents,
    http::{self, Answer, DOCKER_1_9_1},
    images::{self, Twin},
    programs,
    registries::{Clients, Registry},
};

/// The files of an authority, of a server that it vouches for, and of a client.
pub struct Certificates {
    pub authority: PathBuf,
    pub server: (PathBuf, PathBuf),
    pub client: (PathBuf, PathBuf),
    _directory: TempDir,
}

impl Certificates {
    pub fn for_host(name: &str) -> Self {
        let directory = programs::directory();
        let file = |name: &str, text: String| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // OpenSSL takes a certificate for self-signed if it is called what its authority is called.
        params.distinguished_name.push(DnType::CommonName, "an authority of one test");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let issue = |name: &str, host: &str| {
            let key = KeyPair::generate().unwrap();
            let names = vec![host.to_owned(), "127.0.0.1".to_owned()];
            let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
            (file(&format!("{name}.pem"), certificate.pem()), file(&format!("{name}.key"), key.serialize_pem()))
        };
        let (server, client) = (issue("server", name), issue("client", "gateway"));
        Self { authority: file("authority.pem", authority.pem()), server, client, _directory: directory }
    }
}

/// A gateway in this process. Ends with its runtime.
struct InProcess {
    address: SocketAddr,
    _runtime: Runtime,
}

impl InProcess {
    fn before(registry: &Registry, tls: Tls) -> Self {
        let runtime = Runtime::new().unwrap();
        let address = runtime.block_on(async {
            let mut options = Options::for_upstream(format!("https://{}", registry.address).parse().unwrap());
            options.upstream.tls = tls;
            let gateway = Service::start(ServiceOptions::alone(options)).unwrap();
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(server::serve(listener, Arc::clone(&gateway), std::future::pending()));
            address
        });
        Self { address, _runtime: runtime }
    }

    fn pull(&self) -> Answer {
        http::ask(self.address, "GET", "/v2/test/app/manifests/v1", &[("User-Agent", DOCKER_1_9_1)], b"").unwrap()
    }
}

fn stored(certificates: &Certificates, clients: Clients) -> Registry {
    let registry = Registry::docker_registry();
    registry.push(&images::runnable(), Twin::Oci, "test/app", "v1");
    registry.under_tls(certificates, clients)
}

#[test]
fn a_private_authority_is_trusted_where_it_is_named() {
    let certificates = Certificates::for_host("localhost");
    let registry = stored(&certificates, Clients::Anybody);
    let named = Tls { authorities: Some(certificates.authority.clone()), ..Tls::default() };
    let insecure = Tls { verification: Verification::Insecure, ..Tls::default() };
    for tls in [named, insecure] {
        documents::schema1_of(&InProcess::before(&registry, tls).pull(), registry.name);
    }
    let refused = InProcess::before(&registry, Tls::default()).pull();
    assert_eq!(refused.status, 502);
    assert!(refused.text().contains("authority that the gateway does not trust"), "{}", refused.text());
}

#[test]
fn a_registry_that_asks_for_a_client_certificate_gets_one() {
    let certificates = Certificates::for_host("localhost");
    let registry = stored(&certificates, Clients::Known);
    let named = Tls { authorities: Some(certificates.authority.clone()), ..Tls::default() };
    let (chain, key) = certificates.client.clone();
    let known = Tls { certificate: Some(ClientCertificate { chain, key }), ..named.clone() };
    documents::schema1_of(&InProcess::before(&registry, known).pull(), registry.name);
    let refused = InProcess::before(&registry, named).pull();
    assert_eq!(refused.status, 502);
    assert!(refused.text().contains("cannot be reached"), "{}", refused.text());
}
