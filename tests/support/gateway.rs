//! The gateway under test, started in this process in front of an in-process upstream.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use schemabridge::gateway::door::{Door, DoorOptions};
use schemabridge::gateway::service::ServiceOptions;
use schemabridge::gateway::{
    Callers, Catalog, ChallengeMode, IndexLimits, LayerLimits, ManifestLimits, Options, PushAs, Pushes,
    RepositoryRules, Service, SingleNames, TagPolicy,
};
use schemabridge::negotiate::{ClientRule, PlatformRule, Senders, Transcode, Treatment, Upgrade, WithoutAccept};
use schemabridge::server;
use schemabridge::server::limits::{Limits, Places};
use schemabridge::server::tls::TlsOptions;
use schemabridge::store::Location;
use schemabridge::store::blobs::BlobCacheOptions;
use schemabridge::upstream;
use schemabridge::upstream::route::RouteNames;
use schemabridge::upstream::{Authentication, Names, Permission, ProxyUse, Redirects, Tls, UploadLimits};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::client::{Call, Client, Reply};
use super::upstream::Upstream;

/// The settings of one gateway; what is not said stays at its default.
#[derive(Default)]
pub struct Setup {
    changes: Vec<Change>,
    to_clients: Option<server::tls::Tls>,
    places: Option<Limits>,
}

type Change = Box<dyn FnOnce(&mut ServiceOptions)>;

impl Setup {
    fn with_all(mut self, change: impl FnOnce(&mut ServiceOptions) + 'static) -> Self {
        self.changes.push(Box::new(change));
        self
    }

    fn with(self, change: impl FnOnce(&mut Options) + 'static) -> Self {
        self.with_all(|options| change(&mut options.site.upstreams[0].0))
    }

    /// A second upstream, under this name and prefix, also known by this alias and reached at this host.
    pub fn beside(self, name: &str, upstream: &Upstream, alias: &str, host: &str) -> Self {
        let url = upstream.url().parse().unwrap();
        let options = Options { upstream_name: name.to_owned(), ..Options::for_upstream(url) };
        let [prefix, alias, host] = [name, alias, host].map(str::to_owned);
        let names = RouteNames { aliases: vec![alias], hosts: vec![host], prefix: Some(prefix) };
        self.with_all(|all| all.site.upstreams.push((options, names)))
    }

    /// No upstream is meant where a request does not say which.
    pub fn without_default(self) -> Self {
        self.with_all(|options| options.site.default = None)
    }

    /// The prefix that clients may write before the upstream's repositories.
    pub fn prefix(self, prefix: &str) -> Self {
        let prefix = prefix.to_owned();
        self.with_all(|options| options.site.upstreams[0].1.prefix = Some(prefix))
    }

    /// Gives everybody what the gateway itself may see at each upstream so far.
    pub fn permission_from_the_gateway_everywhere(self) -> Self {
        self.with_all(|all| all.site.upstreams.iter_mut().for_each(|(options, _)| ask_for_everybody(options)))
    }

    /// A request without credentials is the gateway's, with these; any other has its own.
    pub fn anonymous_as_gateway(self, authentication: Authentication) -> Self {
        self.with(|options| {
            options.callers = Callers::ThemselvesOrTheGateway;
            options.upstream.authentication = authentication;
        })
    }

    /// Answers the list of all repositories where the gateway speaks for its clients.
    pub fn catalog(self) -> Self {
        self.with(|options| options.catalog = Catalog::Filtered)
    }

    /// Serves only what matches one of the first and none of the second.
    pub fn repositories(self, allow: &[&str], deny: &[&str]) -> Self {
        let globs = |globs: &[&str]| globs.iter().map(|glob| glob.parse().unwrap()).collect();
        let rules = RepositoryRules { allow: globs(allow), deny: globs(deny) };
        self.with(|options| options.repositories = rules)
    }

    /// A repository without a `/` is one of `library/`.
    pub fn in_library(self) -> Self {
        self.with(|options| options.single_names = SingleNames::InLibrary)
    }

    /// The name that `?ns=` calls the upstream by.
    pub fn known_as(self, alias: &str) -> Self {
        let alias = alias.to_owned();
        self.with_all(|options| options.site.upstreams[0].1.aliases.push(alias))
    }

    /// Keeps what outlives the process in this directory.
    pub fn store_in(self, directory: &Path) -> Self {
        let directory = directory.to_owned();
        self.with_all(|options| options.shared.store = Location::Directory(directory))
    }

