//! What the layers of a schema 1 hold is learnt while Docker before 1.10 uploads them, so that its push need not wait for them to
//! be read again. An upload is never changed by that.

use std::io::Write as _;

use bytes::Bytes;
use schemabridge::image::manifest::Manifest;
use schemabridge::translate::{SigningKey, signed};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::client::{Call, Client, Reply, raw};
use crate::support::fault::Answer;
use crate::support::gateway::{Gateway, Setup};
use crate::support::images::SCHEMA1_SIGNED;
use crate::support::layers::{archive, gzip, noise, schema1};
use crate::support::upstream::Upstream;
use crate::support::{patiently, sha256};

const UPLOADS: &str = "/v2/app/blobs/uploads/";
const UPLOADED: &str = "schemabridge_layer_reads_total{result=\"uploaded\"}";

/// How an upload comes.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// POST, one PATCH whose length nobody says, PUT: Docker 1.6 to 1.9.
    Streamed,
    /// POST, a PATCH for each so many bytes, PUT with the rest.
    InChunks(usize),
    /// POST, PUT.
    InThePut,
    /// POST.
    AtOnce,
}

struct Stage {
    upstream: Upstream,
    gateway: Gateway,
    client: Client,
    /// As the upstream names it.
    repository: &'static str,
    archives: [Vec<u8>; 2],
    layers: [Bytes; 2],
}

impl Stage {
    async fn new() -> Self {
        Self::as_client(Client::docker_1_9_1()).await
    }

    async fn as_client(client: Client) -> Self {
        let upstream = Upstream::start().await;
        upstream.contents().refuses_schema1 = Some((400, "MANIFEST_INVALID"));
        let archives = [archive("etc/one", &noise(1, 600_000)), archive("etc/two", b"two")];
        let layers = archives.each_ref().map(|archive| gzip(archive));
        let gateway = Setup::default().push().before(&upstream).await;
        Self { upstream, gateway, client, repository: "app", archives, layers }
    }

    fn digest(&self, layer: usize) -> String {
        sha256(&self.layers[layer])
    }

    async fn send(&self, method: &str, target: &str, body: &[u8]) -> Reply {
        self.gateway.send(&self.client.call(method, target).body(body)).await
    }

    /// Where the upload goes on, as this answer says.
    fn next(&self, reply: &Reply) -> String {
        let location = reply.header("location").unwrap_or_else(|| panic!("{} {}", reply.status, reply.text()));
        location.strip_prefix(&format!("http://{}", self.gateway.address())).unwrap().to_owned()
    }

    async fn begin(&self) -> String {
        let begun = self.send("POST", UPLOADS, b"").await;
        assert_eq!(begun.status, 202, "{}", begun.text());
        self.next(&begun)
    }

    async fn patch(&self, target: &str, first: usize, bytes: &[u8]) -> Reply {
        let range = format!("{first}-{}", first + bytes.len() - 1);
        let call = self.client.call("PATCH", target).header("Content-Range", &range);
        self.gateway.send(&call.body(bytes)).await
    }

    /// The last request of an upload that stands there.
    async fn finish(&self, target: &str, layer: usize, rest: &[u8]) {
        let done = self.send("PUT", &format!("{target}&digest={}", self.digest(layer)), rest).await;
        assert_eq!((done.status, done.digest()), (201, self.digest(layer).as_str()), "{}", done.text());
    }

