//! The rule: what a client gets for a tag.
//!
//! The stored form, if the client reads it; else the nearest form that it reads; else the stored form again, where the
//! client's own words about it are better than ours or nobody knows what it reads; else a refusal. A stored form that is
//! acceptable always wins: a translation changes the digest, and with it breaks signatures and pins, for no gain.

use std::cmp::Reverse;
use std::fmt;

use crate::image::media_type::Format;

use super::accept::Presence;
use super::client::{Client, Transcode, Upgrade};
use super::clients::{Mode, Quirk};
use super::formats::Formats;
use super::refusal::Refusal;
use super::rules::Schema1;
use super::stored::{Stored, StoredContent};

/// What a client gets for a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The stored bytes, untouched.
    AsStored {
        /// Why, for the access log.
        why: Why,
    },
    /// The first of the candidates that there is a cell for and whose cell succeeds. Never empty.
    Derive {
        /// What to try, in this order. The cell starts from [`Stored::counts_as`].
        candidates: Vec<Candidate>,
        /// Why, for the access log.
        why: Why,
    },
    /// Nothing: a 406.
    Refuse(Refusal),
}

/// A form that the client reads and that the stored document may be translated to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The format to answer in.
    pub target: Format,
    /// How much of the stored document.
    pub scope: Scope,
}

/// How much of the stored document a candidate takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of it: an image, or a list or index with its children.
    Whole,
    /// One platform's child of a list or index, translated where it is not in the target format already.
    PlatformChild,
}

/// Why a client gets what it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The stored form is one that the client reads.
    Reads,
    /// The client compares digests, so only the stored one will do.
    Probe,
    /// There is no `Accept` header and the client is not known.
    NoAccept,
    /// The client accepts anything.
    Anything,
    /// The stored form is one that the client claims and then refuses, in words better than ours.
    OwnRefusal,
    /// The same of schema 1, which the operator could have upgraded for the client.
    NotUpgraded,
    /// The client is not known and does not list the stored form, for which there is no translation.
    Unlisted,
    /// The client lists no type that is known here.
    NothingKnown,
    /// The client does not read the stored form.
    CannotRead,
    /// The client reads the stored form, but not with these parts in it.
    ForeignParts,
    /// The client reads the stored form, but not layers compressed with zstd.
    ZstdLayers,
}

