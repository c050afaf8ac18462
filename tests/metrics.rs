//! Every metric moves when what it counts happens, none is there that nothing moves, and no label says what is private: no
//! repository, no tag, no digest.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemabridge::gateway::door::DoorOptions;
use schemabridge::server::limits::Limits;
use schemabridge::store::blobs::BlobCacheOptions;
use schemabridge::store::sweep::Bounds;
use schemabridge::upstream::{Authentication, Redirects};
use tokio::net::TcpStream;

use crate::blob_cache::{started, until};
use crate::door::{ALICE, ALICES};
use crate::support::basic;
use crate::support::client::{Call, Client};
use crate::support::fault::Answer;
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::{Image, Kind};
use crate::support::layers::{archive, image, noise};
use crate::support::process::Process;
use crate::support::secure::{Asks, Authority, Door, Files};
use crate::support::upstream::{Absent, Upstream};

/// Words that no label may hold.
const REPOSITORY: &str = "kept-apart/team";
const TAG: &str = "release-77";

/// Families that only a damaged store or a new certificate moves, with the tests that do it.
const MOVED_ELSEWHERE: [(&str, &str); 2] =
    [("store_damaged_objects", include_str!("store_damage.rs")), (CERTIFICATES, include_str!("tls.rs"))];
/// Whose label is the name of the operator's file.
const CERTIFICATES: &str = "tls_cert_not_after_timestamp_seconds";

/// How many bytes of blobs are kept.
const BLOBS_BYTES: u64 = 4 << 20;

fn tagged() -> String {
    format!("/v2/{REPOSITORY}/manifests/{TAG}")
}

/// Whose series were seen to move.
#[derive(Default)]
struct Seen(BTreeSet<String>);

/// A series as it is shown, without the prefix of all.
fn value(text: &str, series: &str) -> Option<f64> {
    let series = format!("schemabridge_{series} ");
    text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok())
}

impl Seen {
    /// Waits until each series stands so much higher, or lower, than before. What is counted at the end of an answer can
    /// come a moment after the client has read it.
    async fn moved(&mut self, gateway: &Gateway, before: &str, expected: &[(&str, f64)]) {
        let mut left = String::new();
        let waiting = until("the metrics to move", async || {
            let now = gateway.metrics();
            left.clear();
            for (series, by) in expected {
                let moved = value(&now, series).unwrap_or_default() - value(before, series).unwrap_or_default();
                if (moved - by).abs() > 1e-9 {
                    writeln!(left, "{series}: {moved}").unwrap();
                }
            }
            left.is_empty()
        });
        let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
        assert!(waited.is_ok(), "of {expected:?} these moved otherwise:\n{left}");
        for (series, _) in expected {
            self.note(series);
        }
    }

    /// Waits until each series stands higher than before.
    async fn rose(&mut self, gateway: &Gateway, before: &str, series: &[&str]) {
        for series in series {
            until(series, async || value(&gateway.metrics(), series) > value(before, series).or(Some(0.0))).await;
            self.note(series);
        }
    }

    fn note(&mut self, series: &str) {
        let name = series.split('{').next().unwrap();
        let family = ["_total", "_count", "_sum", "_bucket"].iter().find_map(|end| name.strip_suffix(end));
        self.0.insert(family.unwrap_or(name).to_owned());
    }
}

async fn stage(setup: Setup) -> (Upstream, Gateway, Image) {
    let upstream = Upstream::start().await;
    let image = Image::classic("app");
    upstream.put_image(REPOSITORY, TAG, &image, &image.oci());
    let gateway = setup.before(&upstream).await;
    (upstream, gateway, image)
}

