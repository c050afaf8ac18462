//! What the operator sees on the admin listener, and who else does not.

use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use prometheus_client::registry::Registry;
use schemabridge::admin::Admin;
use schemabridge::admin::access::Access;
use schemabridge::gateway::Peer;
use serde_json::Value;

use crate::support::basic;
use crate::support::client::{Call, Client};
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::{Image, Kind};
use crate::support::process::Process;
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/app/manifests/latest";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const FOR_THE_OPERATOR: [&str; 7] = ["/", "/page.css", "/page.js", "/page.svg", "/api/clients", "/api/status", "/x"];
const FOR_ALL: [&str; 6] = ["/livez", "/readyz", "/startupz", "/healthz", "/health", "/metrics"];
const HERE: &str = "127.0.0.1";
const ELSEWHERE: &str = "192.0.2.7";

/// An admin listener, and what it stands for.
struct Page {
    admin: Admin,
    gateway: Gateway,
    upstream: Upstream,
}

/// One answer.
struct Seen {
    head: Response<()>,
    text: String,
}

impl Seen {
    fn status(&self) -> u16 {
        self.head.status().as_u16()
    }

    fn header(&self, name: &str) -> &str {
        self.head.headers().get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }
}

impl Page {
    async fn with(access: Access) -> Self {
        let upstream = Upstream::start().await;
        let image = Image::small("app");
        upstream.put_image("app", "latest", &image, &image.oci());
        let gateway = Gateway::before(&upstream).await;
        let admin = Admin::new(Registry::default(), Arc::clone(gateway.shared_service()), access);
        Self { admin, gateway, upstream }
    }

    async fn open() -> Self {
        Self::with(Access::FromThisMachine).await
    }

    async fn ask(&self, peer: Option<&str>, method: &str, path: &str, headers: &[(&str, &str)]) -> Seen {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "localhost:5001");
        }
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let peer = match peer {
            Some(peer) => Peer::Network((peer.parse::<IpAddr>().unwrap(), 40_000).into()),
            None => Peer::UnixSocket,
        };
        let answer = self.admin.answer(request.body(Full::<Bytes>::default()).unwrap(), peer).await;
        let (head, body) = answer.into_parts();
        let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Seen { head: Response::from_parts(head, ()), text }
    }

    async fn get(&self, path: &str) -> Seen {
        self.ask(Some(HERE), "GET", path, &[]).await
    }

    async fn clients(&self) -> Value {
        self.get("/api/clients").await.json()
    }
}

fn with_token_file(directory: &Path) -> Access {
    let file = directory.join("tokens");
    std::fs::write(&file, format!("# the operator's\n{TOKEN}\n")).unwrap();
    Access::with_token(&file).unwrap()
}

fn expected(path: &str) -> u16 {
    if path == "/x" { 404 } else { 200 }
}

#[tokio::test]
async fn without_a_token_only_this_machine_sees_what_names_repositories() {
    let page = Page::open().await;
    for path in FOR_THE_OPERATOR {
        for host in ["localhost", "127.0.0.1:5001", "[::1]:5001", "0.0.0.0:5001"] {
            for peer in [Some(HERE), Some("::1"), Some("::ffff:127.0.0.1"), None] {
                let seen = page.ask(peer, "GET", path, &[("host", host)]).await;
                assert_eq!(seen.status(), expected(path), "{path} of {host} from {peer:?}");
            }
        }
        for (peer, headers) in [
            (ELSEWHERE, vec![]),
            ("10.0.0.1", vec![("host", "localhost")]),
            (HERE, vec![("host", "rebound.example:5001")]),
            (HERE, vec![("host", "localhost.rebound.example")]),
            (HERE, vec![("host", "127.0.0.1@rebound.example")]),
            (HERE, vec![("host", "localhost"), ("host", "rebound.example")]),
            (HERE, vec![("host", "")]),
            (HERE, vec![("x-forwarded-for", ELSEWHERE)]),
            (HERE, vec![("forwarded", "for=192.0.2.7")]),
        ] {
            let seen = page.ask(Some(peer), "GET", path, &headers).await;
            assert_eq!(seen.status(), 403, "{path} from {peer} with {headers:?}");
            assert!(seen.text.contains("--admin-token-file"), "{}", seen.text);
        }
    }
    let refresh = page.ask(Some(ELSEWHERE), "POST", "/refresh?image=app", &[]).await;
    assert_eq!(refresh.status(), 403);
}

