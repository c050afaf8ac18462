//! The gateway between real registries and real clients.