impl Why {
    /// A few plain words for the access log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reads => "the client reads it",
            Self::Probe => "digest probe",
            Self::NoAccept => "no Accept header",
            Self::Anything => "the client accepts anything",
            Self::OwnRefusal => "client refuses it with its own message",
            Self::NotUpgraded => "client refuses it with its own message; `--upgrade-schema1` would have it translated",
            Self::Unlisted => "lenient: not in Accept, and nothing it lists can be made of it",
            Self::NothingKnown => "lenient: no known type in Accept",
            Self::CannotRead => "the client does not read the stored format",
            Self::ForeignParts => "the client does not read the stored format with OCI parts in it",
            Self::ZstdLayers => "the client does not read layers compressed with zstd",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// What `client` gets when it asks for a tag under which `stored` is.
pub fn choose(stored: &Stored, client: &Client) -> Choice {
    if is_denied(stored, client) {
        return Choice::Refuse(Refusal::schema1_denied(stored.format, client));
    }
    if client.mode() == Mode::Probe {
        return Choice::AsStored { why: Why::Probe };
    }
    if let Some(refusal) = zero_layers(stored, client) {
        return Choice::Refuse(refusal);
    }
    let format = stored.counts_as(client);
    if format == stored.format && stored.is_in(client.usable()) {
        return match zstd(stored, client) {
            Some(_) if transcodes(client) => {
                let candidates = vec![Candidate { target: format, scope: Scope::Whole }];
                Choice::Derive { candidates, why: Why::ZstdLayers }
            }
            Some(refusal) => Choice::Refuse(refusal),
            None => Choice::AsStored { why: why_readable(client) },
        };
    }
    let candidates = candidates(format, client.usable(), client);
    if candidates.is_empty() {
        return otherwise(stored, client);
    }
    let why = if format == stored.format { Why::CannotRead } else { Why::ForeignParts };
    Choice::Derive { candidates, why }
}

/// What `client` gets where no candidate is left because no cell makes any of them. Not for candidates that were tried
/// and failed: those are refused with the first one's reason ([`Refusal::untranslatable`]).
pub fn otherwise(stored: &Stored, client: &Client) -> Choice {
    let covered = stored.is_in(client.covered());
    match (covered, client.is_known()) {
        (true, true) if is_upgradable(stored, client) => Choice::AsStored { why: Why::NotUpgraded },
        (true, true) => Choice::AsStored { why: Why::OwnRefusal },
        (true, false) => Choice::AsStored { why: why_readable(client) },
        (false, false) if stored.format == Format::Schema1 && client.accept().names_only_oci() => {
            Choice::Refuse(Refusal::only_oci(stored.format, client))
        }
        (false, false) => Choice::AsStored { why: Why::Unlisted },
        (false, true) => Choice::Refuse(Refusal::unreadable(stored.format, client)),
    }
}

/// What keeps `client` from using a single image in its stored form, though it reads the format. [`choose`] asks this
/// itself; whoever answers one platform's child as it is stored asks it about the child.
pub fn objection(image: &Stored, client: &Client) -> Option<Refusal> {
    zero_layers(image, client).or_else(|| zstd(image, client))
}

/// Whether gzip layers must stand for the zstd ones of a single image before `client` can read it as `target`, and the
/// operator lets them.
pub fn is_transcoded(image: &Stored, client: &Client, target: Format) -> bool {
    matches!(image.content, StoredContent::Image { zstd: true, .. }) && wants_gzip(image, client, target)
}

/// The same for stored schema 1 that is upgraded: what its layers are, only they tell.
pub fn is_transcoded_when_upgraded(image: &Stored, client: &Client, target: Format) -> bool {
    image.format == Format::Schema1 && target != Format::Schema1 && wants_gzip(image, client, target)
}

fn wants_gzip(image: &Stored, client: &Client, target: Format) -> bool {
    let is_translated = image.counts_as(client) != target;
    let is_target = is_translated && matches!(target, Format::Schema1 | Format::Schema2);
    transcodes(client) && (is_target || client.has(Quirk::NoZstd))
}

/// Schema 1 is all that there is for `client`, and the operator denies it: it is stored, or it is the only candidate.
fn is_denied(stored: &Stored, client: &Client) -> bool {
    if client.schema1() == Schema1::Allowed {
        return false;
    }
    let (format, usable) = (stored.counts_as(client), client.usable());
    let reads_stored = format == stored.format && stored.is_in(usable);
    let has_candidate = |formats| !candidates(format, formats, client).is_empty();
    (stored.format == Format::Schema1 && !has_candidate(usable))
        || (client.mode() != Mode::Probe && !reads_stored && !has_candidate(usable) && has_candidate(client.readable()))
}

/// The operator could have it upgraded for `client`, and has not opted in.
fn is_upgradable(stored: &Stored, client: &Client) -> bool {
    let reads_newer = [Format::Oci, Format::Schema2].into_iter().any(|format| client.usable().contains(format));
    stored.format == Format::Schema1 && client.layers().upgrade == Upgrade::Nothing && reads_newer
}

fn zero_layers(image: &Stored, client: &Client) -> Option<Refusal> {
    let empty = matches!(image.content, StoredContent::Image { layers: 0, .. });
    (empty && client.has(Quirk::ZeroLayersPanic)).then(|| Refusal::zero_layers(image.format, client))
}

fn zstd(image: &Stored, client: &Client) -> Option<Refusal> {
    let zstd = matches!(image.content, StoredContent::Image { zstd: true, .. });
    (zstd && client.has(Quirk::NoZstd)).then(|| Refusal::zstd(image.format, client))
}

fn transcodes(client: &Client) -> bool {
    client.layers().transcode == Transcode::Zstd
}

fn why_readable(client: &Client) -> Why {
    match (client.accept().presence(), client.is_known()) {
        (Presence::Absent, false) => Why::NoAccept,
        (Presence::Unknown, false) => Why::NothingKnown,
        (Presence::Wildcard, false) => Why::Anything,
        _ => Why::Reads,
    }
}

/// The candidates for a document of `format` that are among the `usable` formats of `client`, the nearest first: the one
/// with the fewest changes. Real lists of qualities are inverted nonsense, so they order only what an unknown client gets.
fn candidates(format: Format, usable: Formats, client: &Client) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> =
        nearest(format, client).iter().copied().filter(|candidate| usable.contains(candidate.target)).collect();
    if !client.is_known() {
        candidates.sort_by_key(|candidate| Reverse(client.accept().quality(candidate.target)));
    }
    candidates
}

