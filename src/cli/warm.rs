//! `schemabridge warm`: what clients would have to wait for is made ahead and kept in the store.
//!
//! Nothing is special about it: each known client's request goes through a gateway in this process, which has the
//! configuration and the store of the one that is to be spared the work. What an earlier try has learnt is not read again.

use std::io::{IsTerminal, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use http::StatusCode;
use http_body_util::BodyExt;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::config::ServeArguments;
use crate::config::file::File;
use crate::gateway::{Service, Shown};
use crate::image::reference::Reference;
use crate::negotiate::clients::{KNOWN, KnownClient};
use crate::store::Location;
use crate::upstream::{Authentication, DOCKER_CONTENT_DIGEST};

use super::explain::{dockers_own, request_of, words_of};
use super::{Failure, print};

/// How often somebody who watches is told how far it is.
const LOOK: Duration = Duration::from_millis(500);
/// Nobody is kept waiting here but the operator, who sees how far it is.
const PATIENCE: Duration = Duration::from_secs(365 * 24 * 3600);

/// The flags of `serve`, and what to make.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    serve: ServeArguments,

    /// What to make: as clients write it behind the gateway's host, `repository[:tag]`, after the prefix of its upstream if
    /// it has one
    #[arg(value_name = "IMAGE", required_unless_present = "from")]
    images: Vec<String>,

    /// A file with more of them, one a line; `-` is standard input
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,

    /// Print JSON: an object a line, with how far it is and what came of each image
    #[arg(long)]
    json: bool,
}

/// What came of one image.
struct Warmed {
    image: String,
    /// The digests that clients get.
    digests: Vec<String>,
    /// Clients that get nothing, and why. That is no failure, as long as others get something.
    refused: Vec<(&'static str, String)>,
    /// Why it could not be asked for at all.
    failure: Option<String>,
}

pub(super) fn run(arguments: &Arguments, file: &File) -> Result<(), Failure> {
    let images = images(arguments)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(warm(arguments, file, &images))
}

async fn warm(arguments: &Arguments, file: &File, images: &[String]) -> Result<(), Failure> {
    let service = service(arguments, file)?;
    let watching = tokio::spawn(watch(Arc::clone(&service), Showing::of(arguments)));
    let mut failures = 0;
    for image in images {
        let warmed = one(&service, image).await;
        failures += usize::from(warmed.failure.is_some());
        print(if arguments.json { format!("{}\n", warmed.json()) } else { warmed.lines() }.as_bytes())?;
    }
    watching.abort();
    match failures {
        0 => Ok(()),
        1 => Err("one image could not be made".into()),
        failures => Err(format!("{failures} images could not be made").into()),
    }
}

/// A gateway as the configuration says, for the operator alone.
fn service(arguments: &Arguments, file: &File) -> Result<Arc<Service>, Failure> {
    let mut options = arguments.serve.options(file)?;
    if options.shared.store == Location::Memory {
        return Err(
            "--store memory: ends with this command; expected the store of the gateway that is to be warm".into()
        );
    }
    options.shared.layers.derive_timeout = PATIENCE;
    options.site.door = None;
    for (upstream, _) in &mut options.site.upstreams {
        // Nobody calls here whose credentials could be passed through.
        if upstream.upstream.authentication == Authentication::Passthrough {
            upstream.upstream.authentication = dockers_own();
        }
    }
    Ok(Service::start(options)?)
}

/// What is asked for on the command line and in the file, each checked before any is made.
fn images(arguments: &Arguments) -> Result<Vec<String>, Failure> {
    let mut images = arguments.images.clone();
    if let Some(path) = &arguments.from {
        let unreadable = |error| format!("--from: {}: {error}", path.display());
        let mut text = String::new();
        if path.as_os_str() == "-" {
            std::io::stdin().read_to_string(&mut text).map_err(unreadable)?;
        } else {
            text = std::fs::read_to_string(path).map_err(unreadable)?;
        }
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        images.extend(lines.map(str::to_owned));
    }
    match images.iter().find(|image| path_of(image).is_none()) {
        Some(image) => Err(format!("`{image}` names no image: expected `repository:tag`").into()),
        None if images.is_empty() => Err("no image is named".into()),
        None => Ok(images),
    }
}

/// The path at which clients ask for an image.
fn path_of(image: &str) -> Option<String> {
    let (name, tag) = match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image, "latest"),
    };
    let is_tag = matches!(tag.parse::<Reference>(), Ok(Reference::Tag(_)));
    let is_name = name.split('/').all(|part| !part.is_empty()) && !name.contains(['?', '#', '%', '@', ' ']);
    (is_tag && is_name).then(|| format!("/v2/{name}/manifests/{tag}"))
}