    /// Keeps documents as another edition of the translator would.
    pub fn edition(self, edition: u32) -> Self {
        self.with_all(move |options| options.shared.edition = edition)
    }

    /// Keeps what outlives the process there.
    pub fn store_at(self, location: Location) -> Self {
        self.with_all(|options| options.shared.store = location)
    }

    /// Keeps what is derived under this name of the upstream.
    pub fn upstream_name(self, name: &'static str) -> Self {
        self.with(|options| options.upstream_name = name.to_owned())
    }

    /// Gives documents so many bytes of memory.
    pub fn cache_bytes(self, bytes: u64) -> Self {
        self.with_all(move |options| options.shared.cache_bytes = bytes)
    }

    /// Keeps blobs.
    pub fn blob_cache(self, cache: BlobCacheOptions) -> Self {
        self.with_all(|options| options.shared.blob_cache = Some(cache))
    }

    /// Remembers one caller's answer for so long.
    pub fn tag_ttl(self, ttl: Duration) -> Self {
        self.with(move |options| options.tags.ttl = ttl)
    }

    /// Gives everybody what the gateway itself may see: what the upstream said once holds for all, and an hour long.
    pub fn permission_from_the_gateway(self) -> Self {
        self.with(ask_for_everybody)
    }

    /// Goes by what the upstream said before as this policy says.
    pub fn tags(self, change: impl FnOnce(&mut TagPolicy) + 'static) -> Self {
        self.with(|options| change(&mut options.tags))
    }

    /// Asks so much of the upstream at once.
    pub fn limits(self, change: impl FnOnce(&mut upstream::Limits) + 'static) -> Self {
        self.with(|options| change(&mut options.upstream.limits))
    }

    /// Gives clients so much.
    pub fn within(self, limits: Limits) -> Self {
        Self { places: Some(limits), ..self }
    }

    /// Works on so many manifests at once.
    pub fn manifests(self, limits: ManifestLimits) -> Self {
        self.with_all(move |options| options.shared.manifests = limits)
    }

    /// Takes uploads within these limits.
    pub fn uploads(self, limits: UploadLimits) -> Self {
        self.with(move |options| options.upstream.uploads = limits)
    }

    /// Waits so long for the head of an answer.
    pub fn answer_timeout(self, timeout: Duration) -> Self {
        self.with(move |options| options.upstream.answer_timeout = timeout)
    }

    /// Lets pushes through.
    pub fn push(self) -> Self {
        self.with(|options| options.pushes = Pushes::Forwarded)
    }

    /// Stores this in the place of a pushed schema 1 that the upstream does not take.
    pub fn push_as(self, format: PushAs) -> Self {
        self.with(move |options| options.push_as = format)
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
        self.with_all(move |options| options.site.trusted_proxies = vec![network])
    }

    /// Allows a token service beyond the upstream's own host.
    pub fn token_realm(self, url: &str) -> Self {
        let url = url.parse().unwrap();
        self.with(|options| options.upstream.token_realms.push(url))
    }

    /// Shows the upstream credentials of the gateway's own.
    pub fn authentication(self, authentication: Authentication) -> Self {
        self.with(|options| {
            options.callers = Callers::TheGateway;
            options.upstream.permission = Permission::Gateway;
            options.upstream.authentication = authentication;
        })
    }

    /// Gives the gateway's own credentials so long to be had.
    pub fn credentials_timeout(self, timeout: Duration) -> Self {
        self.with(move |options| options.upstream.credentials_timeout = timeout)
    }