async fn translations(seen: &mut Seen) -> String {
    let (upstream, gateway, image) = stage(Setup::default()).await;
    let (old, new) = (Client::docker_1_9_1(), Client::containerd_1_6());
    let before = gateway.metrics();
    let first = gateway.get(&old, &tagged()).await;
    assert_eq!(first.status, 200);
    assert_eq!(gateway.get(&old, &tagged()).await.status, 200);
    assert_eq!(gateway.get(&new, &tagged()).await.status, 200);
    assert_eq!(gateway.get(&Client::docker_17(), &tagged()).await.status, 200);
    let by_digest = format!("/v2/{REPOSITORY}/manifests/{}", first.digest());
    assert_eq!(gateway.get(&old, &by_digest).await.status, 200);
    let bytes = f64::from(u32::try_from(image.oci().bytes.len() + image.config.len()).unwrap());
    let on = |name: &str| format!("{name}{{upstream=\"default\",route=\"manifest_tag\",method=\"GET\"}}");
    let translated =
        |from_to_kind: &str| format!("translations_total{{upstream=\"default\",{from_to_kind},result=\"ok\"}}");
    seen.moved(
        &gateway,
        &before,
        &[
            ("http_requests_total{upstream=\"default\",route=\"manifest_tag\",method=\"GET\",code=\"200\"}", 4.0),
            ("http_requests_total{upstream=\"default\",route=\"manifest_digest\",method=\"GET\",code=\"200\"}", 1.0),
            (&on("http_request_duration_seconds_count"), 4.0),
            (&on("http_request_ttfb_seconds_count"), 4.0),
            ("client_capability_total{class=\"schema1_only\"}", 3.0),
            ("client_capability_total{class=\"list\"}", 1.0),
            ("client_capability_total{class=\"oci\"}", 1.0),
            (&translated("from=\"oci\",to=\"schema1\",kind=\"downgrade\""), 2.0),
            (&translated("from=\"oci\",to=\"schema2\",kind=\"rewrite\""), 1.0),
            (&translated("from=\"oci\",to=\"oci\",kind=\"none\""), 1.0),
            ("translation_duration_seconds_count{from=\"oci\",to=\"schema1\"}", 1.0),
            ("cache_requests_total{cache=\"derived\",result=\"miss\"}", 2.0),
            ("cache_requests_total{cache=\"derived\",result=\"hit\"}", 1.0),
            ("cache_requests_total{cache=\"manifest\",result=\"miss\"}", 1.0),
            ("cache_requests_total{cache=\"manifest\",result=\"hit\"}", 3.0),
            ("cache_requests_total{cache=\"tag\",result=\"bypass\"}", 6.0),
            ("derived_digest_requests_total{upstream=\"default\",result=\"hit\"}", 1.0),
            ("upstream_requests_total{upstream=\"default\",operation=\"head_manifest\",code=\"200\"}", 5.0),
            ("upstream_request_duration_seconds_count{upstream=\"default\",operation=\"get_manifest\"}", 1.0),
            ("upstream_bytes_total{upstream=\"default\",direction=\"received\"}", bytes),
        ],
    )
    .await;
    let rising = [
        "store_operations_total{operation=\"write\",result=\"ok\"}",
        "upstream_last_success_timestamp_seconds{upstream=\"default\"}",
    ];
    seen.rose(&gateway, "", &rising).await;
    assert!(value(&before, "cache_capacity_bytes{cache=\"manifest\"}") > Some(0.0));
    seen.note("cache_capacity_bytes");
    // The memory takes stock when it has time.
    for series in ["cache_entries{cache=\"manifest\"}", "cache_bytes{cache=\"derived\"}"] {
        until(series, async || {
            gateway.get(&old, &tagged()).await;
            value(&gateway.metrics(), series) > Some(0.0)
        })
        .await;
        seen.note(series);
    }
    // A refusal counts too: nobody makes anything of a document that contradicts itself, or of an artifact.
    let before = gateway.metrics();
    upstream.put(REPOSITORY, TAG, &image.oci().rewritten(|text| text.replacen('{', "{\"schemaVersion\":2,", 1)));
    assert_eq!(gateway.get(&old, &tagged()).await.status, 406);
    seen.moved(
        &gateway,
        &before,
        &[("http_requests_total{upstream=\"default\",route=\"manifest_tag\",method=\"GET\",code=\"406\"}", 1.0)],
    )
    .await;
    gateway.metrics()
}