async fn one(service: &Service, image: &str) -> Warmed {
    let mut warmed = Warmed { image: image.to_owned(), digests: Vec::new(), refused: Vec::new(), failure: None };
    for client in KNOWN {
        if let Err(failure) = for_client(service, image, client, &mut warmed).await {
            warmed.failure = Some(failure);
            return warmed;
        }
    }
    if warmed.digests.is_empty() {
        warmed.failure = warmed.refused.first().map(|(_, words)| words.clone());
    }
    warmed
}

async fn for_client(
    service: &Service,
    image: &str,
    client: &'static KnownClient,
    warmed: &mut Warmed,
) -> Result<(), String> {
    let path = path_of(image).ok_or("it names no image")?;
    let request = request_of(client, &path).map_err(|error| error.to_string())?;
    let asked = service.answer(request, SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0));
    let response = Box::pin(asked).await;
    let status = response.status();
    if status == StatusCode::OK {
        let digest = response.headers().get(DOCKER_CONTENT_DIGEST).and_then(|digest| digest.to_str().ok());
        let digest = digest.unwrap_or_default().to_owned();
        if !warmed.digests.contains(&digest) {
            warmed.digests.push(digest);
        }
        // Read to its end, as a client would.
        return response.into_body().collect().await.map(drop).map_err(|error| error.to_string());
    }
    let words = words_of(response).await.unwrap_or_else(|| status.to_string());
    if status == StatusCode::NOT_ACCEPTABLE {
        warmed.refused.push((client.name, words));
        return Ok(());
    }
    Err(words)
}

impl Warmed {
    fn json(&self) -> Value {
        let refused = self.refused.iter().map(|(client, words)| json!({"client": client, "why": words}));
        json!({
            "image": self.image, "digests": self.digests, "refused": refused.collect::<Vec<_>>(), "failure": self.failure,
        })
    }

    fn lines(&self) -> String {
        if let Some(failure) = &self.failure {
            return format!("{}: {failure}\n", self.image);
        }
        let mut text = format!("{}: {}\n", self.image, self.digests.join(" "));
        for (client, words) in &self.refused {
            text.extend(["  not for ", client, ": ", words, "\n"]);
        }
        text
    }
}

/// How somebody watches.
enum Showing {
    /// A bar, on a terminal.
    Bar(ProgressBar),
    /// A line of JSON now and then.
    Json,
    /// Nobody does.
    Nothing,
}

impl Showing {
    fn of(arguments: &Arguments) -> Self {
        if arguments.json {
            return Self::Json;
        }
        if !std::io::stderr().is_terminal() {
            return Self::Nothing;
        }
        let template = "{msg} [{bar:30}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        Self::Bar(ProgressBar::new(0).with_style(style))
    }

    fn show(&self, work: &Shown) {
        let Shown { repository, layers, layers_done, bytes, bytes_done, .. } = work;
        match self {
            Self::Bar(bar) => {
                bar.set_message(format!("{repository}: layer {} of {layers}", (layers_done + 1).min(*layers)));
                bar.set_length(bytes.unwrap_or(*bytes_done));
                bar.set_position(*bytes_done);
            }
            Self::Json => {
                let line = json!({
                    "repository": repository, "work": work.kind.word(), "layers": layers, "layers_done": layers_done,
                    "bytes": bytes, "bytes_done": bytes_done,
                });
                // Whoever closed standard output is told by the result.
                let _ = print(format!("{line}\n").as_bytes());
            }
            Self::Nothing => {}
        }
    }
}

/// Tells how far the work is; never returns.
async fn watch(service: Arc<Service>, showing: Showing) {
    loop {
        tokio::time::sleep(LOOK).await;
        match (service.standing().work.first(), &showing) {
            (Some(work), showing) => showing.show(work),
            (None, Showing::Bar(bar)) => bar.reset(),
            (None, Showing::Json | Showing::Nothing) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_a_repository_and_a_tag() {
        for (image, path) in [
            ("app", "/v2/app/manifests/latest"),
            ("team/app:1.2", "/v2/team/app/manifests/1.2"),
            ("docker.io/library/alpine:3", "/v2/docker.io/library/alpine/manifests/3"),
        ] {
            assert_eq!(path_of(image).as_deref(), Some(path));
        }
        for bad in ["", ":", "app:", "/app", "app/", "a b", "app?x:1", "app@sha256:00", "app:-"] {
            assert_eq!(path_of(bad), None, "{bad}");
        }
    }
}
