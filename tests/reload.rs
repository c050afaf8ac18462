//! The configuration read again while requests are under way: on SIGHUP, and when the file changes.

use std::path::PathBuf;

use clap::{Args as _, FromArgMatches as _};
use schemabridge::config::ServeArguments;
use schemabridge::config::file::File;

use crate::support::basic;
use crate::support::client::Client;
use crate::support::images::Image;
use crate::support::process::Process;
use crate::support::secure::{Asks, Authority, Door};
use crate::support::upstream::Upstream;

const IN_FORCE: &str = "the configuration was read again";
const FAILED: &str = "the configuration cannot be used";
const OK_COUNTED: &str = r#"schemabridge_config_reloads_total{result="ok"}"#;
const FAILED_COUNTED: &str = r#"schemabridge_config_reloads_total{result="failed"}"#;

/// A gateway of its own process and the file that it reads.
struct Stage {
    folder: tempfile::TempDir,
    process: Process,
}

fn table(name: &str, url: &str, rest: &str) -> String {
    format!("[[upstream]]\nname = {name:?}\nurl = {url:?}\nprefix = {name:?}\n{rest}\n")
}

impl Stage {
    async fn with(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        std::fs::write(&file, text).unwrap();
        let arguments = ["--store", "memory:", "--config", file.to_str().unwrap()];
        Self { process: Process::serve(&arguments, &[]).await, folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("config.toml")
    }

    /// Writes the file and says so; waits until this was logged so often in all.
    async fn reads(&self, text: &str, outcome: &str, times: usize) {
        std::fs::write(self.file(), text).unwrap();
        self.process.hang_up();
        self.process.logged_times(outcome, times).await;
    }

    async fn status(&self, target: &str) -> u16 {
        self.process.get(&Client::docker_17(), target).await.status
    }
}

async fn upstream() -> (Upstream, Image) {
    let (upstream, image) = (Upstream::start().await, Image::classic("app"));
    upstream.put_image("app", "latest", &image, &image.oci());
    (upstream, image)
}

#[tokio::test]
async fn an_upstream_comes_and_goes_while_a_blob_of_it_streams_on() {
    let ((first, image), (second, _)) = (upstream().await, upstream().await);
    let hub = table("hub", &first.url(), "");
    let corp = table("corp", &second.url(), "");
    let stage = Stage::with(&hub).await;
    assert_eq!(stage.status("/v2/corp/app/manifests/latest").await, 404);
    stage.reads(&format!("{hub}{corp}"), IN_FORCE, 1).await;
    assert_eq!(stage.status("/v2/corp/app/manifests/latest").await, 200);
    let gate = second.when("GET", "/v2/app/blobs/*").hold_body(1);
    let blob = Client::docker_17().get(&format!("/v2/corp/app/blobs/{}", image.config_digest()));
    let mut open = blob.open(stage.process.address).await;
    gate.reached(1).await;
    second.forget();
    stage.reads(&format!("default_upstream = \"none\"\n{hub}"), IN_FORCE, 2).await;
    let gone = stage.process.get(&Client::curl(), "/v2/corp/app/tags/list").await;
    assert_eq!((gone.status, gone.error().0.as_str()), (404, "NAME_UNKNOWN"));
    assert_eq!(second.lines(), Vec::<String>::new());
    gate.open();
    open.rest().await;
    let reply = open.reply(false);
    assert_eq!((reply.status, &reply.body[..]), (200, &image.config[..]));
    assert_eq!(stage.process.metric(OK_COUNTED).await, 2);
}

#[tokio::test]
async fn a_file_that_cannot_be_used_changes_nothing_and_the_log_says_why_once() {
    let (first, _) = upstream().await;
    let hub = table("hub", &first.url(), "");
    let stage = Stage::with(&hub).await;
    let bad = [
        ("tag_tll = \"1m\"\n", "did you mean `tag_ttl`"),
        ("tag_ttl = \"soon\"\n", "for `tag_ttl`"),
        ("", "--upstream is missing"),
    ];
    for (place, (text, why)) in bad.into_iter().enumerate() {
        stage.reads(text, FAILED, place + 1).await;
        assert!(stage.process.log().lines().any(|line| line.contains(FAILED) && line.contains(why)), "{why}");
        assert_eq!(stage.status("/v2/hub/app/manifests/latest").await, 200);
    }
    assert_eq!(stage.process.lines_logged(FAILED).await, bad.len());
    let counted = (stage.process.metric(FAILED_COUNTED).await, stage.process.metric(OK_COUNTED).await);
    assert_eq!(counted, (3, 0));
    stage.reads(&hub, IN_FORCE, 1).await;
    assert_eq!(stage.process.metric(OK_COUNTED).await, 1);
}

#[tokio::test]
async fn an_upstream_that_did_not_change_keeps_what_it_remembers() {
    let ((first, _), (second, _)) = (upstream().await, upstream().await);
    let remembering = "auth.mode = \"anonymous\"\ntags.ttl = \"1h\"\n";
    let (hub, corp) = (table("hub", &first.url(), remembering), table("corp", &second.url(), remembering));
    let stage = Stage::with(&format!("{hub}{corp}")).await;
    let targets = ["/v2/hub/app/manifests/latest", "/v2/corp/app/manifests/latest"];
    for target in targets {
        assert_eq!(stage.status(target).await, 200);
    }
    first.forget();
    second.forget();
    stage.reads(&format!("{hub}{corp}push = true\n"), IN_FORCE, 1).await;
    for target in targets {
        assert_eq!(stage.status(target).await, 200);
    }
    let heads = |upstream: &Upstream| upstream.requests_to("HEAD", "/v2/app/manifests/latest").len();
    assert_eq!((heads(&first), heads(&second)), (0, 1));
}

#[tokio::test]
async fn what_holds_until_the_end_is_a_warning() {
    let (first, _) = upstream().await;
    let hub = table("hub", &first.url(), "");
    let stage = Stage::with(&hub).await;
    stage.reads(&format!("cache_size = \"1MiB\"\n{hub}"), "takes effect with the next start", 1).await;
    let cache = "[blob_cache]\ndirectory = \"/nowhere\"\nmax_size = \"1GiB\"\n";
    stage.reads(&format!("{hub}{cache}"), "takes effect with the next start", 2).await;
    stage.reads(&hub, IN_FORCE, 3).await;
    assert_eq!(stage.process.lines_logged("addresses, TLS, store").await, 2);
}

/// The file names another address, but clients go on to come in where they did.
#[test]
fn credentials_are_not_held_where_everybody_may_come_in_already() {
    let command = ServeArguments::augment_args(clap::Command::new("serve"));
    let held = table("hub", "https://hub.example", "auth = { username = \"u\", password_file = \"/p\" }");
    let file = File::parse(&held, &command).unwrap();
    let matches = command.try_get_matches_from(["serve", "--listen", "127.0.0.1:5000"]).unwrap();
    let arguments = ServeArguments::from_arg_matches(&matches).unwrap();
    assert!(arguments.site(&file, &["127.0.0.1:5000".parse().unwrap()]).is_ok());
    let refused = arguments.site(&file, &["0.0.0.0:5000".parse().unwrap()]).unwrap_err().to_string();
    assert!(refused.contains("allow_anonymous"), "{refused}");
}

#[tokio::test]
async fn without_a_file_there_is_nothing_to_be_lost() {
    let (first, _) = upstream().await;
    let process = Process::serve(&["--store", "memory:", "--tag-ttl", "1h", "--upstream", &first.url()], &[]).await;
    let (client, target) = (Client::docker_17(), "/v2/app/manifests/latest");
    assert_eq!(process.get(&client, target).await.status, 200);
    first.forget();
    process.hang_up();
    process.logged(IN_FORCE).await;
    assert_eq!(process.get(&client, target).await.status, 200);
    assert_eq!(first.requests_to("HEAD", "/v2/app/manifests/*").len(), 0);
}

/// Kubernetes changes where a link above the file leads, and nothing of the file that was there.
#[cfg(unix)]
#[tokio::test]
async fn a_file_that_is_swapped_by_a_link_above_it_is_noticed() {
    let ((first, _), (second, _)) = (upstream().await, upstream().await);
    let folder = tempfile::tempdir().unwrap();
    let within = |name: &str| folder.path().join(name);
    let corp = table("corp", &second.url(), "");
    for (name, text) in [("1", table("hub", &first.url(), "")), ("2", corp)] {
        std::fs::create_dir(within(name)).unwrap();
        std::fs::write(within(name).join("config.toml"), text).unwrap();
    }
    std::os::unix::fs::symlink("1", within("..data")).unwrap();
    std::os::unix::fs::symlink("..data/config.toml", within("config.toml")).unwrap();
    let file = within("config.toml");
    let process = Process::serve(&["--store", "memory:", "--config", file.to_str().unwrap()], &[]).await;
    std::os::unix::fs::symlink("2", within("..new")).unwrap();
    std::fs::rename(within("..new"), within("..data")).unwrap();
    process.logged(IN_FORCE).await;
    assert_eq!(process.get(&Client::docker_17(), "/v2/corp/app/manifests/latest").await.status, 200);
}

#[tokio::test]
async fn a_new_password_in_the_same_file_is_used() {
    let (first, _) = upstream().await;
    first.contents().close(r#"Basic realm="registry""#);
    first.contents().admit(&basic("u", "old"), "app");
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "old\n").unwrap();
    let auth = format!("auth = {{ username = \"u\", password_file = {:?} }}", password.to_str().unwrap());
    let hub = table("hub", &first.url(), &auth);
    let stage = Stage::with(&hub).await;
    assert_eq!(stage.status("/v2/hub/app/manifests/latest?first").await, 200);
    first.contents().revoke(&basic("u", "old"), "app");
    first.contents().admit(&basic("u", "new"), "app");
    std::fs::write(&password, "new\n").unwrap();
    stage.reads(&hub, IN_FORCE, 1).await;
    let tags = stage.process.get(&Client::curl(), "/v2/hub/app/tags/list").await;
    assert_eq!(tags.status, 200);
}

/// The paths are the same, so nothing that the file says has changed.
#[tokio::test]
async fn a_new_certificate_in_the_same_file_is_shown() {
    let (first, _) = upstream().await;
    let (authority, other) = (Authority::new(), Authority::new());
    let door = Door::before(&first, &authority.issue(&["localhost"]), Asks::MustShow(authority.file())).await;
    let folder = tempfile::tempdir().unwrap();
    let [chain, key] = ["chain.pem", "key.pem"].map(|name| folder.path().join(name));
    let show = |files: &crate::support::secure::Files| {
        std::fs::copy(&files.chain, &chain).unwrap();
        std::fs::copy(&files.key, &key).unwrap();
    };
    show(&other.issue(&["gateway"]));
    let tls =
        format!("tls = {{ ca = {:?}, client_certificate = {:?}, client_key = {:?} }}", authority.file(), chain, key);
    let hub = table("hub", &format!("https://localhost:{}", door.port()), &tls);
    let stage = Stage::with(&hub).await;
    assert_eq!(stage.status("/v2/hub/app/manifests/latest").await, 502);
    show(&authority.issue(&["gateway"]));
    stage.reads(&hub, IN_FORCE, 1).await;
    assert_eq!(stage.status("/v2/hub/app/manifests/latest").await, 200);
}
