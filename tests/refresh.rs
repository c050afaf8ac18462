//! What an operator does when a tag moved and the gateway does not know yet.

use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use schemabridge::gateway::refresh::Named;

use crate::support::basic;
use crate::support::client::{Call, Client};
use crate::support::fault::Answer;
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::Image;
use crate::support::patiently;
use crate::support::process::Process;
use crate::support::upstream::Upstream;

const TAGGED: &str = "/v2/app/manifests/latest";
const HOUR: Duration = Duration::from_secs(3600);

/// One image, and another that nobody has heard of yet.
async fn upstream() -> (Upstream, [Image; 2]) {
    let upstream = Upstream::start().await;
    let images = [Image::classic("old"), Image::small("new")];
    for repository in ["app", "library/app"] {
        upstream.put_image(repository, "latest", &images[0], &images[0].oci());
    }
    (upstream, images)
}

async fn digest(gateway: &Gateway, target: &str) -> String {
    gateway.get(&Client::curl(), target).await.digest().to_owned()
}

fn named(image: &str) -> Named {
    Named { images: vec![image.to_owned()], ..Named::default() }
}

async fn command(arguments: &[&str], admin: SocketAddr) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_schemabridge"));
    command.arg("refresh").args(arguments).env_clear().stdin(Stdio::null());
    command.env("SCHEMABRIDGE_ADMIN_LISTEN", admin.to_string());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_forgotten_tag_is_asked_for_again_for_everybody_who_was_told() {
    let (upstream, [old, new]) = upstream().await;
    let gateway = Setup::default().tag_ttl(HOUR).before(&upstream).await;
    let callers = [basic("ann", "1"), basic("bob", "2")];
    let ask = |caller: &str| Client::curl().get(TAGGED).header("Authorization", caller);
    for caller in &callers {
        assert_eq!(gateway.send(&ask(caller)).await.digest(), old.oci().digest);
    }
    upstream.put("app", "latest", &new.oci());
    assert_eq!(gateway.service().forget(&named("other")).await, Ok(vec![0]));
    assert_eq!(gateway.service().forget(&named("app:other")).await, Ok(vec![0]));
    assert_eq!(gateway.send(&ask(&callers[0])).await.digest(), old.oci().digest, "another tag was meant");
    assert_eq!(gateway.service().forget(&named("app")).await, Ok(vec![2]));
    for caller in &callers {
        assert_eq!(gateway.send(&ask(caller)).await.digest(), new.oci().digest);
    }
    assert_eq!(gateway.service().forget(&named("app:latest")).await, Ok(vec![2]), "latest is what no tag means");
}

#[tokio::test]
async fn that_there_was_nothing_is_forgotten_too() {
    let (upstream, [old, _]) = upstream().await;
    let gateway = Setup::default().tags(|tags| tags.negative_ttl = HOUR).before(&upstream).await;
    let target = "/v2/app/manifests/soon";
    assert_eq!(gateway.get(&Client::curl(), target).await.status, 404);
    upstream.put("app", "soon", &old.oci());
    assert_eq!(gateway.get(&Client::curl(), target).await.status, 404);
    assert_eq!(gateway.service().forget(&named("app:soon")).await, Ok(vec![1]));
    assert_eq!(gateway.get(&Client::curl(), target).await.status, 200);
}

/// Nor is a stale answer made of it: the operator knows better.
#[tokio::test]
async fn what_was_forgotten_is_not_repeated_in_an_outage() {
    let (upstream, _) = upstream().await;
    upstream.put("app", "other", &Image::small("other").oci());
    let gateway = Setup::default().permission_from_the_gateway().before(&upstream).await;
    let other = "/v2/app/manifests/other";
    for target in [TAGGED, other] {
        assert_eq!(gateway.get(&Client::curl(), target).await.status, 200);
    }
    assert_eq!(gateway.service().forget(&named("app")).await, Ok(vec![1]));
    upstream.when("*", "*").answer(Answer::new(503));
    assert_eq!(gateway.get(&Client::curl(), TAGGED).await.status, 503);
    assert_eq!(gateway.get(&Client::curl(), other).await.status, 200, "another tag is remembered as before");
}

/// Whoever asked before the refresh hears what was true then; nobody after it does.
#[tokio::test]
async fn a_question_from_before_is_not_remembered_after_it() {
    let (upstream, [old, new]) = upstream().await;
    let gateway = Setup::default().permission_from_the_gateway().before(&upstream).await;
    upstream.when("HEAD", TAGGED).times(1).with("docker-content-digest", &old.oci().digest);
    let gate = upstream.when("HEAD", TAGGED).times(1).hold();
    let mut early = Client::curl().get(TAGGED).open(gateway.address()).await;
    gate.reached(1).await;
    let next = new.oci();
    upstream.put("app", "latest", &next);
    assert_eq!(gateway.service().forget(&named("app")).await, Ok(vec![0]));
    assert_eq!(digest(&gateway, TAGGED).await, next.digest, "it does not join the question from before");
    gate.open();
    patiently("the early answer", early.rest()).await;
    assert_eq!(early.reply(false).digest(), old.oci().digest);
    assert_eq!(digest(&gateway, TAGGED).await, next.digest);
}

