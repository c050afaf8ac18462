//! `schemabridge refresh`: a running gateway forgets what tags name, and asks the upstream when they are asked for next.

use clap::Args;
use url::form_urlencoded;

use crate::config::ListenAddress;
use crate::config::admin::AdminArguments;

use super::operator::ask;
use super::{Failure, print};

/// What is named in one request, so that its head stays small.
const IMAGES_AT_ONCE: usize = 50;

/// The flags of `refresh`.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// As clients write it behind the gateway's host: `repository[:tag]`, after the prefix of its upstream if it has one
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// The registry that the images are in, as containerd names it to a mirror
    #[arg(long, value_name = "REGISTRY")]
    ns: Option<String>,
    /// The host at which clients ask for the images, where it has an upstream of its own
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// The admin listener of the gateway
    #[arg(long, env = "SCHEMABRIDGE_ADMIN_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:5001")]
    admin_listen: ListenAddress,
    /// Who the operator is.
    #[command(flatten)]
    admin: AdminArguments,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let token = arguments.admin.token()?;
    for images in arguments.images.chunks(IMAGES_AT_ONCE) {
        let answer = ask(&arguments.admin_listen, "POST", &target(images, arguments), token.as_ref())?;
        if !answer.is_ok() {
            return Err(match answer.text.trim() {
                "" => format!("the gateway answered `{}`", answer.status_line).into(),
                text => text.replace('\n', " ").into(),
            });
        }
        print(answer.text.as_bytes())?;
    }
    Ok(())
}

fn target(images: &[String], arguments: &Arguments) -> String {
    let mut query = form_urlencoded::Serializer::for_suffix("/refresh?".to_owned(), "/refresh?".len());
    query.extend_pairs(images.iter().map(|image| ("image", image)));
    query.extend_pairs(arguments.ns.iter().map(|registry| ("ns", registry)));
    query.extend_pairs(arguments.host.iter().map(|host| ("host", host)));
    query.finish()
}