/// What a document of `format` can be turned into, the nearest first.
fn nearest(format: Format, client: &Client) -> &'static [Candidate] {
    const fn whole(target: Format) -> Candidate {
        Candidate { target, scope: Scope::Whole }
    }
    const fn child(target: Format) -> Candidate {
        Candidate { target, scope: Scope::PlatformChild }
    }
    match format {
        Format::Schema2 => const { &[whole(Format::Oci), whole(Format::Schema1)] },
        Format::Oci => const { &[whole(Format::Schema2), whole(Format::Schema1)] },
        Format::List => {
            const { &[whole(Format::Index), child(Format::Schema2), child(Format::Oci), child(Format::Schema1)] }
        }
        Format::Index => {
            const { &[whole(Format::List), child(Format::Oci), child(Format::Schema2), child(Format::Schema1)] }
        }
        // The table has no answer; an upgrade is the operator's policy.
        Format::Schema1 if client.layers().upgrade == Upgrade::Schema1 => {
            const { &[whole(Format::Oci), whole(Format::Schema2)] }
        }
        Format::Schema1 | Format::Artifact => &[],
    }
}

#[cfg(test)]
mod tests {
    use core::net::{IpAddr, Ipv4Addr};

    use super::super::clients::KNOWN;
    use super::super::{Asks, ClientRule, PlatformRule, Policy, Senders, Treatment, WithoutAccept};
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const DOCKER_1_10: &str = "docker/1.10.3 go/go1.5.3 os/linux arch/amd64";
    const DOCKER_17: &str = "docker/17.03.2-ce go/go1.7.5 os/linux arch/amd64";
    const DOCKER_20: &str = "docker/20.10.24+dfsg1 go/go1.19.8 os/linux arch/amd64";
    const DOCKER_TYPES: &str = "application/json, application/vnd.docker.distribution.manifest.v1+prettyjws, \
        application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";
    const OCI_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";

    fn client(user_agent: &str, accept: &[&str]) -> Client {
        client_under(&Policy::default(), user_agent, accept)
    }

    fn client_under(policy: &Policy, user_agent: &str, accept: &[&str]) -> Client {
        let lines = accept.iter().map(|line| line.as_bytes());
        Client::from_headers(lines, Some(user_agent.as_bytes()), ADDRESS, policy)
    }

    fn image(format: Format) -> Stored {
        let docker_config = format == Format::Schema2;
        Stored { format, content: StoredContent::Image { layers: 2, zstd: false, docker_config } }
    }

    fn zstd_image(format: Format) -> Stored {
        let docker_config = format == Format::Schema2;
        Stored { format, content: StoredContent::Image { layers: 2, zstd: true, docker_config } }
    }

    fn opaque(format: Format) -> Stored {
        Stored { format, content: StoredContent::Opaque }
    }

    fn entries(format: Format, docker_children: bool) -> Stored {
        Stored { format, content: StoredContent::Entries { docker_children } }
    }

    fn targets(choice: &Choice) -> Vec<(Format, Scope)> {
        match choice {
            Choice::Derive { candidates, .. } => candidates.iter().map(|one| (one.target, one.scope)).collect(),
            other => panic!("expected a derivation, found {other:?}"),
        }
    }

    fn refusal(choice: &Choice) -> String {
        match choice {
            Choice::Refuse(refusal) => refusal.to_string(),
            other => panic!("expected a refusal, found {other:?}"),
        }
    }

