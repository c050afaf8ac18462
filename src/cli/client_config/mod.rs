//! `schemabridge client-config`: what a machine needs so that its pulls go through a gateway.

mod files;
mod tools;

use std::fmt::Write;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use url::Url;

use crate::config::values::plain_url;
use crate::image::reference::Repository;

use super::{Failure, print};

/// The flags of `client-config`.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// Whose configuration it is
    tool: Tool,

    /// The gateway, as this machine reaches it
    #[arg(long, value_name = "URL", value_parser = gateway, required_unless_present = "undo")]
    gateway: Option<Gateway>,

    /// A registry that goes through the gateway, as images name it, and the prefix that the gateway has it under if that
    /// is another; repeatable
    #[arg(long, value_name = "HOST[=PREFIX]", required_unless_present = "undo")]
    upstream: Vec<Upstream>,

    /// Write it; without this flag it is printed
    #[arg(long)]
    write: bool,

    /// Put everything back as it was before `--write`
    #[arg(long, conflicts_with_all = ["write", "gateway", "upstream"])]
    undo: bool,

    /// Where the file system of the machine begins
    #[arg(long, value_name = "DIRECTORY", default_value = "/")]
    root: PathBuf,
}

/// A program that pulls images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Tool {
    /// `hosts.toml` for each registry
    Containerd,
    /// `registry-mirrors` in `daemon.json`, for Docker Hub only
    Docker,
    /// A file of its own in `registries.conf.d`, for skopeo and buildah too
    Podman,
    /// The same file as for podman
    Crio,
    /// `registries.yaml`
    K3s,
}

/// The gateway's address.
#[derive(Clone, Debug)]
struct Gateway {
    url: Url,
}

/// A registry that the gateway stands in front of.
#[derive(Clone, Debug)]
struct Upstream {
    /// As images name it, with a port where they do.
    host: String,
    /// What comes before the repository at the gateway, where it is not the host.
    prefix: Option<Repository>,
}

fn gateway(text: &str) -> Result<Gateway, String> {
    let url = plain_url(text)?;
    if url.path() != "/" {
        return Err("expected the URL of the gateway without a path".to_owned());
    }
    Ok(Gateway { url })
}

impl Gateway {
    /// Scheme, host and port.
    fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// Host and port.
    fn authority(&self) -> String {
        self.origin().split_once("://").map_or_else(String::new, |(_, authority)| authority.to_owned())
    }

    fn is_plain(&self) -> bool {
        self.url.scheme() == "http"
    }
}

impl FromStr for Upstream {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, prefix) = text.split_once('=').map_or((text, None), |(host, prefix)| (host, Some(prefix)));
        let is_named =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b':');
        let begins_well = host.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        if !begins_well || !host.bytes().all(is_named) || host.parse::<http::uri::Authority>().is_err() {
            return Err(
                "expected the host of a registry as images name it, such as `docker.io` or `quay.io`".to_owned()
            );
        }
        let prefix = prefix.map(str::parse::<Repository>).transpose();
        let prefix =
            prefix.map_err(|_| "expected a prefix of lower-case words after the `=`, such as `hub`".to_owned())?;
        Ok(Self { host: host.to_owned(), prefix })
    }
}

impl Upstream {
    fn is_docker_hub(&self) -> bool {
        self.host == "docker.io"
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let root = files::Root::new(&arguments.root);
    if arguments.undo {
        return undo(arguments.tool, &root);
    }
    let gateway = arguments.gateway.as_ref().ok_or("--gateway is missing")?;
    let wanted = tools::wanted(arguments.tool, gateway, &arguments.upstream, &root)?;
    let mut text = String::new();
    if arguments.write {
        for (file, is_news) in wanted.iter().zip(root.write(&wanted)?) {
            writeln!(
                text,
                "{} {}",
                if is_news { "wrote" } else { "already as it should be:" },
                root.path(&file.path).display()
            )?;
        }
    } else {
        for file in &wanted {
            writeln!(text, "# {}\n{}", root.path(&file.path).display(), file.content)?;
        }
    }
    for hint in tools::hints(arguments.tool, &arguments.upstream) {
        writeln!(text, "# {hint}")?;
    }
    print(text.as_bytes())
}

fn undo(tool: Tool, root: &files::Root) -> Result<(), Failure> {
    let mut text = String::new();
    for path in root.undo(&tools::places(tool, root)?)? {
        writeln!(text, "put back {}", root.path(&path).display())?;
    }
    if text.is_empty() {
        text.push_str("nothing was written here\n");
    }
    print(text.as_bytes())
}
