//! The gateway between real registries and real clients. `tests/run.sh` installs them; `cargo test --test real` runs this.
//!
//! A program that is not there is a failure that names it. The tools that are built with Go (distribution 3, crane, oras,
//! regctl) are left out where there is no `go`, and the run says so.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on must say where")]
#![expect(clippy::indexing_slicing, reason = "an index that is not there fails the test, as it should")]

mod clients;
mod credentials;
mod derived;
mod differential;
mod full_disk;
mod held_credentials;
mod layer_stores;
mod lists;
mod mirrors;
mod offline;
mod old_clients;
mod old_lists;
mod page;
mod proxy;
mod push_schema1;
mod pushes;
mod replicas;
mod scrape;
mod signature;
mod sockets;
mod stored_schema1;
mod tls;
mod tokens;
mod upgrade_oracles;
mod upstream_tls;
mod zstd_layers;

mod browser;
mod disguise;
mod documents;
mod engines;
mod guises;
mod home;
mod http;
mod images;
mod layers;
mod mixtures;
mod parents;
mod programs;
mod recorder;
mod registries;
mod stores;
mod token_server;
mod trap;