    #[test]
    fn docker_28_and_crane_list_schema_1_and_cannot_read_it() {
        let docker = client("docker/28.2.2 os/linux arch/amd64", &[DOCKER_TYPES, OCI_TYPES]);
        let crane = client("crane/v0.21.9 go-containerregistry/v0.21.9", &[DOCKER_TYPES, OCI_TYPES]);
        for client in [docker, crane] {
            assert_eq!(choose(&opaque(Format::Schema1), &client), Choice::AsStored { why: Why::NotUpgraded });
            assert_eq!(choose(&image(Format::Oci), &client), Choice::AsStored { why: Why::Reads });
        }
    }

    #[test]
    fn watchtower_and_renovate_see_the_stored_digest() {
        // no OCI manifest type in Watchtower's Accept: a derived digest would make it restart containers for ever
        let watchtower = client("Watchtower", &["application/vnd.docker.distribution.manifest.v2+json"]);
        for format in Format::ALL {
            assert_eq!(choose(&opaque(format), &watchtower), Choice::AsStored { why: Why::Probe });
        }
        let docker = "application/vnd.docker.distribution.manifest.v2+json";
        let renovate = client("RenovateBot/41 (https://github.com/renovatebot/renovate)", &[docker, OCI_TYPES]);
        assert_eq!(choose(&image(Format::Oci), &renovate), Choice::AsStored { why: Why::Reads });
        let diun = client("diun/4.30.0", &[DOCKER_TYPES, OCI_TYPES]);
        assert_eq!(choose(&entries(Format::Index, false), &diun), Choice::AsStored { why: Why::Reads });
    }

    #[test]
    fn the_callers_version_in_upstream_client_does_not_count() {
        let user_agent = "docker/1.9.1 os/linux arch/arm UpstreamClient(Docker-Client/28.2.2 \\(linux\\))";
        let client = client(user_agent, &["*/*"]);
        assert_eq!(client.class(), "docker<1.10");
        assert_eq!(targets(&choose(&image(Format::Oci), &client)), [(Format::Schema1, Scope::Whole)]);
    }

    #[test]
    fn docker_before_1_10_gets_schema_1_whatever_accept_says() {
        for accept in [&[][..], &["*/*"], &[OCI_TYPES], &["application/vnd.docker.distribution.manifest.v1+json;q=0"]] {
            let client = client("docker/1.9.1 go/go1.4.3 os/linux arch/amd64", accept);
            assert_eq!(targets(&choose(&image(Format::Schema2), &client)), [(Format::Schema1, Scope::Whole)]);
            assert_eq!(choose(&opaque(Format::Schema1), &client), Choice::AsStored { why: Why::Reads });
        }
    }

    #[test]
    fn a_docker_build_without_a_version_is_taken_at_its_word() {
        for version in ["dev", "library-import", "unknown-version", "0.0.0-20231223-abc"] {
            let client = client(&format!("docker/{version} go/go1.21 os/linux arch/amd64"), &[OCI_TYPES]);
            assert_eq!(client.class(), "unknown");
            assert_eq!(choose(&image(Format::Oci), &client), Choice::AsStored { why: Why::Reads });
        }
    }

    #[test]
    fn a_hybrid_is_made_proper_for_docker_1_10_to_18_05_only() {
        let hybrid = Stored {
            format: Format::Schema2,
            content: StoredContent::Image { layers: 2, zstd: false, docker_config: false },
        };
        let old = client(DOCKER_17, &[DOCKER_TYPES]);
        assert_eq!(hybrid.counts_as(&old), Format::Oci);
        let choice = choose(&hybrid, &old);
        assert_eq!(targets(&choice), [(Format::Schema2, Scope::Whole), (Format::Schema1, Scope::Whole)]);
        assert!(matches!(choice, Choice::Derive { why: Why::ForeignParts, .. }));
        let newer = client(DOCKER_20, &[DOCKER_TYPES, OCI_TYPES]);
        assert_eq!(hybrid.counts_as(&newer), Format::Schema2);
        assert_eq!(choose(&hybrid, &newer), Choice::AsStored { why: Why::Reads });
    }

