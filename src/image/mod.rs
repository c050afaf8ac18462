//! Floor 0, pure: what an image is.
//!
//! Nothing here knows a network, a clock, an environment or a log. A value of one of these types exists only if its
//! grammar held, so nobody above checks it again.

pub mod config;
pub mod descriptor;
pub mod digest;
pub mod json;
pub mod layer;
pub mod manifest;
pub mod media_type;
pub mod oci;
pub mod platform;
pub mod reference;
pub mod schema1;
pub mod schema2;
pub mod timestamp;
