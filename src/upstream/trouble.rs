//! What went wrong on the way to or from the upstream, as far as the error tells.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::iter::successors;

use hyper_util::client::legacy;

use super::tls;

/// Why there is no connection, or no answer on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody knows an address of its name.
    Name,
    /// Nobody answers at its addresses.
    Connection,
    /// The two cannot agree on TLS, or one does not trust the other.
    Tls,
    /// The connection ended before there was an answer.
    Reset,
    /// It ended in the middle of a body.
    BrokenOff,
    /// It ended in the middle of what a client sends.
    Upload,
    /// None of these.
    Other,
}

impl Trouble {
    /// Goes by the errors behind this one, the first of which that tells anything decides.
    pub(super) fn of(error: &(dyn Error + 'static)) -> Self {
        let causes = || successors(Some(error), |cause| (*cause).source());
        let any = |is_it: fn(&(dyn Error + 'static)) -> bool| causes().any(is_it);
        if any(tls::is_by_tls) {
            Self::Tls
        } else if any(is_by_name) {
            Self::Name
        } else if any(is_by_dialling) {
            Self::Connection
        } else if any(is_by_ending) {
            Self::Reset
        } else {
            Self::Other
        }
    }

    /// The word that it is counted by.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "dns",
            Self::Connection => "connect",
            Self::Tls => "tls",
            Self::Reset => "reset",
            Self::BrokenOff => "truncated",
            Self::Upload => "upload",
            Self::Other => "unreachable",
        }
    }
}

/// The type of the connector's error is its own; only its words tell.
fn is_by_name(cause: &(dyn Error + 'static)) -> bool {
    cause.to_string().starts_with("dns error")
}

fn is_by_dialling(cause: &(dyn Error + 'static)) -> bool {
    cause.downcast_ref::<legacy::Error>().is_some_and(legacy::Error::is_connect)
}

fn is_by_ending(cause: &(dyn Error + 'static)) -> bool {
    let ends =
        [ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted, ErrorKind::BrokenPipe, ErrorKind::UnexpectedEof];
    cause.downcast_ref::<io::Error>().is_some_and(|error| ends.contains(&error.kind()))
        || cause
            .downcast_ref::<hyper::Error>()
            .is_some_and(|error| error.is_incomplete_message() || error.is_canceled())
}