    #[test]
    fn a_list_with_oci_children_counts_as_an_index_for_docker_1_10_to_18_05() {
        let list = entries(Format::List, false);
        let old = client(DOCKER_17, &[DOCKER_TYPES]);
        assert_eq!(
            targets(&choose(&list, &old)),
            [
                (Format::List, Scope::Whole),
                (Format::Schema2, Scope::PlatformChild),
                (Format::Schema1, Scope::PlatformChild)
            ]
        );
        assert_eq!(choose(&entries(Format::List, true), &old), Choice::AsStored { why: Why::Reads });
        let newer = client(DOCKER_20, &[DOCKER_TYPES, OCI_TYPES]);
        assert_eq!(choose(&list, &newer), Choice::AsStored { why: Why::Reads });
    }

    #[test]
    fn an_image_without_layers_is_kept_from_docker_1_10() {
        let content = StoredContent::Image { layers: 0, zstd: false, docker_config: true };
        for format in [Format::Schema2, Format::Oci] {
            let empty = Stored { format, content };
            let text = refusal(&choose(&empty, &client(DOCKER_1_10, &[DOCKER_TYPES])));
            assert!(text.contains("no layers") && text.contains("Docker 1.10.3"), "{text}");
            assert!(!matches!(choose(&empty, &client(DOCKER_17, &[DOCKER_TYPES])), Choice::Refuse(_)));
        }
    }

    #[test]
    fn zstd_layers_are_refused_to_who_cannot_unpack_them() {
        for user_agent in [DOCKER_20, "containerd/v1.4.13", "crane/v0.12.0 go-containerregistry/v0.12.0"] {
            let text = refusal(&choose(&zstd_image(Format::Oci), &client(user_agent, &[OCI_TYPES])));
            assert!(text.contains("zstd"), "{text}");
        }
        for user_agent in ["docker/23.0.0", "containerd/v1.5.0", "go-containerregistry/v0.13.0", "skopeo/1.22.2"] {
            let choice = choose(&zstd_image(Format::Oci), &client(user_agent, &[OCI_TYPES]));
            assert_eq!(choice, Choice::AsStored { why: Why::Reads }, "{user_agent}");
        }
        // the cell refuses, and names the layer
        let old = client(DOCKER_17, &[DOCKER_TYPES]);
        assert!(matches!(choose(&zstd_image(Format::Oci), &old), Choice::Derive { .. }));
        assert!(objection(&zstd_image(Format::Schema2), &old).is_some());
        assert!(objection(&zstd_image(Format::Schema2), &client("docker/1.9.1", &[])).is_some());
        assert!(objection(&zstd_image(Format::Schema2), &client("docker/23.0.0", &[])).is_none());
    }

    #[test]
    fn a_plugin_goes_to_who_reads_schema_2() {
        let plugin = Stored { format: Format::Artifact, content: StoredContent::Schema2Artifact };
        let docker = client(DOCKER_17, &[DOCKER_TYPES]);
        assert_eq!(choose(&plugin, &docker), Choice::AsStored { why: Why::Reads });
        let old = client("docker/1.9.1 os/linux arch/amd64", &[]);
        assert!(refusal(&choose(&plugin, &old)).contains("not a container image"));
    }

    #[test]
    fn qualities_rank_what_is_derived_for_unknown_clients_only() {
        let accept = ["application/vnd.docker.distribution.manifest.v2+json;q=0.1, \
            application/vnd.docker.distribution.manifest.v1+json;q=.9"];
        let [schema2, schema1] = [(Format::Schema2, Scope::Whole), (Format::Schema1, Scope::Whole)];
        assert_eq!(targets(&choose(&image(Format::Oci), &client("curl/8.5.0", &accept))), [schema1, schema2]);
        assert_eq!(targets(&choose(&image(Format::Oci), &client(DOCKER_17, &accept))), [schema2, schema1]);
        // the stored form wins, however little it is wanted
        let stored = choose(&image(Format::Schema2), &client("curl/8.5.0", &accept));
        assert_eq!(stored, Choice::AsStored { why: Why::Reads });
    }

    #[test]
    fn a_quality_of_zero_keeps_even_the_stored_form_away() {
        let accept =
            ["application/vnd.oci.image.manifest.v1+json;q=0, application/vnd.docker.distribution.manifest.v2+json"];
        assert_eq!(
            targets(&choose(&image(Format::Oci), &client("curl/8.5.0", &accept))),
            [(Format::Schema2, Scope::Whole)]
        );
    }