    async fn upload(&self, layer: usize, way: Way) {
        let bytes = self.layers[layer].clone();
        match way {
            Way::Streamed => {
                let target = self.begin().await;
                let user_agent = self.client.user_agent.clone().unwrap();
                let mut request = format!(
                    "PATCH {target} HTTP/1.1\r\nHost: {}\r\nUser-Agent: {user_agent}\r\nConnection: close\r\n\
                     Transfer-Encoding: chunked\r\n\r\n",
                    self.gateway.address()
                )
                .into_bytes();
                for chunk in bytes.chunks(10_000) {
                    write!(request, "{:x}\r\n", chunk.len()).unwrap();
                    request.extend_from_slice(chunk);
                    request.extend_from_slice(b"\r\n");
                }
                request.extend_from_slice(b"0\r\n\r\n");
                let answer = raw(self.gateway.address(), &request).await;
                let answer = String::from_utf8_lossy(&answer).into_owned();
                assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
                self.finish(&target, layer, b"").await;
            }
            Way::InChunks(length) => {
                let mut target = self.begin().await;
                let last = bytes.len().div_ceil(length) - 1;
                for (position, chunk) in bytes.chunks(length).enumerate() {
                    if position == last {
                        return self.finish(&target, layer, chunk).await;
                    }
                    let patched = self.patch(&target, position * length, chunk).await;
                    assert_eq!(patched.status, 202, "{}", patched.text());
                    target = self.next(&patched);
                }
            }
            Way::InThePut => {
                let target = self.begin().await;
                self.finish(&target, layer, &bytes).await;
            }
            Way::AtOnce => {
                let done = self.send("POST", &format!("{UPLOADS}?digest={}", self.digest(layer)), &bytes).await;
                assert_eq!((done.status, done.digest()), (201, self.digest(layer).as_str()), "{}", done.text());
            }
        }
    }

    /// Pushes the schema 1 over both layers, and looks at what is stored in its place.
    async fn push(&self) {
        let document = schema1(&[&self.digest(0), &self.digest(1)]);
        let key = SigningKey::generate([7; 32]).unwrap();
        let pushed = signed(&Manifest::parse(document.bytes).unwrap(), &key);
        let call = self.client.call("PUT", "/v2/app/manifests/latest").header("Content-Type", SCHEMA1_SIGNED);
        let put = self.gateway.send(&call.body(pushed.to_vec())).await;
        assert_eq!(put.status, 201, "{}", put.text());
        let manifest = self.upstream.contents().manifest(self.repository, "latest").unwrap().json();
        let config =
            self.upstream.contents().blob(self.repository, manifest["config"]["digest"].as_str().unwrap()).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        let diff_ids = self.archives.each_ref().map(|archive| sha256(archive));
        assert_eq!(config["rootfs"]["diff_ids"], serde_json::json!(diff_ids));
        for (layer, bytes) in self.layers.iter().enumerate() {
            assert_eq!(manifest["layers"][layer]["size"], bytes.len());
            assert_eq!(self.upstream.contents().blob(self.repository, &self.digest(layer)).as_ref(), Some(bytes));
        }
    }

    /// How often the upstream was asked for this layer's bytes.
    fn reads(&self, layer: usize) -> usize {
        self.upstream.requests_to("GET", &format!("/v2/{}/blobs/{}", self.repository, self.digest(layer))).len()
    }
}

#[tokio::test]
async fn what_docker_1_9_uploads_is_not_read_again() {
    let ways = [Way::Streamed, Way::InChunks(150_000), Way::InThePut, Way::AtOnce];
    for way in ways {
        let stage = Stage::new().await;
        for layer in 0..2 {
            stage.upload(layer, way).await;
        }
        stage.push().await;
        assert_eq!((stage.reads(0), stage.reads(1)), (0, 0), "{way:?}");
        assert_eq!(stage.gateway.metric(UPLOADED), 2, "{way:?}");
        assert_eq!(stage.gateway.metric("schemabridge_layers_in_work"), 0);
    }
}

#[tokio::test]
async fn what_was_uploaded_is_known_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut stage = Stage::new().await;
    for part in 0..2 {
        stage.gateway = Setup::default().push().store_in(directory.path()).before(&stage.upstream).await;
        stage.upload(part, Way::Streamed).await;
        let kept = async {
            while stage.gateway.metric(UPLOADED) < 1 {
                tokio::task::yield_now().await;
            }
        };
        patiently("what was learnt to be kept", kept).await;
    }
    stage.push().await;
    assert_eq!((stage.reads(0), stage.reads(1)), (0, 0));
}

