use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::*;

const CONTENT: &[u8] = b"0123456789";

fn cache(folder: &tempfile::TempDir) -> BlobCache {
    let cache = BlobCache::open(&BlobCacheOptions::new(folder.path().to_owned(), 100)).unwrap();
    while cache.0.change(|state| state.census == Census::UnderWay) {
        std::thread::yield_now();
    }
    cache
}

/// The upstream's body in these pieces.
fn body(pieces: &[&'static [u8]]) -> StreamedBody {
    let pieces: Vec<_> = pieces.iter().map(|piece| Ok::<_, std::io::Error>(Bytes::from_static(piece))).collect();
    StreamedBody::new(reqwest::Body::wrap_stream(futures_util::stream::iter(pieces)), Duration::from_secs(60))
}

async fn lead(cache: &BlobCache, digest: &Digest) -> Lead {
    match cache.claim(digest).await {
        Claim::Lead(lead) => lead,
        other => panic!("{other:?}"),
    }
}

fn metrics(cache: &BlobCache) -> String {
    let (mut registry, mut text) = (Registry::default(), String::new());
    cache.metrics().register(&mut registry);
    encode(&mut text, &registry).unwrap();
    text
}

/// `/dev/full` takes nothing: every write is one to a disk that is full.
#[tokio::test]
async fn a_disk_that_is_full_does_not_stop_the_one_who_reads() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(&folder);
    let digest = Digest::sha256(CONTENT);
    let lead = lead(&cache, &digest).await;
    let device = std::fs::File::options().read(true).write(true).open("/dev/full").unwrap();
    let hold = lead.place.shared.make_room(&digest, 10).await.unwrap();
    let fill = Arc::new(Fill::new(device, 10, hold, EndsWith(lead.ended.clone())));
    let pouring = fill.pour(body(&[b"0123", b"456789"]), &digest, &lead.stop).await.unwrap_err();
    assert!(matches!(pouring, Broken::Disk(_)), "{pouring}");
    fill.breaks(pouring);
    let second = lead.place.shared.change(|state| state.slots.get(&digest).unwrap().audience.join());
    let follower = reading::follow(Arc::clone(&fill), second);
    let leader = reading::follow(fill, lead.seat);
    assert_eq!(leader.collect().await.unwrap().to_bytes(), CONTENT);
    assert!(matches!(follower.collect().await, Err(Broken::Disk(_))), "two cannot read one answer of the upstream");
    assert_eq!(cache.0.change(|state| state.ledger.bytes()), 0);
}

/// A client that has as many bytes as were announced hears nothing that comes after them.
#[tokio::test]
async fn the_last_byte_waits_for_the_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(&folder);
    for (content, is_right) in [(b"0123456789", true), (b"0123456780", false)] {
        let digest = Digest::sha256(if is_right { content } else { b"something else" });
        let (end, ending) = oneshot::channel::<Result<Bytes, std::io::Error>>();
        let first = futures_util::stream::iter([Ok(Bytes::from_static(content))]);
        let last = futures_util::stream::once(async { ending.await.unwrap() });
        let pieces = reqwest::Body::wrap_stream(futures_util::StreamExt::chain(first, last));
        let body = StreamedBody::new(pieces, Duration::from_secs(60));
        let mut reading = lead(&cache, &digest).await.fill(10, body).await.ok().unwrap();
        let begun = reading.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(begun, &content[..9]);
        end.send(Ok(Bytes::new())).unwrap();
        match reading.frame().await {
            Some(Ok(frame)) => assert!(is_right && frame.into_data().unwrap() == content[9..]),
            other => assert!(!is_right && matches!(other, Some(Err(Broken::Upstream(_))))),
        }
    }
}

#[tokio::test]
async fn what_happens_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(&folder);
    let digest = Digest::sha256(CONTENT);
    let reading = lead(&cache, &digest).await.fill(10, body(&[CONTENT])).await.ok().unwrap();
    assert!(metrics(&cache).contains("blob_cache_bytes 10\n"), "what is on its way counts");
    let Claim::Follow(_) = cache.claim(&digest).await else { panic!("nothing is under way") };
    assert_eq!(reading.collect().await.unwrap().to_bytes(), CONTENT);
    let kept = loop {
        match cache.claim(&digest).await {
            Claim::Kept(kept) => break kept,
            _ => tokio::task::yield_now().await,
        }
    };
    assert_eq!(kept.read(0..10).collect().await.unwrap().to_bytes(), CONTENT);
    let other = Digest::sha256(b"other");
    assert!(lead(&cache, &other).await.fill(26, body(&[CONTENT])).await.is_err(), "more than a quarter of the cap");
    let spoilt = lead(&cache, &other).await.fill(5, body(&[b"OTHER"])).await.ok().unwrap();
    assert!(matches!(spoilt.collect().await, Err(Broken::Upstream(_))));
    let text = metrics(&cache);
    for line in [
        "blob_cache_requests_total{result=\"miss\"} 3",
        "blob_cache_requests_total{result=\"hit\"} 1",
        "blob_cache_fills_total{result=\"kept\"} 1",
        "blob_cache_fills_total{result=\"no_room\"} 1",
        "blob_cache_damaged_total 0",
        "blob_cache_evictions_total 0",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    std::fs::write(
        folder.path().join(format!("v1/blobs/{}/sha256-{}", &digest.hex()[..2], digest.hex())),
        b"1123456789",
    )
    .unwrap();
    let kept = cache.find(&digest).await.unwrap();
    assert_eq!(kept.size(), 10);
    assert!(matches!(kept.read(0..10).collect().await, Err(Broken::Damaged)));
    assert!(metrics(&cache).contains("blob_cache_damaged_total 1"));
    assert!(cache.find(&digest).await.is_none());
}

#[tokio::test]
async fn a_part_of_a_blob_ends_where_it_should() {
    let folder = tempfile::tempdir().unwrap();
    let cache = cache(&folder);
    let digest = Digest::sha256(CONTENT);
    drop(lead(&cache, &digest).await.fill(10, body(&[CONTENT])).await.ok().unwrap().collect().await);
    let kept = loop {
        match cache.find(&digest).await {
            Some(kept) => break kept,
            None => tokio::task::yield_now().await,
        }
    };
    let part = kept.read(3..7);
    assert_eq!(http_body::Body::size_hint(&part).exact(), Some(4));
    assert_eq!(part.collect().await.unwrap().to_bytes(), &CONTENT[3..7]);
}