    #[test]
    fn schema_1_has_no_translation_for_who_takes_only_oci() {
        let text = refusal(&choose(&opaque(Format::Schema1), &client("curl/8.5.0", &[OCI_TYPES, "text/html"])));
        assert!(text.contains("Docker schema 1") && text.contains("only OCI types"), "{text}");
        let wider = client("curl/8.5.0", &[OCI_TYPES, "application/vnd.docker.distribution.manifest.v2+json"]);
        assert_eq!(choose(&opaque(Format::Schema1), &wider), Choice::AsStored { why: Why::Unlisted });
    }

    #[test]
    fn types_that_nobody_knows_are_no_reason_to_refuse() {
        for user_agent in ["curl/8.5.0", DOCKER_20, "containerd/v2.1.4"] {
            let client = client(user_agent, &["application/octet-stream"]);
            assert!(matches!(choose(&image(Format::Oci), &client), Choice::AsStored { .. }), "{user_agent}");
        }
    }

    #[test]
    fn a_policy_gives_schema_1_to_unknown_clients_without_accept() {
        let policy = Policy { without_accept: WithoutAccept::Schema1, ..Policy::default() };
        let without = client_under(&policy, "Python-urllib/3.11", &[]);
        assert_eq!(targets(&choose(&image(Format::Oci), &without)), [(Format::Schema1, Scope::Whole)]);
        assert_eq!(choose(&opaque(Format::Artifact), &without), Choice::AsStored { why: Why::NoAccept });
        let listing = client_under(&policy, "curl/8.5.0", &["*/*"]);
        assert_eq!(choose(&image(Format::Oci), &listing), Choice::AsStored { why: Why::Anything });
    }

    #[test]
    fn where_no_cell_makes_the_last_candidate_the_rule_goes_on() {
        let index_only = client("curl/8.5.0", &["application/vnd.oci.image.index.v1+json"]);
        let list = entries(Format::List, true);
        assert_eq!(targets(&choose(&list, &index_only)), [(Format::Index, Scope::Whole)]);
        assert_eq!(otherwise(&list, &index_only), Choice::AsStored { why: Why::Unlisted });
    }

    #[test]
    fn every_known_client_gets_an_ordinary_image() {
        for known in KNOWN {
            let lines = known.accept.iter().map(|line| line.as_bytes());
            let user_agent = known.user_agent.map(str::as_bytes);
            let client = Client::from_headers(lines, user_agent, ADDRESS, &Policy::default());
            for stored in [image(Format::Schema2), image(Format::Oci)] {
                let choice = choose(&stored, &client);
                assert!(!matches!(choice, Choice::Refuse(_)), "{}: {choice:?}", known.name);
            }
        }
    }

    #[test]
    fn a_refusal_says_what_is_stored_what_is_read_and_what_to_do() {
        let text = refusal(&choose(&opaque(Format::Artifact), &client(DOCKER_17, &[DOCKER_TYPES])));
        assert_eq!(
            text,
            "this is not a container image but an OCI artifact, and Docker 17.03.2 reads only Docker schema 1, \
             Docker schema 2 and a Docker manifest list; fetch it with the tool that made it, such as oras or helm"
        );
    }

    fn ruled(user_agent: &str, treatment: Treatment) -> ClientRule {
        let senders = Senders { user_agents: vec![user_agent.parse().unwrap()], ..Senders::default() };
        ClientRule::new(senders, treatment).unwrap()
    }

    fn under(rules: &[ClientRule], user_agent: &str, accept: &[&str]) -> Client {
        client_under(&Policy { clients: rules.to_vec(), ..Policy::default() }, user_agent, accept)
    }

    #[test]
    fn the_first_rule_that_matches_counts_and_goes_before_the_table() {
        let reads = |format| Treatment { reads: Some(Formats::of(&[format])), ..Treatment::default() };
        let rules = [ruled("docker/20.*", reads(Format::Schema2)), ruled("docker/*", reads(Format::Schema1))];
        let choice = choose(&image(Format::Oci), &under(&rules, DOCKER_20, &[DOCKER_TYPES, OCI_TYPES]));
        assert_eq!(targets(&choice), [(Format::Schema2, Scope::Whole)]);
        let choice = choose(&image(Format::Oci), &under(&rules, DOCKER_17, &[DOCKER_TYPES]));
        assert_eq!(targets(&choice), [(Format::Schema1, Scope::Whole)]);
        // what the rule does not say stays as the table has it
        let zstd = choose(&zstd_image(Format::Schema2), &under(&rules, DOCKER_20, &[DOCKER_TYPES]));
        assert!(refusal(&zstd).contains("zstd"));
    }