async fn bodies(seen: &mut Seen) -> String {
    let (upstream, gateway, image) = stage(Setup::default().push()).await;
    let content = vec![7_u8; 2_000_000];
    let digest = upstream.contents().put_blob(REPOSITORY, content.clone().into());
    let blob = format!("/v2/{REPOSITORY}/blobs/{digest}");
    let before = gateway.metrics();
    let gate = upstream.when("GET", &blob).hold_body(1_000_000);
    let mut open = Client::docker_17().get(&blob).open(gateway.address()).await;
    open.at_least(1_000_000).await;
    seen.moved(&gateway, &before, &[("http_requests_in_flight{route=\"blob\"}", 1.0)]).await;
    gate.open();
    open.rest().await;
    assert_eq!(open.reply(false).body.len(), content.len());
    let whole = [
        ("http_requests_in_flight{route=\"blob\"}", 0.0),
        ("http_response_bytes_total{upstream=\"default\",route=\"blob\"}", 2_000_000.0),
        ("http_requests_aborted_total{upstream=\"default\",route=\"blob\",by=\"client\"}", 0.0),
    ];
    seen.moved(&gateway, &before, &whole).await;

    // One leaves in the middle, one before the beginning, and one is left.
    let before = gateway.metrics();
    upstream.behave();
    let _gate = upstream.when("GET", &blob).times(1).hold_body(1_000_000);
    let mut leaving = Client::docker_17().get(&blob).open(gateway.address()).await;
    leaving.at_least(1_000_000).await;
    drop(leaving);
    let by = |who: &str| format!("http_requests_aborted_total{{upstream=\"default\",route=\"blob\",by=\"{who}\"}}");
    let ok = "http_requests_total{upstream=\"default\",route=\"blob\",method=\"GET\",code=\"200\"}";
    seen.moved(&gateway, &before, &[(&by("client"), 1.0), (ok, 1.0)]).await;
    let gate = upstream.when("GET", &blob).times(1).hold();
    let leaving = Client::docker_17().get(&blob).open(gateway.address()).await;
    gate.reached(1).await;
    drop(leaving);
    seen.moved(&gateway, &before, &[(&by("client"), 2.0), (ok, 1.0)]).await;
    upstream.behave();
    upstream.when("GET", &blob).times(1).cut(1000);
    assert!(!gateway.get(&Client::docker_17(), &blob).await.is_whole);
    seen.moved(&gateway, &before, &[(&by("source"), 1.0), (ok, 2.0)]).await;

    let before = gateway.metrics();
    let upload = format!("/v2/{REPOSITORY}/blobs/uploads/?digest={}", image.config_digest());
    gateway.send(&Call::new("POST", &upload).body(vec![1; 1000])).await;
    let sent = [
        ("http_request_bytes_total{upstream=\"default\",route=\"upload\"}", 1000.0),
        ("upstream_bytes_total{upstream=\"default\",direction=\"sent\"}", 1000.0),
    ];
    seen.moved(&gateway, &before, &sent).await;
    gateway.metrics()
}

async fn faults(seen: &mut Seen) -> String {
    let (upstream, gateway, image) = stage(Setup::default().redirects(Redirects::Pass)).await;
    let before = gateway.metrics();
    let limited = |answer: Answer| answer.header("ratelimit-limit", "100;w=60").header("ratelimit-remaining", "9;w=60");
    upstream.when("*", "*").times(1).answer(limited(Answer::new(500)));
    gateway.get(&Client::curl(), &tagged()).await;
    upstream.behave();
    let stored = format!("/v2/{REPOSITORY}/manifests/{}", image.oci().digest);
    upstream.when("GET", "*").times(1).with_body("not what was asked for");
    assert_eq!(gateway.get(&Client::docker_1_9_1(), &tagged()).await.status, 502);
    upstream.behave();
    let layer = format!("/v2/{REPOSITORY}/blobs/{}", image.config_digest());
    upstream.when("GET", &layer).redirect(307, "http://127.0.0.1:9/there");
    gateway.get(&Client::docker_17(), &layer).await;
    upstream.behave();
    upstream.when("*", "*").reset();
    for _ in 0..10 {
        gateway.get(&Client::curl(), &stored).await;
    }
    let error = |kind: &str| format!("upstream_errors_total{{upstream=\"default\",type=\"{kind}\"}}");
    seen.moved(
        &gateway,
        &before,
        &[
            (&error("5xx"), 1.0),
            (&error("digest_mismatch"), 1.0),
            ("upstream_rate_limit_limit{upstream=\"default\"}", 100.0),
            ("upstream_rate_limit_remaining{upstream=\"default\"}", 9.0),
            ("redirects_total{upstream=\"default\",action=\"passed\"}", 1.0),
            ("upstream_breaker_state{upstream=\"default\"}", 2.0),
        ],
    )
    .await;
    seen.rose(&gateway, &before, &[&error("reset"), &error("breaker_open")]).await;
    gateway.metrics()
}