/// Later engines push schema 1 only to a registry that takes nothing else.
#[tokio::test]
async fn what_others_upload_is_read_when_it_is_wanted() {
    for client in [Client::docker_17(), Client::new("skopeo/1.9.3", &[])] {
        let stage = Stage::as_client(client).await;
        stage.upload(0, Way::Streamed).await;
        stage.upload(1, Way::InThePut).await;
        stage.push().await;
        assert_eq!((stage.reads(0), stage.reads(1)), (1, 1));
        assert_eq!(stage.gateway.metric(UPLOADED), 0);
    }
}

#[tokio::test]
async fn a_part_out_of_its_place_is_read_again() {
    for wrong in ["1-100000", "100000", "bytes=0-", "0-100000"] {
        let stage = Stage::new().await;
        let (first, rest) = stage.layers[0].split_at(100_000);
        let target = stage.begin().await;
        let patched = stage.patch(&target, 0, first).await;
        let target = stage.next(&patched);
        let call = stage.client.call("PATCH", &target).header("Content-Range", wrong);
        let patched = stage.gateway.send(&call.body(rest)).await;
        assert_eq!(patched.status, 202, "what the upstream takes is the upstream's to say");
        stage.finish(&stage.next(&patched), 0, b"").await;
        stage.upload(1, Way::Streamed).await;
        stage.push().await;
        assert_eq!((stage.reads(0), stage.reads(1)), (1, 0), "{wrong}");
    }
}