    #[test]
    fn a_rule_makes_an_unknown_client_known() {
        let reads = Some(Formats::of(&[Format::Schema1]));
        let rules = [ruled("legacy-tool*", Treatment { reads, ..Treatment::default() })];
        for accept in [&[][..], &["*/*"], &["application/json"]] {
            let choice = choose(&image(Format::Oci), &under(&rules, "legacy-tool/1.0", accept));
            assert_eq!(targets(&choice), [(Format::Schema1, Scope::Whole)]);
        }
    }

    #[test]
    fn a_probe_sees_what_is_stored_or_what_its_engine_gets() {
        let asks = |asks| [ruled("probe", Treatment { asks, ..Treatment::default() })];
        let schema2 = "application/vnd.docker.distribution.manifest.v2+json";
        let stored = under(&asks(Asks::ForStored), "probe", &[schema2]);
        assert_eq!(choose(&image(Format::Oci), &stored), Choice::AsStored { why: Why::Probe });
        let engine = "docker/1.9.1 os/linux arch/arm";
        let client = under(&asks(Asks::ForEngine(engine.to_owned())), "probe", &[schema2, OCI_TYPES]);
        assert_eq!(targets(&choose(&image(Format::Schema2), &client)), [(Format::Schema1, Scope::Whole)]);
        assert_eq!(client.platform().to_string(), "linux/arm");
    }

    #[test]
    fn a_platform_of_a_rule_goes_before_those_of_repositories() {
        let platform = Some("linux/arm/v6".parse().unwrap());
        let policy = Policy {
            clients: vec![ruled("docker/17*", Treatment { platform, ..Treatment::default() })],
            platforms: vec![PlatformRule {
                repositories: "**".parse().unwrap(),
                platform: "linux/s390x".parse().unwrap(),
            }],
            ..Policy::default()
        };
        let wanted = |user_agent| {
            client_under(&policy, user_agent, &[]).platform_for(&"app".parse().unwrap(), &policy).to_string()
        };
        assert_eq!(wanted(DOCKER_17), "linux/arm/v6");
        assert_eq!(wanted(DOCKER_20), "linux/s390x");
    }

    #[test]
    fn who_is_denied_schema_1_is_told_so() {
        let denied = [ruled("*", Treatment { schema1: Schema1::Denied, ..Treatment::default() })];
        let old = under(&denied, "docker/1.9.1 os/linux arch/amd64", &[]);
        let script = under(&denied, "script", &["application/vnd.docker.distribution.manifest.v1+prettyjws"]);
        let probe = [ruled("*", Treatment { asks: Asks::ForStored, schema1: Schema1::Denied, ..Treatment::default() })];
        for client in [&old, &script] {
            for stored in [image(Format::Oci), image(Format::Schema2), entries(Format::Index, false)] {
                let text = refusal(&choose(&stored, client));
                assert!(text.contains("operator of this gateway keeps that old format"), "{text}");
                assert!(text.contains("Docker 1.10 or newer"), "{text}");
            }
        }
        for client in [old, script, under(&denied, "curl/8", &["*/*"]), under(&probe, "probe", &[])] {
            let text = refusal(&choose(&opaque(Format::Schema1), &client));
            assert!(text.contains("stored as Docker schema 1") && text.contains("build the image again"), "{text}");
        }
        let newer = under(&denied, DOCKER_17, &[DOCKER_TYPES]);
        assert_eq!(targets(&choose(&image(Format::Oci), &newer)), [(Format::Schema2, Scope::Whole)]);
        assert!(refusal(&choose(&opaque(Format::Artifact), &newer)).contains("not a container image"));
        let probe = under(&probe, "probe", &[]);
        assert_eq!(choose(&image(Format::Oci), &probe), Choice::AsStored { why: Why::Probe });
    }
}
