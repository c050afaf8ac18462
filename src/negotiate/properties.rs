//! What holds for any headers at all.

use proptest::prelude::*;

use crate::image::media_type::{
    Format, MANIFEST_LIST, OCI_ARTIFACT, OCI_INDEX, OCI_MANIFEST, SCHEMA1, SCHEMA1_SIGNED, SCHEMA2,
};

use super::clients::KNOWN;
use super::{Choice, Client, Policy, Stored, StoredContent, choose};

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
    let client = Client::from_headers(lines.iter().map(Vec::as_slice), Some(user_agent), &Policy::default());
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
}
