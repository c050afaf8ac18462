//! A socket in the file system: who may connect, what becomes of its file, and what its clients are taken for.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command;

use crate::commands::complaint;
use crate::support::basic;
use crate::support::client::{Call, Client, Reply};
use crate::support::images::Image;
use crate::support::process::Process;
use crate::support::upstream::Upstream;

/// A folder and the socket in it.
struct Place {
    _folder: tempfile::TempDir,
    path: PathBuf,
    flag: String,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.sock");
        Self { flag: format!("unix:{}", path.display()), path, _folder: folder }
    }

    async fn send(&self, call: &Call) -> Reply {
        let stream = UnixStream::connect(&self.path).await.unwrap();
        let mut open = call.open_over(stream, ([127, 0, 0, 1], 5000).into()).await;
        crate::support::patiently("an answer", open.rest()).await;
        open.reply(false)
    }
}

async fn upstream() -> (Upstream, Image) {
    let (upstream, image) = (Upstream::start().await, Image::classic("app"));
    upstream.put_image("app", "latest", &image, &image.oci());
    (upstream, image)
}

async fn serve(upstream: &Upstream, place: &Place, rest: &[&str]) -> Process {
    let url = upstream.url();
    let arguments = ["--store", "memory:", "--upstream", &url, "--listen", &place.flag];
    Process::serve(&[&arguments, rest].concat(), &[]).await
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn it_answers_like_any_address_and_its_file_goes_at_the_end() {
    let ((upstream, image), place) = (upstream().await, Place::new());
    let mut process = serve(&upstream, &place, &[]).await;
    assert_eq!(mode(&place.path), 0o660);
    let blob = format!("/v2/app/blobs/{}", image.config_digest());
    for target in ["/v2/app/manifests/latest", &blob] {
        let here = place.send(&Client::docker_17().get(target)).await;
        let there = process.get(&Client::docker_17(), target).await;
        assert_eq!((here.status, here.digest(), &here.body), (200, there.digest(), &there.body));
    }
    process.terminate();
    assert_eq!(process.ended().await.code(), Some(0));
    assert!(!place.path.exists());
}

#[tokio::test]
async fn the_mode_is_what_the_flag_says() {
    let ((upstream, _), place) = (upstream().await, Place::new());
    let _process = serve(&upstream, &place, &["--listen-mode", "0606"]).await;
    assert_eq!(mode(&place.path), 0o606);
}

#[tokio::test]
async fn what_a_dead_process_left_goes_away() {
    let ((upstream, _), place) = (upstream().await, Place::new());
    let process = serve(&upstream, &place, &[]).await;
    process.kill().await;
    assert!(place.path.exists());
    let _process = serve(&upstream, &place, &[]).await;
    assert_eq!(place.send(&Client::docker_17().get("/v2/app/manifests/latest")).await.status, 200);
}

#[tokio::test]
async fn what_is_in_use_or_no_socket_stays() {
    let (live, other) = (Place::new(), Place::new());
    let _listener = UnixListener::bind(&live.path).unwrap();
    std::fs::write(&other.path, "precious").unwrap();
    for (place, words) in [(&live, "another process listens there"), (&other, "not a socket")] {
        let before = place.path.metadata().unwrap().ino();
        let arguments = ["serve", "--store", "memory:", "--upstream", "http://127.0.0.1:1", "--listen", &place.flag];
        let refused = complaint(&arguments, &[]).await;
        assert!(refused.contains(&format!("--listen {}", place.flag)) && refused.contains(words), "{refused}");
        assert_eq!(place.path.metadata().unwrap().ino(), before);
    }
    assert_eq!(std::fs::read_to_string(&other.path).unwrap(), "precious");
}

#[tokio::test]
async fn a_file_that_is_anothers_by_now_stays() {
    let ((upstream, _), place) = (upstream().await, Place::new());
    let mut process = serve(&upstream, &place, &[]).await;
    std::fs::rename(&place.path, place.path.with_extension("old")).unwrap();
    let _other = UnixListener::bind(&place.path).unwrap();
    process.terminate();
    assert_eq!(process.ended().await.code(), Some(0));
    assert!(place.path.exists());
}

/// Whoever may open the file is on this machine, so what the gateway holds may be used by them.
#[tokio::test]
async fn held_credentials_need_no_door_behind_it() {
    let ((upstream, _), place) = (upstream().await, Place::new());
    upstream.contents().close(r#"Basic realm="registry""#);
    upstream.contents().admit(&basic("u", "s3cret"), "app");
    let password = place.path.with_extension("password");
    std::fs::write(&password, "s3cret\n").unwrap();
    let _process = serve(&upstream, &place, &["--username", "u", "--password-file", password.to_str().unwrap()]).await;
    assert_eq!(place.send(&Client::docker_17().get("/v2/app/manifests/latest")).await.status, 200);
}

#[tokio::test]
async fn a_proxy_behind_it_is_believed_by_its_own_name_only() {
    let (upstream, _) = upstream().await;
    upstream.contents().close(&format!("Bearer realm=\"{}/token\",service=\"registry\"", upstream.url()));
    let call = Client::docker_17().get("/v2/").host("r.internal").header("X-Forwarded-Proto", "https");
    for (trusted, scheme) in [("127.0.0.0/8", "http"), ("0.0.0.0/0", "http"), ("unix", "https")] {
        let place = Place::new();
        let _process = serve(&upstream, &place, &["--challenge", "rewrite", "--trusted-proxies", trusted]).await;
        let reply = place.send(&call).await;
        let challenge = reply.header("www-authenticate").unwrap();
        assert!(challenge.contains(&format!("realm=\"{scheme}://r.internal/token\"")), "{trusted}: {challenge}");
    }
}

#[tokio::test]
async fn the_operator_may_use_one_too() {
    let ((upstream, _), place) = (upstream().await, Place::new());
    let mut command = Command::new(env!("CARGO_BIN_EXE_schemabridge"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--store", "memory:", "--upstream", &upstream.url()]);
    command.args(["--admin-listen", &place.flag, "--log-format", "json"]).env_clear();
    let process = Process::start(command).await;
    assert_eq!(place.send(&Client::curl().get("/readyz")).await.text(), "ok\n");
    let asked = |arguments: &'static [&'static str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_schemabridge"));
        command.args(arguments).args(["--admin-listen", &place.flag]).env_clear();
        async move { command.output().await.unwrap() }
    };
    assert!(asked(&["healthcheck"]).await.status.success());
    let refreshed = asked(&["refresh", "app:latest"]).await;
    assert!(refreshed.status.success(), "{}", String::from_utf8_lossy(&refreshed.stderr));
    process.kill().await;
    let complaint = asked(&["healthcheck"]).await;
    assert_eq!(complaint.status.code(), Some(1));
    assert!(String::from_utf8(complaint.stderr).unwrap().contains(&place.flag));
}

#[tokio::test]
async fn what_is_not_a_path_is_refused_in_words() {
    for bad in ["unix:", "unix:run/gateway.sock", "unix:/run/"] {
        let text = complaint(&["serve", "--upstream", "http://127.0.0.1:1", "--listen", bad], &[]).await;
        assert!(text.contains("--listen") && text.contains("an absolute path"), "{text}");
    }
    let long = format!("unix:/{}", "x".repeat(200));
    let arguments = ["serve", "--store", "memory:", "--upstream", "http://127.0.0.1:1", "--listen", &long];
    assert!(complaint(&arguments, &[]).await.contains("107 bytes"));
    let text = complaint(&["serve", "--upstream", "http://127.0.0.1:1", "--listen-mode", "0888"], &[]).await;
    assert!(text.contains("--listen-mode") && text.contains("`0660`"), "{text}");
}