    /// Puts a door before it.
    pub fn door(self, door: &DoorOptions) -> Self {
        let door = Arc::new(Door::open(door).unwrap());
        self.with_all(|options| options.site.door = Some(door))
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

    /// Treats these clients so, after the rules already there.
    pub fn client_rule(self, senders: Senders, treatment: Treatment) -> Self {
        let rule = ClientRule::new(senders, treatment).unwrap();
        self.with(|options| options.policy.clients.push(rule))
    }

    /// Tries the variants of arm in this order; an empty word is an entry without one.
    pub fn arm_variants(self, variants: &[&str]) -> Self {
        let variants = variants.iter().map(|word| Some((*word).to_owned()).filter(|word| !word.is_empty())).collect();
        self.with(|options| options.policy.arm_variants = variants)
    }

    /// Upgrades stored schema 1.
    pub fn upgrade_schema1(self) -> Self {
        self.with(|options| options.policy.layers.upgrade = Upgrade::Schema1)
    }

    /// Makes gzip layers in the place of zstd ones.
    pub fn transcode_zstd(self) -> Self {
        self.with(|options| options.policy.layers.transcode = Transcode::Zstd)
    }

    /// Works on layers within these limits.
    pub fn layer_limits(self, limits: LayerLimits) -> Self {
        self.with_all(move |options| options.shared.layers = limits)
    }

    /// Takes lists and indexes apart within these limits.
    pub fn index_limits(self, limits: IndexLimits) -> Self {
        self.with(move |options| options.index = limits)
    }

    /// Says which addresses names have, in place of the system, where it is about where they may lead.
    pub fn names(self, tell: impl Fn(&str) -> Vec<IpAddr> + Send + Sync + 'static) -> Self {
        self.with(|options| options.upstream.names = Names::Told(Arc::new(tell)))
    }

    /// What becomes of redirects.
    pub fn redirects(self, redirects: Redirects) -> Self {
        self.with(|options| options.upstream.redirects = redirects)
    }

    /// The hosts to which clients are let go by themselves.
    pub fn redirect_hosts(self, patterns: &[&str]) -> Self {
        let patterns = patterns.iter().map(|pattern| pattern.parse().unwrap()).collect();
        self.with(|options| options.upstream.redirect_hosts = patterns)
    }

    /// TLS to the upstream.
    pub fn tls(self, tls: Tls) -> Self {
        self.with(|options| options.upstream.tls = tls)
    }

    /// TLS to clients.
    pub fn tls_to_clients(self, options: &TlsOptions) -> Self {
        Self { to_clients: Some(server::tls::Tls::read(options).unwrap()), ..self }
    }

    /// The way to the upstream.
    pub fn proxy(self, proxy: ProxyUse) -> Self {
        self.with(|options| options.upstream.proxy = proxy)
    }

    /// Starts the gateway.
    pub async fn before(self, upstream: &Upstream) -> Gateway {
        self.before_url(&upstream.url()).await
    }

    /// Starts the gateway in front of whatever is at this URL.
    pub async fn before_url(self, url: &str) -> Gateway {
        let mut options = ServiceOptions::alone(Options::for_upstream(url.parse().unwrap()));
        self.changes.into_iter().for_each(|change| change(&mut options));
        let gateway = Service::start(options).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move {
            // A gateway that is dropped ends as one that is told to stop.
            let _dropped = stopped.await;
        };
        let mut metrics = Registry::with_prefix("schemabridge");
        gateway.shared().register_metrics(&mut metrics);
        let connections = server::Metrics::default();
        connections.register(&mut metrics);
        let places = Places::new(self.places.unwrap_or_default(), connections);
        let listener = server::Listener::new(listener, self.to_clients).within(places);
        let serving = tokio::spawn(server::serve(listener, Arc::clone(&gateway), shutdown));
        Gateway { address, service: gateway, metrics, stop: Some(stop), serving: Some(serving) }
    }
}

fn ask_for_everybody(options: &mut Options) {
    options.callers = Callers::TheGateway;
    options.upstream.authentication = Authentication::Anonymous;
    options.upstream.permission = Permission::Gateway;
    options.tags = TagPolicy { ttl: Duration::from_secs(3600), ..TagPolicy::under(Permission::Gateway) };
}

/// A running gateway. Ends when dropped; [`Gateway::stop`] waits until it has ended.
pub struct Gateway {
    address: SocketAddr,
    service: Arc<Service>,
    metrics: Registry,
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

    /// The gateway as the admin listener has it.
    pub fn shared_service(&self) -> &Arc<Service> {
        &self.service
    }

    /// The gateway without its listener.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// All that it counted so far, as Prometheus reads it.
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.metrics).unwrap();
        text
    }

    /// What it counted so far under this name and these labels, as Prometheus reads it.
    pub fn counted(&self, series: &str) -> u64 {
        let text = self.metrics();
        let values = text.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        values.map(|value| value.parse::<u64>().unwrap()).next().unwrap_or_else(|| panic!("no {series} in {text}"))
    }

    /// The value of this metric, written with its labels as it is shown; 0 if it is not.
    pub fn metric(&self, series: &str) -> u64 {
        let text = self.metrics();
        let values = text.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        values.map(|value| value.parse::<u64>().unwrap()).next().unwrap_or_default()
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
            headers.retain(|(name, _)| !matches!(name.as_str(), "date" | "x-request-id"));
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