#[tokio::test]
async fn health_and_metrics_are_for_all() {
    let directory = tempfile::tempdir().unwrap();
    for page in [Page::open().await, Page::with(with_token_file(directory.path())).await] {
        for path in FOR_ALL {
            for (peer, host) in [(HERE, "localhost"), (ELSEWHERE, "gateway.example"), (HERE, "rebound.example")] {
                let seen = page.ask(Some(peer), "GET", path, &[("host", host)]).await;
                assert_eq!(seen.status(), 200, "{path} of {host} from {peer}");
                assert!(!seen.text.contains("app"), "{}", seen.text);
            }
        }
    }
}

#[tokio::test]
async fn with_a_token_file_the_token_is_wanted_from_everybody() {
    let directory = tempfile::tempdir().unwrap();
    let page = Page::with(with_token_file(directory.path())).await;
    let bearer = format!("Bearer {TOKEN}");
    let right = [bearer.clone(), bearer.replace("Bearer", "bearer"), basic("anybody", TOKEN), basic("", TOKEN)];
    for (peer, host) in [(Some(HERE), "localhost"), (Some(ELSEWHERE), "gateway.example"), (None, "localhost")] {
        for path in FOR_THE_OPERATOR {
            let seen = page.ask(peer, "GET", path, &[("host", host)]).await;
            assert_eq!(seen.status(), 401, "{path} from {peer:?}");
            assert!(seen.header("www-authenticate").starts_with("Basic realm=\"schemabridge admin\""));
            assert!(seen.text.contains("--admin-token-file") && !seen.text.contains(TOKEN), "{}", seen.text);
            for shown in &right {
                let seen = page.ask(peer, "GET", path, &[("host", host), ("authorization", shown)]).await;
                assert_eq!(seen.status(), expected(path), "{path} from {peer:?} with {shown}");
            }
        }
        let headers = [("host", host), ("authorization", bearer.as_str())];
        let refresh = page.ask(peer, "POST", "/refresh?image=app", &headers).await;
        assert_eq!((refresh.status(), refresh.text.as_str()), (200, "app: nothing was remembered\n"));
    }
}

/// Ten wrong ones, as at the door for clients.
#[tokio::test]
async fn a_token_cannot_be_guessed_for_long() {
    let directory = tempfile::tempdir().unwrap();
    let page = Page::with(with_token_file(directory.path())).await;
    let try_one = async |peer, token: &str| {
        let shown = format!("Bearer {token}");
        page.ask(Some(peer), "GET", "/api/status", &[("authorization", &shown)]).await
    };
    for guess in 0..10 {
        let guess = format!("{guess:032}");
        assert_eq!(try_one(ELSEWHERE, &guess).await.status(), 401);
    }
    let seen = try_one(ELSEWHERE, &TOKEN.replace('f', "e")).await;
    assert_eq!((seen.status(), seen.header("retry-after")), (429, "60"));
    assert_eq!(try_one(ELSEWHERE, TOKEN).await.status(), 200, "the right one is not guessed");
    assert_eq!(try_one("192.0.2.8", &TOKEN[1..]).await.status(), 401, "no other address pays for it");
}

#[tokio::test]
async fn every_answer_keeps_a_browser_from_being_turned_against_its_reader() {
    let page = Page::open().await;
    for path in FOR_THE_OPERATOR.iter().chain(&FOR_ALL) {
        for peer in [HERE, ELSEWHERE] {
            let seen = page.ask(Some(peer), "GET", path, &[]).await;
            let policy = seen.header("content-security-policy");
            let has = |directive: &str| policy.split(';').any(|one| one.trim() == directive);
            for directive in [
                "default-src 'none'",
                "script-src 'self'",
                "style-src 'self'",
                "connect-src 'self'",
                "frame-ancestors 'none'",
                "base-uri 'none'",
                "form-action 'none'",
            ] {
                assert!(has(directive), "{directive} is not in `{policy}`");
            }
            assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("data:"), "{policy}");
            assert_eq!(seen.header("x-content-type-options"), "nosniff");
            assert_eq!(seen.header("referrer-policy"), "no-referrer");
            assert_eq!(seen.header("x-frame-options"), "DENY");
            assert_eq!(seen.header("cache-control"), "no-store");
            assert_eq!(seen.header("cross-origin-resource-policy"), "same-origin");
            assert_eq!(seen.header("access-control-allow-origin"), "");
        }
    }
}

#[tokio::test]
async fn the_page_holds_no_script_and_asks_nobody_else() {
    let page = Page::open().await;
    let html = page.get("/").await;
    assert_eq!(html.header("content-type"), "text/html; charset=utf-8");
    for tag in html.text.split('<').filter(|tag| tag.starts_with("script")) {
        assert!(tag.starts_with("script src=\"/page.js\""), "<{tag}");
    }
    for forbidden in ["<style", " style=", " onclick", " onload", "javascript:"] {
        assert!(!html.text.contains(forbidden), "{forbidden}");
    }
    let script = page.get("/page.js").await;
    assert_eq!(script.header("content-type"), "text/javascript; charset=utf-8");
    for forbidden in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("] {
        assert!(!script.text.contains(forbidden), "{forbidden}");
    }
    for text in [html.text, script.text, page.get("/page.css").await.text] {
        assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("@import"));
    }
    for path in ["/", "/api/clients"] {
        assert_eq!(page.ask(Some(HERE), "POST", path, &[]).await.status(), 405, "{path}");
    }
}

