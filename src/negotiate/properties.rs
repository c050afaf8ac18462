//! What holds for any headers at all.

use core::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use crate::image::media_type::{
    Format, MANIFEST_LIST, OCI_ARTIFACT, OCI_INDEX, OCI_MANIFEST, SCHEMA1, SCHEMA1_SIGNED, SCHEMA2,
};

use super::clients::KNOWN;
use super::{Asks, Choice, Client, ClientRule, Policy, Schema1, Senders, Stored, StoredContent, Treatment, choose};

const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Every kind of stored document that a choice can tell apart.
fn every_stored() -> Vec<Stored> {
    let mut all = Vec::new();
    for format in Format::ALL {
        all.push(Stored { format, content: StoredContent::Opaque });
        for (yes, layers) in [(true, 0), (false, 2)] {
            all.push(Stored { format, content: StoredContent::Image { layers, zstd: yes, docker_config: yes } });
            all.push(Stored { format, content: StoredContent::Entries { docker_children: yes } });
        }
    }
    all.push(Stored { format: Format::Artifact, content: StoredContent::Schema2Artifact });
    all
}

/// What is served to such a client, whatever the reason: by stored document, the targets, or nothing for a refusal.
fn served(user_agent: &[u8], lines: &[Vec<u8>]) -> Vec<String> {
    served_under(&Policy::default(), user_agent, lines)
}

fn served_under(policy: &Policy, user_agent: &[u8], lines: &[Vec<u8>]) -> Vec<String> {
    let client = Client::from_headers(lines.iter().map(Vec::as_slice), Some(user_agent), ADDRESS, policy);
    let what = |stored: &Stored| match choose(stored, &client) {
        Choice::AsStored { .. } => "as stored".to_owned(),
        Choice::Derive { candidates, .. } => format!("{candidates:?}"),
        Choice::Refuse(refusal) => {
            assert!(!refusal.to_string().is_empty());
            "refused".to_owned()
        }
    };
    every_stored().iter().map(what).collect()
}

/// A policy with one rule, about those who are in `network`.
fn ruled(network: &str, treatment: Treatment) -> Policy {
    let senders = Senders { networks: vec![network.parse().unwrap()], ..Senders::default() };
    Policy { clients: vec![ClientRule::new(senders, treatment).unwrap()], ..Policy::default() }
}

fn denied() -> Treatment {
    Treatment { schema1: Schema1::Denied, ..Treatment::default() }
}

fn user_agent() -> impl Strategy<Value = Vec<u8>> {
    let known = (0..KNOWN.len()).prop_map(|which| KNOWN[which].user_agent.unwrap_or_default().as_bytes().to_vec());
    let docker = (0..30_u32, 0..20_u32, 0..20_u32)
        .prop_map(|(major, minor, patch)| format!("docker/{major}.{minor}.{patch} os/linux arch/arm").into_bytes());
    prop_oneof![3 => known, 2 => docker, 1 => proptest::collection::vec(any::<u8>(), 0..200)]
}

fn element() -> impl Strategy<Value = Vec<u8>> {
    let types = vec![
        SCHEMA1,
        SCHEMA1_SIGNED,
        SCHEMA2,
        MANIFEST_LIST,
        OCI_MANIFEST,
        OCI_INDEX,
        OCI_ARTIFACT,
        "application/json",
        "application/*",
        "*/*",
        "*",
        "text/html",
        "APPLICATION/JSON",
    ];
    let parameters = vec!["", ";q=0", ";q=0.5", "; q=.9", ";q=bad", ";charset=utf-8;q=1", ";a=\"b,c\""];
    (proptest::sample::select(types), proptest::sample::select(parameters))
        .prop_map(|(media_type, parameters)| format!("{media_type}{parameters}").into_bytes())
}