#[tokio::test]
async fn an_image_is_named_as_clients_name_it() {
    let (first, [old, new]) = upstream().await;
    let (second, _) = upstream().await;
    let setup = Setup::default().in_library().beside("hub", &second, "hub.example", "hub.gateway.example");
    let gateway = setup.permission_from_the_gateway_everywhere().before(&first).await;
    let by = |image: &str, registry: Option<&str>, host: Option<&str>| Named {
        images: vec![image.to_owned()],
        registry: registry.map(str::to_owned),
        host: host.map(str::to_owned),
    };
    for (named, upstream, repository, target) in [
        (by("app", None, None), &first, "library/app", "/v2/app/manifests/latest"),
        (by("library/app:latest", None, None), &first, "library/app", "/v2/app/manifests/latest"),
        (by("hub/app", None, None), &second, "app", "/v2/hub/app/manifests/latest"),
        (by("app", Some("hub.example"), None), &second, "app", "/v2/hub/app/manifests/latest"),
        (by("app", Some("hub.example:443"), None), &second, "app", "/v2/hub/app/manifests/latest"),
        (by("app", None, Some("hub.gateway.example")), &second, "app", "/v2/hub/app/manifests/latest"),
    ] {
        for (image, other) in [(&old, &new), (&new, &old)] {
            upstream.put(repository, "latest", &image.oci());
            gateway.service().forget(&named).await.unwrap();
            assert_eq!(digest(&gateway, target).await, image.oci().digest, "{named:?}");
            upstream.put(repository, "latest", &other.oci());
            assert_eq!(digest(&gateway, target).await, image.oci().digest, "it is remembered");
        }
        assert_eq!(gateway.service().forget(&named).await, Ok(vec![1]), "{named:?}");
    }
    for named in [by("app", Some("else.example"), None), by("app", Some("hub.example&ns=hub.example"), None)] {
        let refusal = gateway.service().forget(&named).await.unwrap_err().to_string();
        assert!(refusal.starts_with("`app`: `ns` does not name a registry"), "{refusal}");
    }
    for image in ["", ":latest", "app:", "App", "app@sha256:0", "127.0.0.1:5000/app", "../app", "hub/app:x/y", "a%2fb"]
    {
        let refusal = gateway.service().forget(&named(image)).await.unwrap_err().to_string();
        assert!(refusal.contains(&format!("`{image}`")) && refusal.contains("repository:tag"), "{refusal}");
    }
}

#[tokio::test]
async fn the_command_asks_the_admin_listener() {
    let (upstream, [_, new]) = upstream().await;
    let url = format!("main={}", upstream.url());
    let process = Process::serve(&["--store", "memory:", "--upstream", &url, "--tag-ttl", "1h"], &[]).await;
    let ask = async || process.get(&Client::curl(), TAGGED).await.digest().to_owned();
    let before = ask().await;
    upstream.put("app", "latest", &new.oci());
    assert_eq!(ask().await, before);
    let done = command(&["app", "main/app:none"], process.admin).await;
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(text, "app: forgotten for 1 caller\nmain/app:none: nothing was remembered\n");
    assert_eq!(ask().await, new.oci().digest);

    let refused = command(&["app", "--ns", "else.example"], process.admin).await;
    let text = String::from_utf8(refused.stderr).unwrap();
    assert_eq!((refused.status.code(), refused.stdout.len(), text.lines().count()), (Some(1), 0, 1), "{text}");
    assert!(text.contains("`app`") && text.contains("does not name a registry"), "{text}");
    let refused = command(&["app", "App"], process.admin).await;
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(1), 0));
    assert_eq!(process.metric("schemabridge_cache_requests_total{cache=\"tag\",result=\"miss\"}").await, 2);
}

#[tokio::test]
async fn the_admin_listener_takes_a_form_and_nothing_else() {
    let (upstream, _) = upstream().await;
    let url = format!("main={}", upstream.url());
    let process = Process::serve(&["--store", "memory:", "--upstream", &url, "--tag-ttl", "1h"], &[]).await;
    let post = |target: &str| Call::new("POST", target).header("Content-Type", "application/x-www-form-urlencoded");
    let many = vec!["image=app"; 101].join("&");
    let images = vec!["image=app"; 100].join("&");
    for (call, status, words) in [
        (Call::new("GET", "/refresh?image=app"), 405, "only POST\n"),
        (Call::new("PUT", "/refresh?image=app"), 405, "only POST\n"),
        (post("/refresh"), 400, "no image is named: expected `image=repository:tag`\n"),
        (post("/refresh?imag=app"), 400, "`imag` is unknown: expected `image`, `ns` or `host`\n"),
        (post("/refresh?image=app").header("Origin", "https://evil.example"), 403, "not for pages of the web\n"),
        (post("/refresh").body(many.as_bytes()), 400, "more than 100 images are named\n"),
        (post("/refresh").body(vec![b'a'; 65537]), 413, "the body has more than 65536 bytes\n"),
        (
            post("/refresh?image=app&ns=x.example"),
            404,
            "`app`: `ns` does not name a registry that this gateway stands in front of\n",
        ),
        (post("/refresh?image=app"), 200, "app: nothing was remembered\n"),
        (post("/refresh").body(b"image=app%3Alatest".to_vec()), 200, "app:latest: nothing was remembered\n"),
        (post("/refresh").body(images.as_bytes()), 200, &"app: nothing was remembered\n".repeat(100)),
    ] {
        let got = call.send(process.admin).await;
        assert_eq!((got.status, got.text().as_str()), (status, words), "{call:?}");
        assert_eq!(got.content_type(), "text/plain; charset=utf-8");
    }
    assert_eq!(upstream.lines(), Vec::<String>::new(), "a refresh asks nobody");
    let got = Call::new("POST", "/refresh?image=app").send(process.address).await;
    assert_eq!(got.status, 404, "clients cannot do it: {}", got.text());
}
