//! What the operator says about clients, which goes before what the table of [`clients`](super::clients) says.

// Addresses alone: there is no socket in `core`.
use core::net::IpAddr;
use std::fmt;
use std::str::FromStr;

use ipnet::IpNet;

use crate::image::platform::Platform;

use super::clients::recognise;
use super::formats::Formats;
use super::user_agent::UserAgent;

/// One rule of the operator's. The first whose senders match counts, and no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRule {
    senders: Senders,
    treatment: Treatment,
}

/// Whom a rule is about: who matches every condition that there is. At least one must be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Senders {
    /// Patterns of the `User-Agent`, one of which must match. Default none: any.
    pub user_agents: Vec<UserAgentGlob>,
    /// Networks, one of which must hold the client's address. Default none: any.
    pub networks: Vec<IpNet>,
}

/// How they are treated. What is not said is as it would be without the rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Treatment {
    /// The formats that they truly read, whatever they accept. Default what the table says.
    pub reads: Option<Formats>,
    /// The platform whose image is picked out of a list for them, in every repository. Default their own.
    pub platform: Option<Platform>,
    /// In whose place they ask. Default their own.
    pub asks: Asks,
    /// Whether they may get schema 1. Default allowed.
    pub schema1: Schema1,
}

/// In whose place a client asks for a tag. A tool that compares the digest of a tag with that of a pull must be told the
/// digest that the pull was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Asks {
    /// For itself.
    #[default]
    ForItself,
    /// To compare with what is stored: it always gets the stored form.
    ForStored,
    /// To compare with what an engine pulled: it gets what the engine with this `User-Agent` gets, which may be
    /// translated. Its own `User-Agent` and `Accept` say nothing then.
    ForEngine(String),
}

/// Whether a client may get schema 1, translated or stored, for a tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schema1 {
    /// Where the negotiation comes to it.
    #[default]
    Allowed,
    /// Never.
    Denied,
}

/// Why a [`ClientRule`] would mean nothing, or two things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidClientRule {
    /// It has no condition.
    #[error("a client rule needs a condition: a pattern of the User-Agent, or a network")]
    NoCondition,
    /// Its clients would read nothing.
    #[error("a client rule that says what its clients read must name a format")]
    ReadsNothing,
    /// It says what a client reads that gets what another gets.
    #[error("a client rule says either what its clients read or in whose place they ask, not both")]
    TwoStances,
    /// Nobody knows what the engine reads.
    #[error(
        "nobody knows what this engine reads: expected the User-Agent of an engine with its version, such as \
         `docker/17.05.0-ce os/linux arch/amd64`"
    )]
    UnknownEngine,
}

impl ClientRule {
    /// A rule that treats `senders` so.
    pub fn new(senders: Senders, treatment: Treatment) -> Result<Self, InvalidClientRule> {
        if senders.user_agents.is_empty() && senders.networks.is_empty() {
            return Err(InvalidClientRule::NoCondition);
        }
        if treatment.reads.is_some_and(Formats::is_empty) {
            return Err(InvalidClientRule::ReadsNothing);
        }
        if treatment.reads.is_some() && treatment.asks != Asks::ForItself {
            return Err(InvalidClientRule::TwoStances);
        }
        if let Asks::ForEngine(engine) = &treatment.asks
            && recognise(&UserAgent::parse(engine.as_bytes())).is_none()
        {
            return Err(InvalidClientRule::UnknownEngine);
        }
        Ok(Self { senders, treatment })
    }

    /// How its senders are treated.
    pub const fn treatment(&self) -> &Treatment {
        &self.treatment
    }

    pub(super) fn is_about(&self, user_agent: &UserAgent<'_>, address: IpAddr) -> bool {
        let Senders { user_agents, networks } = &self.senders;
        // A listener for both families sees a client of the older one under a mapped address.
        let address = address.to_canonical();
        (user_agents.is_empty() || user_agents.iter().any(|glob| glob.matches(user_agent.as_str())))
            && (networks.is_empty() || networks.iter().any(|network| network.contains(&address)))
    }
}

/// A pattern of a whole `User-Agent`, up to ` UpstreamClient(`, in which `*` stands for any characters. Case as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserAgentGlob(Box<str>);

/// Why a text is not a [`UserAgentGlob`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a pattern of a User-Agent: expected at most 255 printable characters, `*` among them, such as `docker/1.9.*`"
)]
pub struct InvalidUserAgentGlob;

/// The longest pattern, in bytes.
const GLOB_BYTES_MAX: usize = 255;

impl UserAgentGlob {
    /// All of `text` matches. Each piece between stars is looked for once, so no pattern makes this slow.
    pub fn matches(&self, text: &str) -> bool {
        let Some((start, rest)) = self.0.split_once('*') else { return *self.0 == *text };
        let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
        let inner = text.strip_prefix(start).and_then(|text| text.strip_suffix(end));
        let Some(mut inner) = inner else { return false };
        middle.split('*').all(|piece| match inner.find(piece) {
            Some(position) => {
                inner = inner.get(position + piece.len()..).unwrap_or_default();
                true
            }
            None => false,
        })
    }
}