fn unknown_type() -> impl Strategy<Value = Vec<u8>> {
    "[a-z]{1,8}/vnd\\.[a-z0-9.+-]{1,20}(;q=0(\\.[0-9]{1,3})?)?"
        .prop_filter("a type that is known", |text| {
            !Format::ALL.iter().any(|format| text.contains(format.media_type()))
        })
        .prop_map(String::into_bytes)
}

proptest! {
    #[test]
    fn no_bytes_panic(
        user_agent in proptest::collection::vec(any::<u8>(), 0..4000),
        lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..6),
    ) {
        served(&user_agent, &lines);
    }

    #[test]
    fn the_order_of_elements_never_counts(
        user_agent in user_agent(),
        (elements, shuffled) in proptest::collection::vec(element(), 0..8)
            .prop_flat_map(|elements| (Just(elements.clone()), Just(elements).prop_shuffle())),
    ) {
        let expected = served(&user_agent, &elements);
        prop_assert_eq!(&served(&user_agent, &shuffled), &expected);
        // nor whether they stand on lines of their own or on one
        prop_assert_eq!(&served(&user_agent, &[shuffled.join(&b", "[..])]), &expected);
    }

    #[test]
    fn the_order_of_any_lines_never_counts(
        user_agent in user_agent(),
        mut lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..6),
        known in proptest::collection::vec(element(), 0..4),
    ) {
        lines.extend(known);
        let expected = served(&user_agent, &lines);
        lines.reverse();
        prop_assert_eq!(served(&user_agent, &lines), expected);
    }

    #[test]
    fn an_unknown_type_never_counts(
        user_agent in user_agent(),
        mut lines in proptest::collection::vec(element(), 0..6),
        unknown in unknown_type(),
    ) {
        let expected = served(&user_agent, &lines);
        lines.push(unknown);
        prop_assert_eq!(served(&user_agent, &lines), expected);
    }

    #[test]
    fn who_is_denied_schema_1_never_gets_it(
        user_agent in user_agent(),
        lines in proptest::collection::vec(element(), 0..8),
        asks in prop_oneof![Just(Asks::ForItself), Just(Asks::ForStored), Just(Asks::ForEngine("docker/1.9.1".into()))],
    ) {
        let policy = ruled("192.0.2.0/24", Treatment { asks, ..denied() });
        let client = Client::from_headers(lines.iter().map(Vec::as_slice), Some(&user_agent), ADDRESS, &policy);
        for stored in every_stored() {
            match choose(&stored, &client) {
                Choice::AsStored { .. } => prop_assert_ne!(stored.format, Format::Schema1),
                Choice::Derive { candidates, .. } => {
                    prop_assert!(candidates.iter().all(|candidate| candidate.target != Format::Schema1));
                }
                Choice::Refuse(_) => {}
            }
        }
    }

    #[test]
    fn a_rule_about_others_or_without_a_word_changes_nothing(
        user_agent in user_agent(),
        lines in proptest::collection::vec(element(), 0..8),
    ) {
        let expected = served(&user_agent, &lines);
        prop_assert_eq!(&served_under(&ruled("192.0.3.0/24", denied()), &user_agent, &lines), &expected);
        prop_assert_eq!(&served_under(&ruled("192.0.2.0/24", Treatment::default()), &user_agent, &lines), &expected);
    }

    #[test]
    fn who_asks_for_an_engine_gets_what_the_engine_gets(
        user_agent in user_agent(),
        lines in proptest::collection::vec(element(), 0..8),
    ) {
        for engine in KNOWN {
            let Some(name) = engine.user_agent.filter(|name| name.starts_with("docker/") || name.starts_with("containerd/"))
            else { continue };
            let own: Vec<Vec<u8>> = engine.accept.iter().map(|line| line.as_bytes().to_vec()).collect();
            let asks = Asks::ForEngine(name.to_owned());
            let policy = ruled("192.0.2.0/24", Treatment { asks, ..Treatment::default() });
            prop_assert_eq!(served_under(&policy, &user_agent, &lines), served(name.as_bytes(), &own), "{}", name);
        }
    }
}
