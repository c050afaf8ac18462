//! No secret that passes through the gateway is left anywhere: not in a log line, not in an error, not in the store.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use data_encoding::{BASE64, BASE64URL_NOPAD, HEXLOWER};
use schemabridge::gateway::door::DoorOptions;
use tracing_subscriber::fmt::MakeWriter;

use crate::support::client::{Call, Client, Reply};
use crate::support::fault::Answer;
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::Image;
use crate::support::upstream::Upstream;
use crate::support::{basic, patiently};

const TAGGED: &str = "/v2/app/manifests/latest";

/// A secret that no other place holds; its blank, plus and slash read differently in each encoding.
pub fn secret(place: &str) -> String {
    let number = RandomState::new().build_hasher().finish();
    format!("{place} {number:016x}+/{number:x}")
}

/// Everything that a line of the log, an error or a file must not contain.
pub fn disguises(secret: &str) -> Vec<Vec<u8>> {
    let mut disguises = vec![secret.to_owned(), HEXLOWER.encode(secret.as_bytes())];
    let percent: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    disguises.extend([percent.replace('+', "%20"), percent.to_lowercase(), percent]);
    // Base64 of a text that has the secret in it, wherever the secret begins in a group of three.
    for before in 0..3 {
        let text = [&b"\0\0"[..before], secret.as_bytes()].concat();
        let whole_groups = text.len() / 3 * 4;
        let first = if before == 0 { 0 } else { 4 };
        for encoded in [BASE64.encode(&text), BASE64URL_NOPAD.encode(&text)] {
            disguises.push(encoded[first..whole_groups].to_owned());
        }
    }
    disguises.into_iter().map(String::into_bytes).collect()
}