impl FromStr for UserAgentGlob {
    type Err = InvalidUserAgentGlob;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_printable = |char: char| !char.is_control();
        let fits = !text.is_empty() && text.len() <= GLOB_BYTES_MAX && text.chars().all(is_printable);
        if fits { Ok(Self(text.into())) } else { Err(InvalidUserAgentGlob) }
    }
}

impl fmt::Display for UserAgentGlob {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::image::media_type::Format;

    use super::*;

    fn glob(pattern: &str) -> UserAgentGlob {
        pattern.parse().unwrap()
    }

    fn by_user_agent(pattern: &str) -> Senders {
        Senders { user_agents: vec![glob(pattern)], ..Senders::default() }
    }

    fn is_about(senders: Senders, user_agent: &str, address: &str) -> bool {
        let rule = ClientRule::new(senders, Treatment::default()).unwrap();
        rule.is_about(&UserAgent::parse(user_agent.as_bytes()), address.parse().unwrap())
    }

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, text, expected) in [
            ("Watchtower", "Watchtower", true),
            ("Watchtower", "Watchtower/1", false),
            ("docker/1.9.*", "docker/1.9.1 go/go1.4.3 os/linux arch/arm", true),
            ("docker/1.9.*", "docker/1.10.3", false),
            ("docker/*arch/arm", "docker/1.9.1 os/linux arch/arm", true),
            ("docker/*arch/arm", "docker/1.9.1 os/linux arch/arm64", false),
            ("*kernel/*tegra*", "docker/20.10.24 kernel/4.9.253-tegra os/linux", true),
            ("*", "", true),
            ("**", "anything/at all", true),
            ("a*a", "a", false),
            ("a*b*b", "ab", false),
            ("a*b*b", "abb", true),
            ("docker/*", "Docker/1", false),
        ] {
            assert_eq!(glob(pattern).matches(text), expected, "{pattern} {text}");
        }
        for bad in ["", "a\nb", &"a".repeat(256)] {
            assert!(bad.parse::<UserAgentGlob>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_condition_must_match_and_one_of_each_is_enough() {
        let user_agents = vec![glob("curl/*"), glob("Wget/*")];
        let networks = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let both = || Senders { user_agents: user_agents.clone(), networks: networks.clone() };
        assert!(is_about(both(), "Wget/1.21", "10.1.2.3"));
        assert!(is_about(both(), "curl/8.5.0", "fd00::1"));
        assert!(is_about(both(), "curl/8.5.0", "::ffff:10.1.2.3"));
        assert!(!is_about(both(), "curl/8.5.0", "11.1.2.3"));
        assert!(!is_about(both(), "Watchtower", "10.1.2.3"));
        assert!(is_about(Senders { user_agents: Vec::new(), ..both() }, "Watchtower", "10.1.2.3"));
        assert!(is_about(Senders { networks: Vec::new(), ..both() }, "curl/8.5.0", "192.0.2.1"));
    }

    #[test]
    fn the_callers_own_program_does_not_count() {
        let called = "docker/20.10.24 os/linux arch/amd64 UpstreamClient(compose/1.29)";
        assert!(!is_about(by_user_agent("*compose*"), called, "192.0.2.1"));
        assert!(is_about(by_user_agent("docker/*arch/amd64"), called, "192.0.2.1"));
    }

    #[test]
    fn a_rule_that_means_nothing_or_two_things_is_none() {
        let refused = |senders, treatment| ClientRule::new(senders, treatment).unwrap_err();
        assert_eq!(refused(Senders::default(), Treatment::default()), InvalidClientRule::NoCondition);
        let reading = |formats, asks| Treatment { reads: Some(formats), asks, ..Treatment::default() };
        let nothing = reading(Formats::NONE, Asks::ForItself);
        assert_eq!(refused(by_user_agent("x"), nothing), InvalidClientRule::ReadsNothing);
        let twice = reading(Formats::of(&[Format::Oci]), Asks::ForStored);
        assert_eq!(refused(by_user_agent("x"), twice), InvalidClientRule::TwoStances);
        for engine in ["", "docker/dev", "my-engine/1.0", "17.05"] {
            let asks = Asks::ForEngine(engine.to_owned());
            let unknown = Treatment { asks, ..Treatment::default() };
            assert_eq!(refused(by_user_agent("x"), unknown), InvalidClientRule::UnknownEngine, "{engine}");
        }
    }

    proptest! {
        /// The same answer as trying every way to split the text.
        #[test]
        fn a_pattern_matches_what_its_definition_says(pattern in "[ab*]{1,8}", text in "[ab]{0,10}") {
            fn defined(pattern: &[u8], text: &[u8]) -> bool {
                match pattern.split_first() {
                    None => text.is_empty(),
                    Some((b'*', rest)) => (0..=text.len()).any(|skipped| defined(rest, &text[skipped..])),
                    Some((byte, rest)) => text.first() == Some(byte) && defined(rest, &text[1..]),
                }
            }
            prop_assert_eq!(glob(&pattern).matches(&text), defined(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
