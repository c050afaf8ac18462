//! Sockets that the real `systemd-socket-activate` opens, and the real curl at sockets in the file system.

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use crate::{
    images::{self, Twin},
    programs::{self, Program},
    registries::Registry,
};

const SCHEMA_2: &str = "application/vnd.docker.distribution.manifest.v2+json";

fn curl(socket: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(programs::debian("curl"));
    command.args(["--silent", "--show-error", "--fail", "--max-time", "60", "--unix-socket"]).arg(socket);
    programs::outcome(command.args(arguments))
}

#[test]
fn systemd_opens_a_socket_for_clients_and_one_for_the_operator() {
    let registry = Registry::docker_registry();
    registry.push(&images::runnable(), Twin::Oci, "test/app", "v1");
    let directory = programs::directory();
    let [clients, admin] = ["clients.sock", "admin.sock"].map(|name| directory.path().join(name));
    let mut command = Command::new(programs::debian("systemd-socket-activate"));
    for socket in [&clients, &admin] {
        command.arg("--listen").arg(socket);
    }
    command.args(["--fdname=clients:admin", env!("CARGO_BIN_EXE_schemabridge"), "serve", "--store", "memory:"]);
    command.args(["--log-format", "json", "--upstream", &format!("http://{}", registry.address)]);
    let mut activated = Program::start("systemd-socket-activate", command, directory.path());
    activated.wait_until("its sockets", || clients.exists() && admin.exists());

    // The first connection starts the gateway, which finds it waiting.
    let ready = curl(&admin, &["http://admin.test/readyz"]);
    assert_eq!(String::from_utf8_lossy(&ready.stdout), "ok\n", "{}", activated.log());
    let accept = format!("Accept: {SCHEMA_2}");
    let pulled = curl(&clients, &["--header", &accept, "http://gateway.test/v2/test/app/manifests/v1"]);
    let manifest: Value = serde_json::from_slice(&pulled.stdout).unwrap();
    assert_eq!(manifest["mediaType"], SCHEMA_2);
    let mut healthcheck = Command::new(env!("CARGO_BIN_EXE_schemabridge"));
    healthcheck.args(["healthcheck", "--admin-listen", &format!("unix:{}", admin.display())]);
    assert!(programs::outcome(&mut healthcheck).status.success());
}