fn rows<'a>(shown: &'a Value, key: &str) -> &'a [Value] {
    shown[key].as_array().unwrap()
}

fn row<'a>(shown: &'a Value, client: &str) -> &'a Value {
    let found: Vec<_> = rows(shown, "clients").iter().filter(|row| row["client"] == client).collect();
    assert_eq!(found.len(), 1, "{client} in {shown:#}");
    found[0]
}

#[tokio::test]
async fn it_says_who_needs_what_and_what_each_got() {
    let page = Page::open().await;
    let nobody = page.clients().await;
    assert!(rows(&nobody, "clients").is_empty() && rows(&nobody, "translations").is_empty());
    let (old, aging, new) = (Client::docker_1_9_1(), Client::docker_17(), Client::containerd_1_6());
    for (client, times) in [(&old, 3), (&aging, 2), (&new, 1)] {
        for _ in 0..times {
            assert_eq!(page.gateway.get(client, TAGGED).await.status, 200);
        }
    }
    let only_schema1 = "application/vnd.docker.distribution.manifest.v1+json";
    assert_eq!(page.gateway.get(&Client::new("legacy-ci/0.3", &[only_schema1]), TAGGED).await.status, 200);
    let shown = page.clients().await;
    let told = |client: &str, version: &str| {
        let mut found =
            rows(&shown, "clients").iter().filter(|row| row["client"] == client && row["version"] == version);
        let row = found.next().unwrap_or_else(|| panic!("no {client} {version} in {shown:#}"));
        assert!(found.next().is_none(), "{client} {version} has two rows in {shown:#}");
        assert_eq!((&row["repository"], &row["upstream"]), (&"app".into(), &"default".into()));
        let times = ["first_seen", "last_seen"].map(|key| row[key].as_str().unwrap());
        assert!(times.iter().all(|time| time.ends_with('Z') && chrono::DateTime::parse_from_rfc3339(time).is_ok()));
        (
            ["class", "needs", "stored", "served"].map(|key| row[key].as_str().unwrap()),
            row["requests"].as_u64().unwrap(),
        )
    };
    assert_eq!(told("Docker", "1.9.1"), (["docker<1.10", "schema1", "oci", "schema1"], 3));
    assert_eq!(told("Docker", "17.05.0").1, 2);
    assert_eq!(told("Docker", "17.05.0").0[1..], ["schema2", "oci", "schema2"]);
    assert_eq!(told("containerd", "1.6.20").0[1..], ["oci", "oci", "oci"]);
    assert_eq!(told("legacy-ci", "0.3"), (["unknown", "schema1", "oci", "schema1"], 1));
    let cells: Vec<_> = rows(&shown, "translations")
        .iter()
        .map(|row| {
            (row["stored"].as_str().unwrap(), row["served"].as_str().unwrap(), row["requests"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(cells, [("oci", "schema1", 4), ("oci", "schema2", 2), ("oci", "oci", 1)]);
}

/// Nobody can make schema 1 of zstd layers; a repository that is not there has no row.
#[tokio::test]
async fn a_refusal_is_a_row_with_its_reason() {
    let page = Page::open().await;
    assert_eq!(page.gateway.get(&Client::docker_1_9_1(), "/v2/app/manifests/none").await.status, 404);
    let zstd = Image::buildkit("zstd", "amd64", Kind::Zstd, 2);
    page.upstream.put_image("zstd", "latest", &zstd, &zstd.oci());
    assert_eq!(page.gateway.get(&Client::docker_1_9_1(), "/v2/zstd/manifests/latest").await.status, 406);
    let shown = page.clients().await;
    let refusals = rows(&shown, "refusals");
    let missing = refusals.iter().find(|row| row["status"] == 404).unwrap_or_else(|| panic!("{shown:#}"));
    assert_eq!(missing["code"], "MANIFEST_UNKNOWN");
    assert_eq!(missing["class"], "docker<1.10");
    assert_eq!(missing["path"], "/v2/app/manifests/none");
    let row = row(&shown, "Docker");
    assert_eq!((&row["repository"], &row["stored"], &row["served"]), (&"zstd".into(), &"oci".into(), &Value::Null));
    assert!(row["why"].as_str().unwrap().contains("zstd"), "{row:#}");
    assert!(rows(&shown, "translations").is_empty(), "nothing was served");
}

#[tokio::test]
async fn what_a_client_says_of_itself_is_text() {
    let page = Page::open().await;
    let script = "<script>alert(1)</script>";
    let client = Client::new(&format!("{script}/1.0\"><img src=x onerror=alert(2)>"), &["*/*"]);
    assert_eq!(page.gateway.get(&client, TAGGED).await.status, 200);
    assert_eq!(page.gateway.get(&client, "/v2/%3Cscript%3E/manifests/latest").await.status, 400);
    assert_eq!(page.gateway.get(&client, &format!("/v2/{}/manifests/latest", "x".repeat(5000))).await.status, 400);
    let answer = page.get("/api/clients").await;
    assert_eq!(answer.header("content-type"), "application/json");
    let shown = answer.json();
    assert_eq!(row(&shown, "<script>alert")["repository"], "app");
    let paths: Vec<_> = rows(&shown, "refusals").iter().map(|row| row["path"].as_str().unwrap()).collect();
    assert_eq!(paths.len(), 1, "refusals of one kind are one row: {paths:?}");
    assert_eq!(paths[0].len(), 300);
    assert!(!page.get("/").await.text.contains("alert"));
}

#[tokio::test]
async fn it_says_how_the_upstream_and_the_store_are() {
    let page = Page::open().await;
    let before = page.get("/api/status").await.json();
    assert_eq!(before["upstreams"][0]["last_answer"], Value::Null);
    page.gateway.get(&Client::docker_1_9_1(), TAGGED).await;
    let shown = page.get("/api/status").await.json();
    let upstream = &shown["upstreams"][0];
    assert_eq!(upstream["name"], "default");
    assert_eq!(upstream["breaker"], "closed");
    assert_eq!(upstream["credentials"], "the caller's own credentials");
    assert!(chrono::DateTime::parse_from_rfc3339(upstream["last_answer"].as_str().unwrap()).is_ok());
    assert_eq!(shown["store"]["location"], "memory:");
    assert_eq!((&shown["store"]["reads"], &shown["store"]["writes"]), (&true.into(), &true.into()));
    assert_eq!(shown["blob_cache"], Value::Null);
    assert_eq!(shown["work"], serde_json::json!([]));
}

async fn refresh(admin: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_schemabridge"));
    command.args(["refresh", "--admin-listen", admin]).args(arguments).arg("app").env_clear().stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn a_gateway_with_a_token_file_wants_the_token_and_the_command_shows_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let file = file.to_str().unwrap();
    let upstream = Upstream::start().await;
    let process =
        Process::serve(&["--upstream", &upstream.url(), "--store", "memory:", "--admin-token-file", file], &[]).await;
    assert_eq!(Client::curl().get("/").send(process.admin).await.status, 401);
    let shown = Client::curl().get("/").header("Authorization", &basic("", TOKEN));
    assert_eq!(shown.send(process.admin).await.status, 200);
    assert_eq!(Call::new("GET", "/readyz").send(process.admin).await.status, 200);
    let admin = process.admin.to_string();
    let (is_done, text) = refresh(&admin, &[]).await;
    assert!(!is_done && text.contains("--admin-token-file"), "{text}");
    let (is_done, text) = refresh(&admin, &["--admin-token-file", file]).await;
    assert!(is_done && text.contains("nothing was remembered"), "{text}");
    assert!(!process.log().contains(TOKEN));
}

#[tokio::test]
async fn a_token_that_can_be_guessed_is_refused_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "too-short").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_schemabridge"));
    command.args(["check-config", "--upstream", "http://127.0.0.1:1", "--store", "memory:", "--admin-token-file"]);
    let output = command.arg(&file).env_clear().output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        said.contains("--admin-token-file") && said.contains("32 characters") && !said.contains("too-short"),
        "{said}"
    );
}

#[tokio::test]
async fn a_catalog_ofupstreams_says_which_row_is_whose() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    let image = Image::small("app");
    for upstream in [&first, &second] {
        upstream.put_image("app", "latest", &image, &image.oci());
    }
    let gateway = Setup::default().beside("hub", &second, "hub.example", "hub.gateway.example").before(&first).await;
    for target in [TAGGED, "/v2/hub/app/manifests/latest"] {
        assert_eq!(gateway.get(&Client::docker_1_9_1(), target).await.status, 200);
    }
    let admin = Admin::new(Registry::default(), Arc::clone(gateway.shared_service()), Access::FromThisMachine);
    let page = Page { admin, gateway, upstream: first };
    let shown = page.clients().await;
    let mut whose: Vec<_> = rows(&shown, "clients").iter().map(|row| row["upstream"].as_str().unwrap()).collect();
    whose.sort_unstable();
    assert_eq!(whose, ["default", "hub"]);
}
