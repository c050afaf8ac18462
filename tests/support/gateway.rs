//! The gateway under test, started in this process in front of an in-process upstream.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use schemabridge::gateway::{self, ChallengeMode, Consent, IndexLimits, Options, Pushes};
use schemabridge::negotiate::{PlatformRule, WithoutAccept};
use schemabridge::server;
use schemabridge::store::Location;
use schemabridge::store::blobs::BlobCacheOptions;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::client::{Call, Client, Reply};
use super::upstream::Upstream;

/// The settings of one gateway; what is not said stays at its default.
#[derive(Default)]
pub struct Setup {
    changes: Vec<Change>,
}

type Change = Box<dyn FnOnce(&mut Options)>;

impl Setup {
    fn with(mut self, change: impl FnOnce(&mut Options) + 'static) -> Self {
        self.changes.push(Box::new(change));
        self
    }

    /// Keeps what outlives the process in this directory.
    pub fn store_in(self, directory: &Path) -> Self {
        let directory = directory.to_owned();
        self.with(|options| options.store = Location::Directory(directory))
    }

    /// Keeps blobs.
    pub fn blob_cache(self, cache: BlobCacheOptions) -> Self {
        self.with(|options| options.blob_cache = Some(cache))
    }

    /// Gives out kept blobs without asking the upstream.
    pub fn consent_given(self) -> Self {
        self.with(|options| options.blob_consent = Consent::Given)
    }

    /// Remembers one caller's answer for so long.
    pub fn tag_ttl(self, ttl: Duration) -> Self {
        self.with(move |options| options.tag_ttl = ttl)
    }

    /// Lets pushes through.
    pub fn push(self) -> Self {
        self.with(|options| options.pushes = Pushes::Forwarded)
    }

    /// Points challenges at the gateway's own `/token`.
    pub fn rewrite_challenges(self) -> Self {
        self.with(|options| options.challenge = ChallengeMode::Rewrite)
    }

    /// The URL that clients know the gateway by.
    pub fn external_url(self, url: &str) -> Self {
        let url = url.parse().unwrap();
        self.with(|options| options.external_url = Some(url))
    }

    /// Believes `X-Forwarded-Proto` from these addresses.
    pub fn trust_proxies(self, network: &str) -> Self {
        let network = network.parse().unwrap();
        self.with(move |options| options.trusted_proxies = vec![network])
    }

    /// Allows a token service beyond the upstream's own host.
    pub fn token_realm(self, url: &str) -> Self {
        let url = url.parse().unwrap();
        self.with(|options| options.upstream.token_realm = Some(url))
    }

    /// Gives unknown clients without an Accept header schema 1.
    pub fn schema1_without_accept(self) -> Self {
        self.with(|options| options.policy.without_accept = WithoutAccept::Schema1)
    }

    /// Fixes this platform for the repositories that match, whatever a client says of its own.
    pub fn platform(self, repositories: &str, platform: &str) -> Self {
        let rule = PlatformRule { repositories: repositories.parse().unwrap(), platform: platform.parse().unwrap() };
        self.with(|options| options.policy.platforms.push(rule))
    }

    /// Tries the variants of arm in this order; an empty word is an entry without one.
    pub fn arm_variants(self, variants: &[&str]) -> Self {
        let variants = variants.iter().map(|word| Some((*word).to_owned()).filter(|word| !word.is_empty())).collect();
        self.with(|options| options.policy.arm_variants = variants)
    }

    /// Takes lists and indexes apart within these limits.
    pub fn index_limits(self, limits: IndexLimits) -> Self {
        self.with(move |options| options.index = limits)
    }

    /// Starts the gateway.
    pub async fn before(self, upstream: &Upstream) -> Gateway {
        let mut options = Options::for_upstream(upstream.url().parse().unwrap());
        self.changes.into_iter().for_each(|change| change(&mut options));
        let gateway = gateway::Gateway::start(options).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move {
            // A gateway that is dropped ends as one that is told to stop.
            let _dropped = stopped.await;
        };
        let serving = tokio::spawn(server::serve(listener, gateway, shutdown));
        Gateway { address, stop: Some(stop), serving: Some(serving) }
    }
}

/// A running gateway. Ends when dropped; [`Gateway::stop`] waits until it has ended.
pub struct Gateway {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
}

impl Gateway {
    /// A gateway with every setting at its default and a store in memory.
    pub async fn before(upstream: &Upstream) -> Self {
        Setup::default().before(upstream).await
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends the call and reads the whole answer.
    pub async fn send(&self, call: &Call) -> Reply {
        call.send(self.address).await
    }

    /// GET of this target as this client.
    pub async fn get(&self, client: &Client, target: &str) -> Reply {
        client.get(target).send(self.address).await
    }

    /// HEAD of this target as this client.
    pub async fn head(&self, client: &Client, target: &str) -> Reply {
        client.head(target).send(self.address).await
    }

    /// HEAD and GET of a manifest, which must agree in everything but the body; returns the GET's answer after a look at
    /// what every answer to a manifest request must be.
    pub async fn manifest(&self, client: &Client, target: &str) -> Reply {
        let head = self.head(client, target).await;
        let got = self.get(client, target).await;
        let compared = |reply: &Reply| {
            let mut headers = reply.headers.clone();
            for (name, _) in &mut headers {
                name.make_ascii_lowercase();
            }
            headers.retain(|(name, _)| name != "date");
            headers.sort();
            (reply.status, headers)
        };
        assert_eq!(compared(&head), compared(&got), "HEAD and GET of {target} differ");
        assert!(head.body.is_empty() && head.is_whole && got.is_whole);
        assert_eq!(got.header("content-length"), Some(got.body.len().to_string().as_str()));
        assert_eq!(got.header("docker-distribution-api-version"), Some("registry/2.0"));
        assert_eq!(got.header("content-encoding"), None);
        assert_eq!(got.header("transfer-encoding"), None);
        if got.status == 200 {
            let digest = got.digest();
            assert_eq!(got.header("etag"), Some(format!("\"{digest}\"").as_str()));
            assert!(!got.content_type().contains(';'), "{}", got.content_type());
            let named = if got.content_type() == super::images::SCHEMA1_SIGNED {
                super::sha256(&super::images::payload(&got.body))
            } else {
                super::sha256(&got.body)
            };
            assert_eq!(digest, named, "the digest of {target}");
        } else {
            got.error();
        }
        got
    }

    /// Stops serving and waits for the end.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            let _already_over = stop.send(());
        }
        if let Some(serving) = self.serving.take() {
            super::patiently("the gateway's end", serving).await.unwrap();
        }
    }
}
