//! The commands: what they print, how they end, and the one line that they complain in.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::support::client::Client;
use crate::support::images::{self, Image, Kind};
use crate::support::upstream::Upstream;

/// The command with an empty environment but for these variables.
fn schemabridge(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_schemabridge"));
    command.args(arguments).env_clear().envs(environment.iter().copied()).stdin(Stdio::null());
    command
}

async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = schemabridge(arguments, environment);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// What a command that cannot do what is asked says: exit 1, nothing on standard output, one line on standard error.
pub async fn complaint(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = run(arguments, environment).await;
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    text
}

/// A gateway of its own process, ended when it is dropped.
struct Served {
    _process: Ended,
    address: SocketAddr,
    admin: SocketAddr,
    /// What it wrote before it listened.
    log: String,
}

impl Served {
    /// Starts `serve` on free ports and waits until it says where it listens.
    fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let own = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json"];
        let mut command = schemabridge(&[&own, arguments].concat(), environment);
        let mut process = Ended(command.stderr(Stdio::piped()).spawn().unwrap());
        let lines = BufReader::new(process.0.stderr.take().unwrap()).lines();
        let (mut address, mut admin, mut log) = (None, None, String::new());
        for line in lines {
            let line = line.unwrap();
            log.push_str(&line);
            log.push('\n');
            let said: serde_json::Value = serde_json::from_str(&line).unwrap();
            let named = said["address"].as_str().map(|address| address.parse().unwrap());
            match said["message"].as_str() {
                Some("listening") => address = named,
                Some("admin listening") => admin = named,
                _ => {}
            }
            if let (Some(address), Some(admin)) = (address, admin) {
                return Self { _process: process, address, admin, log };
            }
        }
        panic!("it ended before it listened: {log}");
    }
}

/// A process that ends with its owner.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn version_and_help_are_printed() {
    let version = run(&["version"], &[]).await;
    assert!(version.status.success());
    assert_eq!(String::from_utf8(version.stdout).unwrap(), format!("schemabridge {}\n", env!("CARGO_PKG_VERSION")));
    let help = run(&["serve", "--help"], &[]).await;
    assert!(help.status.success());
    let text = String::from_utf8(help.stdout).unwrap();
    for flag in text.split_whitespace().filter(|word| word.starts_with("--") && *word != "--help") {
        let flag = flag.split_once('[').map_or(flag, |(flag, _)| flag).trim_end_matches([',', ':', '.']);
        let twin = format!("SCHEMABRIDGE_{}", flag.trim_start_matches("--").replace('-', "_").to_uppercase());
        assert!(text.contains(&twin), "{flag} has no twin {twin}");
    }
}

#[tokio::test]
async fn what_cannot_be_used_is_one_line_with_the_flag_the_value_and_what_is_accepted() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().to_string();
    let file = tempfile::NamedTempFile::new().unwrap();
    let below_a_file = format!("file://{}/store", file.path().display());
    let url = "http://127.0.0.1:1";
    let cases: [(&[&str], &[&str]); 9] = [
        (&["--upstream", "registry"], &["--upstream", "registry", "https://"]),
        (&["--store", "memory:"], &["--upstream", "https://"]),
        (&["--upstream", url, "--store", "ftp://x"], &["--store", "ftp://x", "memory:", "file:///"]),
        (&["--upstream", url, "--store", &below_a_file], &["--store", &below_a_file, "file:///"]),
        (&["--upstream", url, "--store", "memory:", "--listen", &port], &["--listen", &port, "port"]),
        (&["--upstream", url, "--tag-ttl", "soon"], &["--tag-ttl", "soon", "60s"]),
        (&["--upstream", url, "--challenge", "maybe"], &["--challenge", "maybe", "pass", "rewrite"]),
        (
            &["--upstream", url, "--store", "memory:", "--signing-key", "/nowhere"],
            &["--signing-key", "/nowhere", "PEM"],
        ),
        (&["--upstream", url, "--store", "memory:", "--platform", "x"], &["--platform", "'x'", "linux/amd64"]),
    ];
    for (arguments, expected) in cases {
        let text = complaint(&[&["serve", "--admin-listen", "127.0.0.1:0"], arguments].concat(), &[]).await;
        for words in expected {
            assert!(text.contains(words), "{arguments:?} without {words}: {text}");
        }
    }
}