pub fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[derive(Clone, Default)]
pub struct Log(pub Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

struct Secrets {
    user: String,
    password: String,
    bearer: String,
    refresh: String,
    issued: String,
    presigned: String,
    cookie: String,
}

impl Secrets {
    fn new() -> Self {
        Self {
            user: secret("user"),
            password: secret("password"),
            bearer: secret("bearer"),
            refresh: secret("refresh"),
            issued: secret("issued"),
            presigned: secret("presigned"),
            cookie: secret("cookie"),
        }
    }

    fn all(&self) -> [(&'static str, &str); 7] {
        [
            ("user", &self.user),
            ("password", &self.password),
            ("bearer", &self.bearer),
            ("refresh", &self.refresh),
            ("issued", &self.issued),
            ("presigned", &self.presigned),
            ("cookie", &self.cookie),
        ]
    }

    fn basic(&self) -> String {
        basic(&self.user, &self.password)
    }

    fn presigned_url(&self, origin: &str) -> String {
        let query: String = url::form_urlencoded::byte_serialize(self.presigned.as_bytes()).collect();
        format!("{origin}/store/config?X-Signature={query}")
    }
}

/// Pulls with every kind of credentials, once while all is well and once under each fault; returns what clients read.
async fn live_through_everything(
    upstream: &Upstream,
    gateway: &Gateway,
    image: &Image,
    secrets: &Secrets,
) -> Vec<Reply> {
    let blob = format!("/v2/app/blobs/{}", image.config_digest());
    let stored = format!("/v2/app/manifests/{}", image.oci().digest);
    let mut replies = Vec::new();
    let elsewhere = Upstream::start().await;
    elsewhere.contents().place("/store/config", image.config.clone());
    for fault in 0..9 {
        upstream.behave();
        match fault {
            0 => {}
            1 => upstream.when("GET", "/v2/app/*").redirect(307, &secrets.presigned_url(&elsewhere.url())),
            2 => upstream.when("GET", "/v2/app/*").redirect(307, &secrets.presigned_url("http://127.0.0.1:1")),
            3 => upstream.when("GET", "/v2/app/*").redirect(307, &secrets.presigned_url("gopher://127.0.0.1")),
            4 => upstream.when("*", "*").reset(),
            5 => upstream.when("*", "*").answer(Answer::new(503).body("<html>")),
            6 => upstream.when("GET", "*").cut(3),
            7 => upstream.when("GET", "*").with_body("not what was asked for"),
            _ => upstream.when("*", "/v2/app/*").answer(Answer::error(403, "DENIED", "no")),
        }
        for authorization in [secrets.basic(), format!("Bearer {}", secrets.bearer)] {
            for client in [Client::docker_1_6_2(), Client::docker_17(), Client::containerd_1_6()] {
                for target in ["/v2/", TAGGED, &stored, &blob, "/v2/app/tags/list", "/v2/app/nowhere"] {
                    let call =
                        client.get(target).header("Authorization", &authorization).header("Cookie", &secrets.cookie);
                    let reply = gateway.send(&call).await;
                    if reply.header("location").is_none() {
                        replies.push(reply);
                    }
                }
            }
        }
        for form in [
            [("grant_type", "refresh_token"), ("refresh_token", &secrets.refresh), ("service", "x")],
            [("grant_type", "password"), ("username", &secrets.user), ("password", &secrets.password)],
        ] {
            let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
            gateway.send(&Call::new("POST", "/token").body(form)).await;
        }
        gateway.send(&Call::new("GET", "/token?service=x").header("Authorization", &secrets.basic())).await;
        let query =
            url::form_urlencoded::Serializer::new(String::new()).append_pair("access", &secrets.presigned).finish();
        gateway.send(&Call::new("GET", &format!("{TAGGED}?{query}"))).await;
        gateway.send(&Call::new("GET", &format!("/v2/app/tags/list?{query}"))).await;
    }
    replies
}

fn every_file(folder: &Path) -> Vec<u8> {
    let mut all = folder.display().to_string().into_bytes();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let content = if path.is_dir() { every_file(&path) } else { std::fs::read(&path).unwrap() };
        all.extend([path.display().to_string().as_bytes(), &content].concat());
    }
    all
}

#[tokio::test]
async fn secrets_are_in_no_log_no_error_and_no_file() {
    let log = Log::default();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false).with_writer(log.clone());
    // With a single subscriber `tracing` remembers what the thread of another test, which has none, says to a call site.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let secrets = Secrets::new();
    let upstream = Upstream::start().await;
    let image = Image::golden("html-escape");
    upstream.put_image("app", "latest", &image, &image.oci());
    {
        let mut contents = upstream.contents();
        contents.close(&format!("Bearer realm=\"{}/token\",service=\"x\"", upstream.url()));
        contents.admit(&secrets.basic(), "app");
        contents.admit(&format!("Bearer {}", secrets.bearer), "app");
        contents.issue(&secrets.basic(), &secrets.issued);
        contents.issue(&secrets.refresh, &secrets.issued);
        contents.issue(&format!("{}:{}", secrets.user, secrets.password), &secrets.issued);
    }
    let directory = tempfile::tempdir().unwrap();
    let setup =
        Setup::default().store_in(directory.path()).rewrite_challenges().tag_ttl(std::time::Duration::from_secs(60));
    let gateway = setup.before(&upstream).await;
    let replies = live_through_everything(&upstream, &gateway, &image, &secrets).await;
    assert!(replies.iter().any(|reply| reply.status == 200) && replies.iter().any(|reply| reply.status >= 500));
    // What the operator is shown: whatever else there is to be hunted through belongs here.
    let shown = [("metrics", gateway.metrics().into_bytes())];
    assert!(holds(&shown[0].1, b"schemabridge_http_requests_total"), "nothing was counted");
    gateway.stop().await;

    let logged = log.0.lock().unwrap().clone();
    assert!(holds(&logged, b"latest"), "nothing was logged: {}", String::from_utf8_lossy(&logged));
    let kept = every_file(directory.path());
    assert!(kept.len() > 1000, "nothing was stored");
    let read: Vec<u8> =
        replies.iter().flat_map(|reply| [format!("{:?}", reply.headers).as_bytes(), &reply.body].concat()).collect();
    let mut haystacks: Vec<(&str, &[u8])> = vec![("log", &logged), ("store", &kept), ("answers", &read)];
    haystacks.extend(shown.iter().map(|(name, text)| (*name, text.as_slice())));
    assert_hidden(&secrets.all(), &haystacks);
}

