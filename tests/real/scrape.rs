//! What Prometheus's own tool says of the metrics.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::{
    http,
    images::{self, Twin},
    programs,
    registries::{Gateway, Registry},
};

/// Its parser reads the whole text, and its rules for names and texts find nothing to say.
#[test]
fn promtool_has_nothing_to_say() {
    let registry = Registry::docker_registry();
    registry.push(&images::runnable(), Twin::Oci, "test/scraped", "v1");
    let gateway = Gateway::start(&registry);
    http::ask_as_docker_1_9(gateway.address, "/v2/test/scraped/manifests/v1");
    http::ask_as_docker_1_9(gateway.address, "/v2/test/scraped/manifests/nowhere");
    let scraped = http::ask(gateway.admin, "GET", "/metrics", &[], b"").unwrap();
    assert!(http::find(&scraped.body, b"\nschemabridge_http_requests_total{").is_some(), "nothing was counted");
    let mut command = Command::new(programs::debian("promtool"));
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = command.spawn().unwrap();
    promtool.stdin.take().unwrap().write_all(&scraped.body).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    assert!(said.status.success() && words.trim().is_empty(), "{words}");
}