/// How a gateway counts that it got neither a document nor a layer from here.
async fn lost(setup: Setup, url: &str, kind: &str) {
    let gateway = setup.before_url(url).await;
    let digest = format!("sha256:{}", "0".repeat(64));
    let series = format!("upstream_errors_total{{upstream=\"default\",type=\"{kind}\"}}");
    assert_eq!(value(&gateway.metrics(), &series), Some(0.0));
    for (target, times) in [(tagged(), 1.0), (format!("/v2/{REPOSITORY}/blobs/{digest}"), 2.0)] {
        assert_eq!(gateway.get(&Client::docker_17(), &target).await.status, 502, "{kind} {target}");
        assert_eq!(value(&gateway.metrics(), &series), Some(times), "{kind} {target}: {}", gateway.metrics());
    }
}

/// Whichever of the clients asks, the same trouble has the same name.
#[tokio::test]
async fn what_is_in_the_way_of_the_upstream_is_told_apart() {
    lost(Setup::default(), "http://registry.invalid", "dns").await;
    lost(Setup::default(), &Absent::new().url(), "connect").await;
    let upstream = Upstream::start().await;
    let door = Door::before(&upstream, &Authority::new().issue(&["localhost"]), Asks::Nothing).await;
    lost(Setup::default(), &format!("https://localhost:{}", door.port()), "tls").await;
    lost(Setup::default(), &upstream.url().replace("http:", "https:"), "tls").await;
    upstream.when("*", "*").reset();
    lost(Setup::default(), &upstream.url(), "reset").await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_counted_once() {
    let (upstream, gateway, _) = stage(Setup::default()).await;
    let error = |kind: &str| format!("upstream_errors_total{{upstream=\"default\",type=\"{kind}\"}}");
    let digest = upstream.contents().put_blob(REPOSITORY, vec![7; 1000].into());
    upstream.when("GET", "*").cut(10);
    assert_eq!(gateway.get(&Client::docker_17(), &tagged()).await.status, 502);
    let mut seen = Seen::default();
    seen.moved(&gateway, "", &[(&error("truncated"), 1.0)]).await;
    let blob = format!("/v2/{REPOSITORY}/blobs/{digest}");
    assert!(!gateway.get(&Client::docker_17(), &blob).await.is_whole);
    seen.moved(&gateway, "", &[(&error("truncated"), 2.0), (&error("reset"), 0.0), (&error("unreachable"), 0.0)]).await;
}

async fn logins(seen: &mut Seen) -> String {
    let files = tempfile::tempdir().unwrap();
    let htpasswd = files.path().join("htpasswd");
    std::fs::write(&htpasswd, ALICE).unwrap();
    let say = r#"cat >/dev/null; echo '{"Username":"gate","Secret":"pw"}'"#;
    let (command, arguments) = (PathBuf::from("/bin/sh"), vec!["-c".to_owned(), say.to_owned()]);
    let known = Authentication::Exec { command, arguments, lifetime: Duration::from_secs(3600) };
    let door = DoorOptions { htpasswd: Some(htpasswd), ..DoorOptions::default() };
    let setup = Setup::default().authentication(known).door(&door).tag_ttl(Duration::from_secs(60));
    let (upstream, gateway, _) = stage(setup).await;
    let challenge = format!("Bearer realm=\"{}/token\",service=\"registry\"", upstream.url());
    upstream.contents().close(&challenge);
    upstream.contents().mint_for(&basic("gate", "pw"));
    let before = gateway.metrics();
    let pull = |login: &str| Client::docker_17().get(&tagged()).header("Authorization", login);
    assert_eq!(gateway.send(&pull(&basic("alice", "wrong"))).await.status, 401);
    assert_eq!(gateway.send(&pull(&basic("alice", ALICES))).await.status, 200);
    seen.moved(
        &gateway,
        &before,
        &[
            ("auth_decisions_total{mode=\"authorization\",decision=\"refused\"}", 1.0),
            ("auth_decisions_total{mode=\"authorization\",decision=\"admitted\"}", 1.0),
            ("http_requests_total{upstream=\"none\",route=\"manifest_tag\",method=\"GET\",code=\"401\"}", 1.0),
            ("upstream_token_requests_total{upstream=\"default\",result=\"ok\"}", 1.0),
            ("cache_requests_total{cache=\"token\",result=\"miss\"}", 1.0),
            ("cache_requests_total{cache=\"tag\",result=\"miss\"}", 1.0),
        ],
    )
    .await;
    seen.rose(&gateway, &before, &["cache_requests_total{cache=\"token\",result=\"hit\"}"]).await;
    let expiry = "upstream_credential_expiry_timestamp_seconds{upstream=\"default\"}";
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let left = value(&gateway.metrics(), expiry).unwrap() - now;
    assert!((3000.0..=3600.0).contains(&left), "{left}");
    seen.note(expiry);
    gateway.metrics()
}

async fn crowds(seen: &mut Seen) -> String {
    let (upstream, gateway, image) = stage(Setup::default()).await;
    let config = format!("/v2/{REPOSITORY}/blobs/{}", image.config_digest());
    let gate = upstream.when("GET", &config).hold();
    let before = gateway.metrics();
    let ask = || Client::docker_1_9_1().get(&tagged());
    let mut first = ask().open(gateway.address()).await;
    gate.reached(1).await;
    seen.moved(&gateway, &before, &[("singleflight_inflight{cache=\"derived\"}", 1.0)]).await;
    let mut second = ask().open(gateway.address()).await;
    upstream.arrived(2, "HEAD", &tagged()).await;
    // The second waits for the first from here on, or a moment later.
    until("the second to wait", async || {
        value(&gateway.metrics(), "cache_requests_total{cache=\"manifest\",result=\"hit\"}") == Some(1.0)
    })
    .await;
    tokio::task::yield_now().await;
    gate.open();
    first.rest().await;
    second.rest().await;
    assert_eq!((first.reply(false).status, second.reply(false).status), (200, 200));
    seen.moved(&gateway, &before, &[("singleflight_inflight{cache=\"derived\"}", 0.0)]).await;
    seen.rose(&gateway, &before, &["singleflight_followers_total{cache=\"derived\",outcome=\"served\"}"]).await;
    gateway.metrics()
}

/// Clients that have too many connections, or ask for nothing over them.
async fn connections(seen: &mut Seen) -> String {
    let limits = Limits { connections_per_address: Some(1), ..Limits::default() };
    let (_upstream, gateway, _) = stage(Setup::default().within(limits)).await;
    let connect = |gateway: &Gateway| TcpStream::connect(gateway.address());
    let before = gateway.metrics();
    let only = connect(&gateway).await.unwrap();
    seen.moved(&gateway, &before, &[("connections_open", 1.0)]).await;
    let _refused = connect(&gateway).await.unwrap();
    seen.moved(&gateway, &before, &[("connections_refused_total{reason=\"address\"}", 1.0)]).await;
    drop(only);
    seen.moved(&gateway, &before, &[("connections_open", 0.0)]).await;

    let limits = Limits { connections: 1, header_timeout: Duration::from_millis(300), ..Limits::default() };
    let (_upstream, gateway, _) = stage(Setup::default().within(limits)).await;
    let before = gateway.metrics();
    let _both = (connect(&gateway).await.unwrap(), connect(&gateway).await.unwrap());
    let series = [("connections_waited_total", 1.0), ("connections_cut_total{reason=\"head\"}", 2.0)];
    seen.moved(&gateway, &before, &series).await;
    gateway.metrics()
}

async fn kept_blobs(seen: &mut Seen) -> String {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::start().await;
    let options = BlobCacheOptions::new(folder.path().to_owned(), BLOBS_BYTES);
    let gateway = started(Setup::default().blob_cache(options), &upstream).await;
    let digest = upstream.contents().put_blob(REPOSITORY, vec![1; 1000].into());
    let blob = format!("/v2/{REPOSITORY}/blobs/{digest}");
    for series in
        ["blob_cache_requests_total{result=\"hit\"}", "blob_cache_fills_total{result=\"kept\"}", "blob_cache_bytes"]
    {
        // A fill ends when it does, and until then it is shared.
        until(series, async || {
            gateway.get(&Client::docker_17(), &blob).await;
            value(&gateway.metrics(), series) > Some(0.0)
        })
        .await;
        seen.note(series);
    }
    // Other bytes of the same length are not what the name says.
    for file in every_file(folder.path()) {
        let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
        std::fs::write(&file, vec![2; length]).unwrap();
    }
    // The connection breaks, before the head of an answer too.
    Client::docker_17().get(&blob).open(gateway.address()).await.rest().await;
    seen.rose(&gateway, "", &["blob_cache_damaged_total"]).await;
    let mut number = 0_u8;
    until("a blob to make room", async || {
        number += 1;
        let digest = upstream.contents().put_blob(REPOSITORY, vec![number; 1 << 19].into());
        let blob = format!("/v2/{REPOSITORY}/blobs/{digest}");
        gateway.get(&Client::docker_17(), &blob).await;
        value(&gateway.metrics(), "blob_cache_evictions_total") > Some(0.0)
    })
    .await;
    seen.note("blob_cache_evictions_total");
    gateway.metrics()
}

fn every_file(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { every_file(&path) } else { vec![path] }).collect()
}