/// No secret is in any of these, in whatever form.
fn assert_hidden(secrets: &[(&str, &str)], haystacks: &[(&str, &[u8])]) {
    for (place, secret) in secrets {
        for disguise in disguises(secret) {
            let shown = String::from_utf8_lossy(&disguise).into_owned();
            for (name, haystack) in haystacks {
                if holds(haystack, &disguise) {
                    let at = haystack.windows(disguise.len()).position(|window| window == disguise).unwrap();
                    let around = &haystack[at.saturating_sub(300)..(at + 300).min(haystack.len())];
                    panic!("the {place} `{shown}` is in the {name}: {}", String::from_utf8_lossy(around));
                }
            }
        }
    }
}

/// What opens the gateway's own door, right or wrong, and what its files hold.
#[tokio::test]
async fn logins_of_the_door_are_in_no_log_and_no_error_and_go_to_no_upstream() {
    let log = Log::default();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false).with_writer(log.clone());
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let [password, wrong, mistyped] = ["password", "wrong", "mistyped"].map(secret);
    let token = secret("token").replace(' ', "-") + "0123456789abcdef";
    let hash = bcrypt::hash(&password, 4).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let [htpasswd, tokens] = ["htpasswd", "tokens"].map(|name| directory.path().join(name));
    std::fs::write(&htpasswd, format!("alice:{hash}\n")).unwrap();
    std::fs::write(&tokens, &token).unwrap();
    let upstream = Upstream::start().await;
    let image = Image::golden("html-escape");
    upstream.put_image("app", "latest", &image, &image.oci());
    let door = DoorOptions { htpasswd: Some(htpasswd.clone()), tokens: Some(tokens), ..DoorOptions::default() };
    let gateway = Setup::default().door(&door).push().before(&upstream).await;
    // The last is a password that was typed where the name belongs.
    let logins = [
        basic("alice", &password),
        format!("Bearer {token}"),
        basic("x", &token),
        basic("alice", &wrong),
        format!("Bearer {wrong}"),
        basic(&mistyped, ""),
    ];
    let mut replies = Vec::new();
    for login in &logins {
        for target in ["/v2/", TAGGED, "/v2/app/tags/list", "/v2/app/nowhere", "/token"] {
            replies.push(gateway.send(&Client::docker_17().get(target).header("Authorization", login)).await);
        }
    }
    // A file that cannot be used is not repeated in the warning.
    std::fs::write(&htpasswd, format!("alice:{wrong}\n")).unwrap();
    let warned = async {
        while !holds(&log.0.lock().unwrap(), b"the old logins stay good") {
            gateway.send(&Client::docker_17().get(TAGGED).header("Authorization", &logins[0])).await;
        }
    };
    patiently("the warning", warned).await;
    let still = gateway.send(&Client::docker_17().get(TAGGED).header("Authorization", &logins[0])).await;
    assert_eq!(still.status, 200);
    let shown = gateway.metrics().into_bytes();
    gateway.stop().await;
    for status in [200, 401, 429] {
        assert!(replies.iter().any(|reply| reply.status == status), "nothing was answered with {status}");
    }
    let logged = log.0.lock().unwrap().clone();
    assert!(holds(&logged, b"alice") && holds(&logged, b"token on line 1"), "who came in is not in the log");
    let read: Vec<u8> =
        replies.iter().flat_map(|reply| [format!("{:?}", reply.headers).as_bytes(), &reply.body].concat()).collect();
    let sent = format!("{:?}", upstream.requests()).into_bytes();
    let secrets =
        [("password", &password), ("wrong", &wrong), ("mistyped", &mistyped), ("token", &token), ("hash", &hash)];
    let secrets = secrets.map(|(place, secret)| (place, secret.as_str()));
    assert_hidden(&secrets, &[("log", &logged), ("answers", &read), ("upstream", &sent), ("metrics", &shown)]);
}

#[test]
fn the_search_finds_what_it_looks_for() {
    let secret = secret("place");
    for before in ["", "x", "xy", "xyz:"] {
        let text = format!("{before}{secret}");
        let percent: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
        for written in [text.clone(), BASE64.encode(text.as_bytes()), BASE64URL_NOPAD.encode(text.as_bytes()), percent]
        {
            assert!(disguises(&secret).iter().any(|disguise| holds(written.as_bytes(), disguise)), "{written}");
        }
    }
}
