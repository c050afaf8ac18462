//! Who may see the page, what stands behind it, and make the gateway forget.
//!
//! With a file of tokens, whoever shows one of them. Without one, whoever is on this machine, unless the request came
//! through a browser that was led here under another name, or through a proxy that speaks for somebody else.

use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use http::StatusCode;
use http::header::{FORWARDED, HOST, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::uri::Authority;

use crate::gateway::Peer;
use crate::gateway::door::{Door, DoorOptions, UnusableDoor};
use crate::gateway::fault::Fault;

use super::Answer;

/// How a browser is told to ask for the token: any name will do.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"schemabridge admin\", charset=\"UTF-8\"");

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Who may see what names repositories.
pub enum Access {
    /// Whoever is on this machine.
    FromThisMachine,
    /// Whoever shows a token, from wherever.
    WithToken(Box<Door>),
}

/// Why a request is not answered.
pub(super) enum Refusal {
    /// It came from elsewhere, and there are no tokens.
    FromElsewhere(&'static str),
    /// It showed no token, or a wrong one, or it was one of too many.
    Door(Fault),
}

impl Access {
    /// Asks for one of the tokens in this file, one a line; it is read again when it changes.
    pub fn with_token(file: &Path) -> Result<Self, UnusableDoor> {
        let options = DoorOptions { tokens: Some(file.to_owned()), ..DoorOptions::default() };
        Ok(Self::WithToken(Box::new(Door::open(&options)?)))
    }

    /// Lets a request from `peer` in, or says why not.
    pub(super) async fn admit(&self, head: &Parts, peer: Peer) -> Result<(), Refusal> {
        match self {
            Self::WithToken(door) => door.admit(head, peer.address()).await.map(drop).map_err(Refusal::Door),
            Self::FromThisMachine if !peer.address().to_canonical().is_loopback() => {
                Err(Refusal::FromElsewhere("it came from another machine"))
            }
            Self::FromThisMachine
                if [FORWARDED, X_FORWARDED_FOR].iter().any(|name| head.headers.contains_key(name)) =>
            {
                Err(Refusal::FromElsewhere("a proxy sent it for somebody else"))
            }
            Self::FromThisMachine if !names_this_machine(head) => {
                Err(Refusal::FromElsewhere("its Host is not `localhost` or an address of the loopback"))
            }
            Self::FromThisMachine => Ok(()),
        }
    }
}

impl Refusal {
    pub(super) fn into_answer(self) -> Answer {
        match self {
            Self::FromElsewhere(why) => Answer::words(
                StatusCode::FORBIDDEN,
                format!(
                    "this part of the admin listener names repositories and is open to this machine alone, and {why}; \
                     start the gateway with --admin-token-file FILE and show the token that stands in it\n"
                ),
            ),
            Self::Door(fault) => {
                let status = fault.status();
                let words = match &fault {
                    Fault::LoginWanted(_) => "the admin listener wants a token of its --admin-token-file: as a bearer \
                                              token, or as the password with any name\n"
                        .to_owned(),
                    fault => format!("{fault}\n"),
                };
                let answer = Answer::words(status, words);
                match fault {
                    Fault::LoginWanted(_) => answer.with(WWW_AUTHENTICATE, CHALLENGE),
                    Fault::TooManyLogins(seconds) => answer.with(RETRY_AFTER, HeaderValue::from(seconds)),
                    _ => answer,
                }
            }
        }
    }
}

/// A name that leads to this machine wherever it is looked up: a page of the web cannot give itself one.
fn names_this_machine(head: &Parts) -> bool {
    let headers = head.headers.get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default());
    let target = head.uri.authority().map(Authority::as_str);
    let named: Vec<&str> = headers.chain(target).collect();
    // Each that is named must be: which of them counts is nobody's to choose.
    let is_here = |host: &&str| {
        let authority = host.parse::<Authority>().ok().filter(|authority| !authority.as_str().contains('@'));
        authority.is_some_and(|authority| is_of_this_machine(authority.host()))
    };
    !named.is_empty() && named.iter().all(is_here)
}

fn is_of_this_machine(host: &str) -> bool {
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || literal.parse().is_ok_and(|address: IpAddr| address.is_loopback() || address.is_unspecified())
        || literal.parse().is_ok_and(|address: Ipv6Addr| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_always_lead_here_are_of_this_machine() {
        for host in ["localhost", "LocalHost", "127.0.0.1", "127.8.8.8", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"] {
            assert!(is_of_this_machine(host), "{host}");
        }
        for host in ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "[fe80::1]"] {
            assert!(!is_of_this_machine(host), "{host}");
        }
    }
}
