//! Clients that are not to be had here, by the headers that they send.

use std::net::SocketAddr;

use crate::http::{self, Answer, DOCKER_1_9_1};

/// The headers by which a client is known, and what it must get.
#[derive(Clone, Copy)]
pub struct Guise {
    pub user_agent: &'static str,
    pub accept: Option<&'static str>,
    /// What the gateway must serve to it, in the word of its log.
    pub served: &'static str,
}

pub const READS_SCHEMA_1: Guise = Guise { user_agent: DOCKER_1_9_1, accept: None, served: "schema1" };

pub const READS_SCHEMA_2: Guise = Guise {
    user_agent: "docker/17.05.0-ce go/go1.7.5 git-commit/89658be kernel/4.9.0 os/linux arch/amd64",
    accept: Some(
        "application/vnd.docker.distribution.manifest.v1+prettyjws, application/json, \
         application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json",
    ),
    served: "schema2",
};

pub const READS_OCI: Guise = Guise {
    user_agent: "a-client-of-our-own/1.0",
    accept: Some("application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"),
    served: "oci",
};

impl Guise {
    /// A GET in this guise.
    pub fn ask(self, to: SocketAddr, target: &str) -> Answer {
        let mut headers = vec![("User-Agent", self.user_agent)];
        headers.extend(self.accept.map(|types| ("Accept", types)));
        http::ask(to, "GET", target, &headers, b"")
            .unwrap_or_else(|fault| panic!("GET {target} as {}: {fault}", self.user_agent))
    }
}