/// A memory and a store that are too small for what is pulled.
async fn overflows(seen: &mut Seen) -> String {
    let (upstream, gateway, _) = stage(Setup::default().cache_bytes(16 << 10)).await;
    let day = Duration::from_secs(24 * 3600);
    let bounds = Bounds { documents_bytes_max: Some(1), recipes_max: 1, recipe_age_max: day, ..Bounds::default() };
    let tending = tokio::spawn(gateway.service().shared().clone().tend_store(bounds));
    for series in ["cache_evictions_total{cache=\"manifest\"}", "store_removed_objects_total{kind=\"document\"}"] {
        let mut number = 0;
        until(series, async || {
            number += 1;
            let image = Image::classic(&format!("app-{number}"));
            upstream.put_image(REPOSITORY, TAG, &image, &image.oci());
            assert_eq!(gateway.get(&Client::docker_1_9_1(), &tagged()).await.status, 200);
            value(&gateway.metrics(), series) > Some(0.0)
        })
        .await;
        seen.note(series);
    }
    tending.abort();
    gateway.metrics()
}

/// The names of all families, and every value of a label.
fn families(text: &str) -> BTreeSet<String> {
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE schemabridge_")?.split(' ').next());
    names.map(|name| name.strip_suffix("_total").unwrap_or(name).to_owned()).collect()
}

