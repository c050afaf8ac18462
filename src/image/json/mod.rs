//! JSON as this gateway reads it (strictly or as Go does, within limits) and writes it (as Go's `encoding/json` does).
//!
//! Documents come from anyone who may push, so a document is scanned once before anything believes it; after that a
//! [`Raw`] value is a piece of text that is known to be well formed and keeps every byte that was written.

mod raw;
mod scan;
mod text;
mod write;

pub use raw::{Object, Raw};
pub use scan::{DEPTH_MAX, Dialect, Fault, scan};
pub use text::{equal_fold, push_string, quoted};
pub use write::{ObjectWriter, array, compacted, indented, object, string};