#[tokio::test]
async fn a_password_in_a_url_is_refused_and_not_repeated() {
    for url in ["http://user:s3cret@host", "ftp://user:s3cret@host", "http://u:p/s3cret@h", "http://u:s'3cret s3cret@h"]
    {
        let text = complaint(&["serve", "--upstream", url], &[]).await;
        assert!(text.contains("--upstream") && !text.contains("3cret"), "{text}");
    }
}

#[tokio::test]
async fn an_upstream_that_is_down_does_not_stop_the_start_and_the_admin_listener_is_ready() {
    let served = Served::start(&["--upstream", "http://127.0.0.1:1", "--store", "memory:"], &[]);
    let admin = served.admin.to_string();
    for path in ["/livez", "/readyz"] {
        let answer = Client::curl().get(path).send(served.admin).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok\n"));
    }
    assert!(run(&["healthcheck", "--admin-listen", &admin], &[]).await.status.success());
    assert!(run(&["healthcheck"], &[("SCHEMABRIDGE_ADMIN_LISTEN", &admin)]).await.status.success());
    let by_name = admin.replace("127.0.0.1", "localhost");
    assert!(run(&["healthcheck", "--admin-listen", &by_name], &[]).await.status.success());
    let answer = Client::curl().get("/v2/app/manifests/latest").send(served.address).await;
    assert_eq!(answer.status, 502);
    drop(served);
    assert!(complaint(&["healthcheck", "--admin-listen", &admin], &[]).await.contains(&admin));
}

#[tokio::test]
async fn flags_have_twins_in_the_environment_and_a_misspelt_one_is_named() {
    let upstream = Upstream::start().await;
    upstream.put("app", "latest", &Image::small("app").oci());
    let home = tempfile::tempdir().unwrap();
    let environment = [
        ("SCHEMABRIDGE_UPSTREAM", upstream.url()),
        ("SCHEMABRIDGE_PUSH", "yes".to_owned()),
        ("SCHEMABRIDGE_TAG_TLL", "60s".to_owned()),
        ("SCHEMABRIDGE_PORT_5000_TCP", "tcp://10.0.0.1:5000".to_owned()),
        ("SCHEMABRIDGE_SERVICE_HOST", "10.0.0.1".to_owned()),
        ("HOME", home.path().to_str().unwrap().to_owned()),
    ];
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let served = Served::start(&[], &environment);
    assert!(served.log.contains("SCHEMABRIDGE_TAG_TLL"), "{}", served.log);
    assert!(
        !served.log.contains("SCHEMABRIDGE_PORT") && !served.log.contains("SCHEMABRIDGE_SERVICE"),
        "{}",
        served.log
    );
    let answer = Client::curl().get("/v2/app/manifests/latest").send(served.address).await;
    assert_eq!(answer.status, 200);
    assert!(home.path().join(".local/state/schemabridge/v1").is_dir(), "the state directory is the default store");
}

fn written(folder: &Path, name: &str, bytes: &[u8]) -> String {
    let file = folder.join(name);
    std::fs::write(&file, bytes).unwrap();
    file.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn translate_prints_the_document_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let image = Image::golden("buildkit-healthcheck-shell");
    let manifest = written(folder.path(), "manifest", &image.oci().bytes);
    let config = written(folder.path(), "config", &image.config);
    let common = ["translate", "--manifest", &manifest, "--config-blob", &config];
    let schema2 = run(&[&common[..], &["--to", "schema2"]].concat(), &[]).await;
    assert_eq!(String::from_utf8(schema2.stdout).unwrap(), image.schema2().text());
    let schema1 = [&common[..], &["--to", "schema1", "--repository", "test/repo", "--tag", "tag-1"]].concat();
    let schema1 = run(&schema1, &[]).await;
    let expected = images::schema1_payload("buildkit-healthcheck-shell");
    assert_eq!(String::from_utf8_lossy(&images::payload(&schema1.stdout)), String::from_utf8_lossy(&expected));
    let same = run(&[&common[..], &["--to", "oci"]].concat(), &[]).await;
    assert_eq!(same.stdout, image.oci().bytes, "what is in the format already stays");
}