/// No value of a label says what is private.
fn assert_bounded(text: &str) {
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.contains(CERTIFICATES)) {
        let labels = line.split_once('{').map_or("", |(_, rest)| rest.rsplit_once('}').unwrap().0);
        for value in labels.split('"').skip(1).step_by(2) {
            let is_digest = value.contains("sha256") || value.len() >= 64;
            let is_named = value.contains('/') || value.contains("kept-apart") || value.contains(TAG);
            assert!(!is_digest && !is_named, "{line}");
        }
    }
}

/// Layers that are read and made.
async fn layers(seen: &mut Seen) -> String {
    let upstream = Upstream::start().await;
    let image = image("amd64", &[(Kind::Zstd, &archive("etc/one", &noise(1, 300_000)))]);
    upstream.put_image(REPOSITORY, TAG, &image, &image.oci());
    let gateway = Setup::default().transcode_zstd().before(&upstream).await;
    let held = upstream.when("GET", &format!("/v2/{REPOSITORY}/blobs/{}", image.layers[0].digest)).hold_body(1000);
    let before = gateway.metrics();
    let client = Client::docker_20_10();
    let asked = async {
        held.reached(1).await;
        seen.moved(&gateway, &before, &[("layers_in_work", 1.0)]).await;
        held.open();
    };
    let target = tagged();
    let (reply, ()) = tokio::join!(gateway.get(&client, &target), asked);
    let size = reply.json()["layers"][0]["size"].as_f64().unwrap();
    let made = [
        ("layer_reads_total{result=\"read\"}", 1.0),
        ("transcode_bytes_total{from=\"zstd\",to=\"gzip\"}", size),
        ("layers_in_work", 0.0),
    ];
    seen.moved(&gateway, &before, &made).await;
    seen.rose(&gateway, &before, &["transcode_seconds_total"]).await;
    gateway.metrics()
}

