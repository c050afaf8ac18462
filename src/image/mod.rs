//! Floor 0, pure: what an image is.
//!
//! Nothing here knows a network, a clock, an environment or a log. A value of one of these types exists only if its
//! grammar held, so nobody above checks it again.

pub mod descriptor;
pub mod digest;
pub mod media_type;
pub mod platform;
pub mod reference;