#[tokio::test]
async fn translate_says_in_a_line_why_it_cannot() {
    let folder = tempfile::tempdir().unwrap();
    let zstd = Image::buildkit("app", "amd64", Kind::Zstd, 1);
    let manifest = written(folder.path(), "manifest", &zstd.oci().bytes);
    let config = written(folder.path(), "config", &zstd.config);
    let text =
        complaint(&["translate", "--to", "schema1", "--manifest", &manifest, "--config-blob", &config], &[]).await;
    assert!(text.contains("zstd"), "{text}");
    let text = complaint(&["translate", "--to", "schema1", "--manifest", &manifest], &[]).await;
    assert!(text.contains("--config-blob"), "{text}");
    let text = complaint(&["translate", "--to", "schema2", "--manifest", "/nowhere"], &[]).await;
    assert!(text.contains("--manifest") && text.contains("/nowhere"), "{text}");
    let schema1 = written(folder.path(), "schema1", &images::schema1_signed("single-layer").bytes);
    let text = complaint(&["translate", "--to", "oci", "--manifest", &schema1], &[]).await;
    assert!(text.contains("no translation"), "{text}");
    let text = complaint(&["translate", "--to", "oci"], &[]).await;
    assert!(text.contains("--manifest"), "{text}");
}

#[tokio::test]
async fn explain_says_what_is_stored_and_what_each_client_would_get() {
    let upstream = Upstream::start().await;
    let image = Image::classic("app");
    upstream.put_image("team/app", "v1", &image, &image.oci());
    let output = run(&["explain", "--upstream", &upstream.url(), "--json", "team/app:v1"], &[]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((said["stored"].as_str(), said["digest"].as_str()), (Some("oci"), Some(image.oci().digest.as_str())));
    let verdict = |name: &str| {
        let clients = said["clients"].as_array().unwrap();
        clients
            .iter()
            .find(|verdict| verdict["client"] == name)
            .unwrap_or_else(|| panic!("no {name} in {said}"))
            .clone()
    };
    assert_eq!(verdict("Docker 1.9")["served"], "schema1");
    assert_eq!(verdict("Docker 17.03")["served"], "schema2");
    assert_eq!(verdict("Docker 17.03")["digest"], image.schema2().digest.as_str());
    assert_eq!(verdict("Docker 28")["digest"], image.oci().digest.as_str());
    assert!(verdict("Docker 28")["why"].as_str().is_some_and(|why| !why.is_empty()));
    let text = run(&["explain", "--upstream", &upstream.url(), "team/app:v1"], &[]).await;
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("stored: oci") && text.contains("Docker 1.9") && text.contains("as stored"), "{text}");
}

#[tokio::test]
async fn explain_shows_the_children_of_an_index() {
    let upstream = Upstream::start().await;
    let (one, other) = (Image::small("one"), Image::buildkit("other", "arm64", Kind::Gzip, 1));
    upstream.put_image("app", "one", &one, &one.oci());
    upstream.put_image("app", "other", &other, &other.oci());
    upstream.put("app", "both", &images::index(&[(&one.oci(), "linux/amd64"), (&other.oci(), "linux/arm64")]));
    let output = run(&["explain", "--upstream", &upstream.url(), "--json", "app:both"], &[]).await;
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let children: Vec<(&str, &str)> = said["children"]
        .as_array()
        .unwrap()
        .iter()
        .map(|child| (child["platform"].as_str().unwrap(), child["digest"].as_str().unwrap()))
        .collect();
    let (one, other) = (one.oci().digest, other.oci().digest);
    assert_eq!(children, [("linux/amd64", one.as_str()), ("linux/arm64", other.as_str())]);
}

#[tokio::test]
async fn explain_logs_in_with_dockers_own_credentials() {
    let upstream = Upstream::start().await;
    let image = Image::small("app");
    upstream.put_image("app", "v1", &image, &image.oci());
    upstream.contents().close(r#"Basic realm="registry""#);
    upstream.contents().admit("Basic dXNlcjpwYXNz", "app");
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["explain", "--upstream", &upstream.url(), "app:v1"];
    let environment = [("DOCKER_CONFIG", folder.path().to_str().unwrap())];
    assert!(complaint(&arguments, &environment).await.contains("401"));
    let config = format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpwYXNz"}}}}}}"#, upstream.address());
    written(folder.path(), "config.json", config.as_bytes());
    let output = run(&arguments, &environment).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The arguments of a command that prints credentials, and the URL of a proxy, may hold secrets.
#[tokio::test]
async fn what_is_in_force_is_shown_without_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    let upstream = "[[upstream]]\nname = \"hub\"\nurl = \"https://hub.example\"\n\
                    auth = { command = [\"/usr/bin/vault\", \"--token\", \"hunter2\"] }\n\
                    proxy = { https = \"http://gate:hunter2@proxy.example:3128\" }\n";
    std::fs::write(&file, upstream).unwrap();
    let output = run(&["check-config", "--store", "memory:", "--config", file.to_str().unwrap()], &[]).await;
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && shown.contains("/usr/bin/vault") && shown.contains("proxy.example"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}