#[tokio::test]
async fn every_metric_moves_and_none_is_there_that_nothing_moves() {
    let mut seen = Seen::default();
    let mut all = String::new();
    all += &translations(&mut seen).await;
    all += &bodies(&mut seen).await;
    all += &faults(&mut seen).await;
    all += &logins(&mut seen).await;
    all += &crowds(&mut seen).await;
    all += &connections(&mut seen).await;
    all += &kept_blobs(&mut seen).await;
    all += &overflows(&mut seen).await;
    all += &layers(&mut seen).await;
    let (upstream, _) = Upstream::with_app().await;
    let authority = Authority::new();
    let Files { chain, key } = authority.issue(&["gateway.test"]);
    let tls = ["--tls-cert", chain.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let own = ["--upstream", &upstream.url(), "--store", "memory:"];
    let process = Process::serve(&[&own, &tls[..]].concat(), &[]).await;
    let shown = process.metrics().await;
    // Its test is tests/reload.rs.
    for name in ["build_info", "config_reloads", "config_last_reload_success_timestamp_seconds"] {
        seen.note(name);
    }
    assert!(families(&shown).contains(CERTIFICATES));
    all += &shown;
    assert_bounded(&all);
    let mut unmoved = families(&all);
    unmoved.retain(|name| !seen.0.contains(name));
    for (name, tests) in MOVED_ELSEWHERE {
        assert!(tests.contains(name), "no test moves {name}");
        unmoved.remove(name);
    }
    assert!(unmoved.is_empty(), "nothing moved {unmoved:?}");
    assert_documented(&all);
}

/// The table of the documentation has every family that is shown, with its labels, and no other.
fn assert_documented(text: &str) {
    let documented = crate::documentation::metrics();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let shown: BTreeSet<(&str, &str)> =
        types.map(|(name, kind)| (name.strip_suffix("_total").unwrap_or(name), kind)).collect();
    for (name, kind) in &shown {
        let labels = documented.get(*name).unwrap_or_else(|| panic!("{name} is not documented"));
        let is_series = |end: &str| ["", "_total", "_count"].contains(&end);
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, _)) =
                line.split_once('{').filter(|(series, _)| series.strip_prefix(name).is_some_and(is_series))
            else {
                continue;
            };
            let pairs = line[series.len() + 1..].rsplit_once('}').unwrap().0;
            let found: Vec<&str> = pairs.split("\",").map(|pair| pair.split_once('=').unwrap().0).collect();
            assert_eq!(labels.iter().map(String::as_str).collect::<Vec<_>>(), found, "the labels of the {kind} {name}");
        }
    }
    let names: BTreeSet<&str> = shown.iter().map(|(name, _)| *name).collect();
    let gone: Vec<_> = documented.keys().filter(|name| !names.contains(name.as_str())).collect();
    assert!(gone.is_empty(), "there is no {gone:?}");
}

