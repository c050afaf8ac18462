//! `schemabridge explain`: what is stored under a name, and what each kind of client would get.
//!
//! Nothing is guessed: each known client's request goes through a gateway in this process, whose answer is reported.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use clap::Args;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use serde::Serialize;
use url::Url;

use crate::config::file::File;
use crate::config::{self, GatewayArguments, StoreArguments, Unusable};
use crate::gateway::{Body, Outcome, Service};
use crate::image::descriptor::{Descriptor, Role};
use crate::image::manifest::{Content, Manifest};
use crate::image::media_type::Format;
use crate::image::reference::{Reference, Repository};
use crate::negotiate::clients::{KNOWN, KnownClient};
use crate::upstream::{Authentication, Caller, DOCKER_CONTENT_DIGEST, Upstream};

use super::{Failure, print};

/// The flags of `explain`.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The settings of the gateway whose answers are to be explained.
    #[command(flatten)]
    gateway: GatewayArguments,

    /// What to explain: a repository with a tag
    #[arg(value_name = "REPOSITORY:TAG")]
    image: Image,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Debug)]
struct Image {
    repository: Repository,
    tag: String,
}

impl FromStr for Image {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, tag) = match text.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (text, "latest"),
        };
        let repository =
            name.parse().map_err(|_| "expected REPOSITORY:TAG, such as `library/busybox:1.36`".to_owned())?;
        match tag.parse::<Reference>() {
            Ok(Reference::Tag(_)) => Ok(Self { repository, tag: tag.to_owned() }),
            _ => Err("expected a tag after the colon, such as `library/busybox:1.36`".to_owned()),
        }
    }
}

#[derive(Serialize)]
struct Explanation {
    image: String,
    upstream: String,
    stored: Option<Format>,
    digest: Option<String>,
    /// The entries of a stored list or index.
    children: Vec<Child>,
    clients: Vec<Verdict>,
}

#[derive(Serialize)]
struct Child {
    digest: String,
    media_type: String,
    platform: Option<String>,
    role: &'static str,
}

#[derive(Serialize)]
struct Verdict {
    client: &'static str,
    status: u16,
    served: Option<Format>,
    media_type: Option<String>,
    digest: Option<String>,
    why: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let explanation = runtime.block_on(explain(arguments))?;
    if arguments.json {
        let mut text = serde_json::to_string_pretty(&explanation)?;
        text.push('\n');
        return print(text.as_bytes());
    }
    print(in_lines(&explanation).as_bytes())
}

async fn explain(arguments: &Arguments) -> Result<Explanation, Failure> {
    let Image { repository, tag } = &arguments.image;
    let arguments_in_memory = GatewayArguments { store: StoreArguments::memory(), ..arguments.gateway.clone() };
    let mut options = arguments_in_memory.options(&File::default())?;
    let (first, _) = options.site.upstreams.first_mut().ok_or(Unusable::NoUpstream)?;
    if first.upstream.authentication == Authentication::Passthrough {
        first.upstream.authentication = dockers_own();
    }
    let url = first.upstream.url.clone();
    let registry = Upstream::new(first.upstream.clone())?;
    let caller = Caller::gateway();
    if let Err(failure) = registry.resolve(&caller, repository, &tag.parse()?).await {
        return Err(format!("cannot see {repository}:{tag} at {}: {failure}", registry.authority()).into());
    }
    let gateway = Service::start(options)?;
    let mut explanation = Explanation {
        image: format!("{repository}:{tag}"),
        upstream: authority(&url),
        stored: None,
        digest: None,
        children: Vec::new(),
        clients: Vec::new(),
    };
    for client in KNOWN {
        let request = request_of(client, &format!("/v2/{repository}/manifests/{tag}"))?;
        let response = gateway.answer(request, SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)).await;
        let outcome = response.extensions().get::<Arc<Outcome>>().cloned().unwrap_or_default();
        explanation.stored = explanation.stored.or(outcome.stored);
        explanation.digest = explanation.digest.or_else(|| outcome.source.clone());
        explanation.clients.push(verdict(client, response, &outcome).await);
    }
    if let Some(digest) = explanation.digest.as_ref().and_then(|digest| digest.parse().ok()) {
        let stored = registry.fetch_manifest(&caller, repository, &digest).await?;
        explanation.children = Manifest::parse(stored).map(|stored| children(&stored)).unwrap_or_default();
    }
    Ok(explanation)
}