#[tokio::test]
async fn an_upload_that_broke_off_is_read_again_or_measured_anew() {
    let stage = Stage::new().await;
    let (first, rest) = stage.layers[0].split_at(100_000);
    let begun = stage.begin().await;
    let target = stage.next(&stage.patch(&begun, 0, first).await);
    let gone = stage.upstream.requests().len();
    let mut connection = TcpStream::connect(stage.gateway.address()).await.unwrap();
    let head = format!(
        "PATCH {target} HTTP/1.1\r\nHost: x\r\nUser-Agent: {}\r\nContent-Length: {}\r\n\r\n",
        stage.client.user_agent.clone().unwrap(),
        rest.len()
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(&rest[..rest.len() / 2]).await.unwrap();
    drop(connection);
    let arrived = async {
        while stage.upstream.requests().len() == gone {
            tokio::task::yield_now().await;
        }
    };
    patiently("the upstream to hear of it", arrived).await;
    // The upstream has what came whole, and the client goes on from there.
    let patched = stage.patch(&target, first.len(), rest).await;
    stage.finish(&stage.next(&patched), 0, b"").await;
    assert!(stage.send("PATCH", &stage.begin().await, b"something else").await.status == 202);
    // One that was begun and never came to its end does not stand in the way of the next.
    stage.upload(1, Way::Streamed).await;
    stage.push().await;
    assert_eq!((stage.reads(0), stage.reads(1)), (1, 0));
}

#[tokio::test]
async fn what_turns_out_to_be_another_blob_is_not_kept() {
    let stage = Stage::new().await;
    stage.upload(1, Way::Streamed).await;
    // An upstream that does not look, where the blob is already.
    stage.upstream.contents().put_blob("app", stage.layers[0].clone());
    let target = stage.begin().await;
    stage.upstream.when("PUT", &format!("{UPLOADS}*")).times(1).answer(Answer::new(201));
    let lie = gzip(&archive("etc/lie", b"lie"));
    let done = stage.send("PUT", &format!("{target}&digest={}", stage.digest(0)), &lie).await;
    assert_eq!(done.status, 201);
    stage.push().await;
    assert_eq!((stage.reads(0), stage.reads(1)), (1, 0));
    assert_eq!(stage.gateway.metric(UPLOADED), 1);
}

#[tokio::test]
async fn what_the_upstream_refuses_is_not_kept() {
    let stage = Stage::new().await;
    stage.upload(1, Way::Streamed).await;
    stage.upstream.contents().put_blob("app", stage.layers[0].clone());
    let target = stage.begin().await;
    stage.upstream.when("PUT", &format!("{UPLOADS}*")).times(1).answer(Answer::error(507, "UNKNOWN", "full"));
    let refused = stage.send("PUT", &format!("{target}&digest={}", stage.digest(0)), &stage.layers[0]).await;
    assert_eq!(refused.status, 507);
    stage.push().await;
    assert_eq!((stage.reads(0), stage.reads(1)), (1, 0));
}

/// What is no layer is uploaded like any other blob.
#[tokio::test]
async fn what_cannot_be_read_as_a_layer_passes() {
    let stage = Stage::new().await;
    let bytes = noise(9, 2_000_000);
    let target = stage.begin().await;
    let done = stage.send("PUT", &format!("{target}&digest={}", sha256(&bytes)), &bytes).await;
    assert_eq!(done.status, 201, "{}", done.text());
    assert_eq!(stage.upstream.contents().blob("app", &sha256(&bytes)).unwrap(), bytes);
    assert_eq!(stage.gateway.metric(UPLOADED), 0);
}

/// Uploads that stand still keep their turns for a while: the next ones pass without being measured.
#[tokio::test]
async fn so_many_are_measured_at_a_time_and_the_next_one_passes() {
    const MEASURED_AT_ONCE: usize = 4;
    let stage = Stage::new().await;
    let mut standing = Vec::new();
    for _ in 0..MEASURED_AT_ONCE {
        let begun = stage.begin().await;
        let patched = stage.patch(&begun, 0, &stage.layers[0][..100_000]).await;
        standing.push(stage.next(&patched));
    }
    stage.upload(1, Way::Streamed).await;
    // One of those that are measured comes to its end, and its turn is free.
    stage.finish(&standing[0], 0, &stage.layers[0][100_000..]).await;
    stage.push().await;
    assert_eq!((stage.reads(0), stage.reads(1)), (0, 1));
    assert_eq!(stage.gateway.metric(UPLOADED), 1);
    let deleted = stage.gateway.send(&stage.client.call("DELETE", &standing[1])).await;
    assert_eq!(deleted.status, 204);
    stage.upload(1, Way::InThePut).await;
}

#[tokio::test]
async fn it_holds_where_the_gateway_speaks_for_its_clients() {
    let mut stage = Stage::new().await;
    stage.gateway = Setup::default().push().permission_from_the_gateway().before(&stage.upstream).await;
    for layer in 0..2 {
        stage.upload(layer, Way::InChunks(250_000)).await;
    }
    stage.push().await;
    assert_eq!((stage.reads(0), stage.reads(1)), (0, 0));
}

/// The gateway names the repository otherwise than its clients do.
#[tokio::test]
async fn it_holds_for_a_repository_of_the_library() {
    let mut stage = Stage::new().await;
    stage.repository = "library/app";
    stage.gateway = Setup::default().push().in_library().before(&stage.upstream).await;
    stage.upload(0, Way::InChunks(250_000)).await;
    stage.upload(1, Way::Streamed).await;
    stage.push().await;
    assert_eq!((stage.reads(0), stage.reads(1)), (0, 0));
}

/// What is asked of an upload meanwhile does not end its measurement.
#[tokio::test]
async fn asking_how_far_an_upload_is_changes_nothing() {
    let stage = Stage::new().await;
    let (first, rest) = stage.layers[0].split_at(300_000);
    let begun = stage.begin().await;
    let target = stage.next(&stage.patch(&begun, 0, first).await);
    let said = stage.gateway.send(&Call::new("GET", &target)).await;
    assert_eq!(said.status, 202, "{}", said.text());
    stage.finish(&target, 0, rest).await;
    stage.upload(1, Way::Streamed).await;
    stage.push().await;
    assert_eq!((stage.reads(0), stage.reads(1)), (0, 0));
}