#[tokio::test]
async fn the_process_is_shown_by_the_names_that_every_program_has() {
    let (upstream, _) = Upstream::with_app().await;
    let process = Process::serve(&["--upstream", &upstream.url(), "--store", "memory:"], &[]).await;
    let shown = process.metrics().await;
    let value = |name: &str| -> f64 {
        let found = shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("no {name} in {shown}")).parse().unwrap()
    };
    let page = value("process_resident_memory_bytes");
    assert!((1e6..1e9).contains(&page) && value("process_virtual_memory_bytes") >= page);
    assert!(value("process_open_fds") >= 5.0 && value("process_open_fds") < value("process_max_fds"));
    assert!(value("process_threads") >= 2.0 && value("process_cpu_seconds_total") < 60.0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - value("process_start_time_seconds")).abs() < 120.0, "{}", value("process_start_time_seconds"));
    let build = format!("schemabridge_build_info{{version=\"{}\",edition=\"1\"}} 1\n", env!("CARGO_PKG_VERSION"));
    assert!(shown.contains(&build), "{shown}");
}

/// What a client makes up is no label.
#[tokio::test]
async fn what_nobody_knows_is_counted_as_other() {
    let (_, gateway, _) = stage(Setup::default()).await;
    for method in ["BREW", "GETGET", "OPTIONS"] {
        gateway.send(&Call::new(method, &tagged())).await;
    }
    let series = "http_requests_total{upstream=\"default\",route=\"manifest_tag\",method=\"other\",code=\"405\"}";
    until(series, async || value(&gateway.metrics(), series) == Some(3.0)).await;
    assert!(!gateway.metrics().contains("BREW"));
}

/// Alerts rise from these.
#[tokio::test]
async fn what_alerts_rest_on_is_shown_from_the_start() {
    let (_, gateway, _) = stage(Setup::default()).await;
    let shown = gateway.metrics();
    for series in [
        "derived_digest_requests_total{upstream=\"default\",result=\"lost\"}",
        "upstream_errors_total{upstream=\"default\",type=\"5xx\"}",
        "upstream_errors_total{upstream=\"default\",type=\"digest_mismatch\"}",
        "upstream_breaker_state{upstream=\"default\"}",
        "store_damaged_objects_total",
    ] {
        assert_eq!(value(&shown, series), Some(0.0), "{series}");
    }
}

/// Both forms hold the same series; each calls a counter by the name that its readers look for.
#[tokio::test]
async fn the_text_is_in_the_form_that_is_asked_for() {
    let (upstream, _) = Upstream::with_app().await;
    let process = Process::serve(&["--upstream", &upstream.url(), "--store", "memory:"], &[]).await;
    let ask = |accept: &str| Call::new("GET", "/metrics").header("Accept", accept);
    let prometheus = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    for (accept, is_open) in
        [(prometheus, true), ("*/*", false), ("text/plain", false), ("application/openmetrics-text;q=0", false)]
    {
        let reply = ask(accept).send(process.admin).await;
        let (content_type, text) = (reply.content_type().to_owned(), reply.text());
        let expected =
            if is_open { "application/openmetrics-text; version=1.0.0" } else { "text/plain; version=0.0.4" };
        assert!(content_type.starts_with(expected), "{accept}: {content_type}");
        assert_eq!(text.ends_with("# EOF\n"), is_open, "{accept}");
        let end = if is_open { "" } else { "_total" };
        assert!(
            text.contains(&format!("# TYPE schemabridge_store_damaged_objects{end} counter\n")),
            "{accept}: {text}"
        );
        assert!(text.contains("\nschemabridge_store_damaged_objects_total 0\n"));
        assert!(text.contains("# TYPE schemabridge_upstream_breaker_state gauge\n"));
    }
}
