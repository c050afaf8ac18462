//! Who may come in: out of what flags say, and whether that is safe with the upstreams that there are.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{ArgAction, Args};

use crate::gateway::door::{self, Anonymous, Anyone, Credentials, Door, DoorOptions, Entrance, NamePattern, Plan};
use crate::gateway::{Callers, Options};
use crate::upstream::Authentication;
use crate::upstream::route::RouteNames;

use super::Unusable;

/// The flags of the door.
#[derive(Args, Clone, Debug)]
pub struct DoorArguments {
    /// A file of users and bcrypt hashes, as `htpasswd -B` writes it: who may come in; read again when it changes
    #[arg(long, env = "SCHEMABRIDGE_HTPASSWD", value_name = "FILE")]
    htpasswd: Option<PathBuf>,

    /// A file of tokens of at least 32 characters, one a line: who shows one may come in; read again when it changes
    #[arg(long, env = "SCHEMABRIDGE_TOKENS_FILE", value_name = "FILE")]
    tokens_file: Option<PathBuf>,

    /// Let anybody pull, even where the gateway shows upstreams credentials of its own
    #[arg(long, env = "SCHEMABRIDGE_ALLOW_ANONYMOUS", value_name = "true|false", value_parser = clap::builder::BoolishValueParser::new(), action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    allow_anonymous: bool,
}

impl DoorArguments {
    /// The door that they describe with these names in client certificates, if it is one.
    pub(super) fn door(&self, certificates: &[NamePattern]) -> Result<Option<Arc<Door>>, Unusable> {
        let options = self.options(certificates);
        if options.htpasswd.is_none() && options.tokens.is_none() && options.certificates.is_empty() {
            return Ok(None);
        }
        let door = Door::open(&options).map_err(|error| Unusable::Door(error.to_string()))?;
        Ok(Some(Arc::new(door)))
    }

    fn options(&self, certificates: &[NamePattern]) -> DoorOptions {
        DoorOptions {
            htpasswd: self.htpasswd.clone(),
            tokens: self.tokens_file.clone(),
            certificates: certificates.to_vec(),
            anonymous: if self.allow_anonymous { Anonymous::MayPull } else { Anonymous::Refused },
        }
    }

    /// Whether it is safe to listen there with this door before these upstreams.
    pub(super) fn check(
        &self,
        door: Option<&Door>,
        listen: &[SocketAddr],
        upstreams: &[(Options, RouteNames)],
    ) -> Result<(), Unusable> {
        let entrance = door.map_or(Entrance::Open, Door::entrance);
        let anyone = if self.allow_anonymous { Anyone::Allowed } else { Anyone::Unsaid };
        let shown = |(options, _): &'_ (Options, RouteNames)| {
            let own = match options.upstream.authentication {
                Authentication::Passthrough | Authentication::Anonymous => Credentials::None,
                _ => Credentials::Gateways,
            };
            match options.callers {
                Callers::Themselves => vec![Credentials::Callers],
                Callers::TheGateway => vec![own],
                Callers::ThemselvesOrTheGateway => vec![Credentials::Callers, own],
            }
        };
        let upstreams: Vec<(&str, Credentials)> = upstreams
            .iter()
            .flat_map(|upstream| shown(upstream).into_iter().map(|shown| (upstream.0.upstream_name.as_str(), shown)))
            .collect();
        let plan = Plan { entrance, anyone, listen, upstreams: &upstreams };
        door::check(&plan).map_err(|unsafe_plan| Unusable::Door(unsafe_plan.to_string()))
    }
}