fn children(stored: &Manifest) -> Vec<Child> {
    let Content::Index(index) = stored.content() else { return Vec::new() };
    let child = |entry: &Descriptor| Child {
        digest: entry.digest.to_string(),
        media_type: entry.media_type.clone(),
        platform: entry.known_platform().map(ToString::to_string),
        role: match entry.role() {
            Role::Image => "image",
            Role::Attestation => "attestation",
            Role::Nested => "nested",
            Role::Artifact => "artifact",
        },
    };
    index.manifests.iter().map(child).collect()
}

/// Nobody calls here whose credentials could be passed through, so docker's own are used.
pub(super) fn dockers_own() -> Authentication {
    let file = config::docker_config();
    file.map_or(Authentication::Anonymous, |file| Authentication::DockerConfig { file, search_path: None })
}

pub(super) fn request_of(client: &KnownClient, path: &str) -> Result<Request<Empty<Bytes>>, Failure> {
    let mut request = Request::builder().uri(path).body(Empty::new())?;
    let headers = request.headers_mut();
    for line in client.accept {
        headers.append(ACCEPT, HeaderValue::from_static(line));
    }
    headers.extend(client.user_agent.map(|text| (USER_AGENT, HeaderValue::from_static(text))));
    Ok(request)
}

async fn verdict(client: &KnownClient, response: Response<Body>, outcome: &Outcome) -> Verdict {
    let status = response.status();
    let header = |name| response.headers().get(name).and_then(|value| Some(value.to_str().ok()?.to_owned()));
    let is_good = status.is_success();
    let (media_type, digest) = (header(CONTENT_TYPE), header(DOCKER_CONTENT_DIGEST));
    let why = if is_good { outcome.why.map(str::to_owned) } else { words_of(response).await };
    let media_type = media_type.filter(|_| is_good);
    Verdict { client: client.name, status: status.as_u16(), served: outcome.served, media_type, digest, why }
}

pub(super) async fn words_of(response: Response<Body>) -> Option<String> {
    let body = response.into_body().collect().await.ok()?.to_bytes();
    let errors: serde_json::Value = serde_json::from_slice(&body).ok()?;
    errors.pointer("/errors/0/message")?.as_str().map(str::to_owned)
}

fn in_lines(explanation: &Explanation) -> String {
    let stored = explanation.stored.map_or("nothing that can be read", Format::word);
    let digest = explanation.digest.as_deref().unwrap_or_default();
    let mut text = format!("{} at {}\nstored: {stored} {digest}\n\n", explanation.image, explanation.upstream);
    for child in &explanation.children {
        let platform = child.platform.as_deref().unwrap_or("no platform");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {platform:20}  {:11}  {}  {}", child.role, child.digest, child.media_type);
    }
    if !explanation.children.is_empty() {
        text.push('\n');
    }
    let width = explanation.clients.iter().map(|verdict| verdict.client.len()).max().unwrap_or_default();
    for verdict in &explanation.clients {
        let got = match verdict.served {
            Some(served) if Some(served) == explanation.stored && verdict.digest == explanation.digest => "as stored",
            Some(served) => served.word(),
            None => "refused",
        };
        let why = verdict.why.as_deref().unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:width$}  {got:9}  {why}", verdict.client);
    }
    text
}

fn authority(url: &Url) -> String {
    url.port().map_or_else(
        || url.host_str().unwrap_or_default().to_owned(),
        |port| format!("{}:{port}", url.host_str().unwrap_or_default()),
    )
}
