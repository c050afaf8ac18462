//! What is noted about a request on its way.

use crate::image::media_type::Format;

use super::door::Admission;
use super::fault::Fault;

/// What became of a request for a manifest. It goes with the response, for the commands that explain it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The format that is stored.
    pub stored: Option<Format>,
    /// The format that is served.
    pub served: Option<Format>,
    /// Why.
    pub why: Option<&'static str>,
    /// Whether the derived document was at hand; `stale` where the upstream could not be asked for whatever was served.
    pub cache: Option<&'static str>,
    /// The digest of the stored document.
    pub source: Option<String>,
    /// The digest of the served document.
    pub digest: Option<String>,
}

/// Filled on the way, written down once at the end.
#[derive(Default)]
pub(super) struct Record {
    pub(super) outcome: Outcome,
    pub(super) admission: Option<Admission>,
    fault: Option<String>,
    code: &'static str,
    fault_is_ours: bool,
}

impl Record {
    /// Of whoever came in so.
    pub(super) fn of(admission: Option<Admission>) -> Self {
        Self { admission, ..Self::default() }
    }

    pub(super) fn fault(&mut self, fault: &Fault) {
        self.fault_is_ours = fault.is_ours();
        self.code = fault.code();
        self.fault = Some(fault.to_string());
    }

    /// The code and the words of a refusal, if it was one.
    pub(super) fn refused(&self) -> Option<(&'static str, &str)> {
        self.fault.as_deref().map(|words| (self.code, words))
    }

    /// What went wrong, in words.
    pub(super) fn fault_words(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// What went wrong was the gateway's or the upstream's doing.
    pub(super) const fn is_ours(&self) -> bool {
        self.fault_is_ours
    }
}
