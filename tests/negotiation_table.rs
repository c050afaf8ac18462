//! Every client of `clients.json` gets, for every stored format, what the record promises, whatever the order of its
//! `Accept` lines: the decision alone, without a socket.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use schemabridge::image::media_type::Format;
use schemabridge::negotiate::{Choice, Client, LayerWork, Policy, Scope, Stored, StoredContent, Upgrade, Why, choose};
use serde::Deserialize;

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// One client and version, as captured or read from its source.
#[derive(Deserialize)]
struct Record {
    id: String,
    user_agent: String,
    accept: Vec<String>,
    ua_class: Option<String>,
    platform_from_ua: Option<UserAgentPlatform>,
    results: BTreeMap<Format, Expected>,
    /// What becomes of stored schema 1 where the operator opted in to upgrades.
    results_upgrade_enabled: BTreeMap<Format, Expected>,
}

#[derive(Deserialize)]
struct UserAgentPlatform {
    os: String,
    architecture: String,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
struct Expected {
    serve: Option<Format>,
    how: String,
}

fn records() -> Vec<Record> {
    serde_json::from_str(include_str!("clients.json")).expect("the table is JSON of this shape")
}

/// As given, reversed and rotated, and every type on a line of its own from the last to the first.
fn orders(lines: &[String]) -> [Vec<&str>; 4] {
    let given: Vec<&str> = lines.iter().map(String::as_str).collect();
    let reversed = given.iter().rev().copied().collect();
    let mut rotated = given.clone();
    rotated.rotate_left(given.len() / 2);
    let apart = given.iter().rev().flat_map(|line| line.rsplit(',')).collect();
    [given, reversed, rotated, apart]
}

fn client(user_agent: &str, accept: &[&str]) -> Client {
    let lines = accept.iter().map(|line| line.as_bytes());
    Client::from_headers(lines, Some(user_agent.as_bytes()), ADDRESS, &Policy::default())
}

/// An ordinary document of `format`.
fn ordinary(format: Format) -> Stored {
    let content = match format {
        Format::Schema2 => StoredContent::Image { layers: 2, zstd: false, docker_config: true },
        Format::Oci => StoredContent::Image { layers: 2, zstd: false, docker_config: false },
        Format::List => StoredContent::Entries { docker_children: true },
        Format::Index => StoredContent::Entries { docker_children: false },
        Format::Schema1 | Format::Artifact => StoredContent::Opaque,
    };
    Stored { format, content }
}

/// A choice in the words of the table.
fn in_words(stored: Format, choice: &Choice) -> Expected {
    let (serve, how) = match choice {
        Choice::AsStored { why: Why::OwnRefusal | Why::NotUpgraded } => (Some(stored), "as-is (client will refuse it)"),
        Choice::AsStored { why: Why::Unlisted } => (Some(stored), "as-is (not in Accept; lenient)"),
        Choice::AsStored { .. } => (Some(stored), "as-is"),
        Choice::Derive { candidates, .. } => {
            let first = candidates.first().expect("a derivation has a candidate");
            let how = match (first.scope, first.target) {
                (Scope::PlatformChild, _) => "translate+platform",
                (Scope::Whole, Format::List | Format::Index) => "translate+children",
                (Scope::Whole, _) => "translate",
            };
            (Some(first.target), how)
        }
        Choice::Refuse(_) => (None, "error"),
    };
    Expected { serve, how: how.to_owned() }
}

#[test]
fn every_record_gets_what_it_promises_in_every_order() {
    let mut rows = 0;
    for record in records() {
        for (stored, expected) in &record.results {
            for accept in orders(&record.accept) {
                let client = client(&record.user_agent, &accept);
                let choice = choose(&ordinary(*stored), &client);
                assert_eq!(&in_words(*stored, &choice), expected, "{}, stored {stored}, {accept:?}", record.id);
                rows += 1;
            }
        }
    }
    assert_eq!(rows, records().len() * Format::ALL.len() * 4, "every record says something about every format");
}

#[test]
fn every_record_gets_what_it_promises_where_upgrades_are_enabled() {
    let layers = LayerWork { upgrade: Upgrade::Schema1, ..LayerWork::default() };
    let policy = Policy { layers, ..Policy::default() };
    for record in records() {
        assert!(record.results_upgrade_enabled.contains_key(&Format::Schema1), "{}", record.id);
        let expected = record.results.iter().filter(|(stored, _)| **stored != Format::Schema1);
        for (stored, expected) in expected.chain(&record.results_upgrade_enabled) {
            for accept in orders(&record.accept) {
                let lines = accept.iter().map(|line| line.as_bytes());
                let client = Client::from_headers(lines, Some(record.user_agent.as_bytes()), ADDRESS, &policy);
                let choice = choose(&ordinary(*stored), &client);
                let found = match (&choice, stored) {
                    (Choice::Derive { .. }, Format::Schema1) => {
                        Expected { how: "upgrade".to_owned(), ..in_words(*stored, &choice) }
                    }
                    _ => in_words(*stored, &choice),
                };
                assert_eq!(&found, expected, "{}, stored {stored}, {accept:?}", record.id);
            }
        }
    }
}

#[test]
fn every_record_is_of_the_class_that_it_names() {
    for record in records() {
        let class = client(&record.user_agent, &[]).class();
        assert_eq!(class, record.ua_class.as_deref().unwrap_or("unknown"), "{}", record.id);
    }
}

#[test]
fn every_record_says_its_platform_or_gets_the_default() {
    for record in records() {
        let policy = Policy { platform: "plan9/mips".parse().unwrap(), ..Policy::default() };
        let client = Client::from_headers([], Some(record.user_agent.as_bytes()), ADDRESS, &policy);
        let expected = match record.platform_from_ua {
            Some(platform) => format!("{}/{}", platform.os, platform.architecture),
            None => "plan9/mips".to_owned(),
        };
        assert_eq!(client.platform().to_string(), expected, "{}", record.id);
    }
}
