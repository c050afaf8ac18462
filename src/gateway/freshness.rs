//! How long the upstream's word holds. Without a clock: time comes as a value.

use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::{AGE, CACHE_CONTROL, HeaderValue, WARNING};

use crate::image::reference::Reference;
use crate::negotiate::glob::Glob;
use crate::upstream::{Failure, Permission};

/// How long the gateway goes by what the upstream said before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagPolicy {
    /// How long an answer is repeated before the upstream is asked again, where no rule says otherwise; by digest too.
    /// Default 0, and 60 s where permission comes from the gateway.
    pub ttl: Duration,
    /// For the tags that match; the first that does decides.
    pub rules: Vec<TagRule>,
    /// How long it is repeated that there is no such tag. Default 10 s.
    pub negative_ttl: Duration,
    /// How old an answer may be that is given while the upstream is out of reach; only where permission comes from the
    /// gateway. Default 24 h.
    pub stale_if_error: Duration,
    /// What is said of a tag that was there and is no more.
    pub on_404: OnMissing,
}

/// How long an answer holds for some tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagRule {
    /// Which; see [`Glob::of_tags`].
    pub tags: Glob,
    /// How long.
    pub ttl: Duration,
}

/// What is said of a tag that was there and is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMissing {
    /// That it is no more.
    Pass,
    /// What it named, as if the upstream were out of reach.
    Stale,
}

impl TagPolicy {
    /// The defaults where permission comes from here.
    pub fn under(permission: Permission) -> Self {
        let ttl = match permission {
            Permission::Upstream => Duration::ZERO,
            Permission::Gateway => Duration::from_secs(60),
        };
        Self {
            ttl,
            rules: Vec::new(),
            negative_ttl: Duration::from_secs(10),
            stale_if_error: Duration::from_secs(24 * 60 * 60),
            on_404: OnMissing::Pass,
        }
    }

    /// How long an answer about this reference is repeated without asking.
    pub(super) fn ttl_of(&self, reference: &Reference) -> Duration {
        let rule = match reference {
            Reference::Tag(tag) => self.rules.iter().find(|rule| rule.tags.matches(tag.as_str())),
            Reference::Digest(_) => None,
        };
        rule.map_or(self.ttl, |rule| rule.ttl)
    }

    /// How long it is repeated that there is nothing under this reference. A digest, and a tag that stands for one, is asked
    /// for in the course of other work, most of all just before something is stored or attached there.
    pub(super) fn negative_ttl_of(&self, reference: &Reference) -> Duration {
        match reference {
            Reference::Tag(tag) if !tag.as_str().starts_with("sha256-") => self.negative_ttl,
            Reference::Tag(_) | Reference::Digest(_) => Duration::ZERO,
        }
    }

    /// How old an answer may be that is given instead of a failure.
    pub(super) const fn stale_life(&self, permission: Permission) -> Duration {
        match permission {
            // Who cannot be asked gives no consent.
            Permission::Upstream => Duration::ZERO,
            Permission::Gateway => self.stale_if_error,
        }
    }

    /// The failure is one that an old answer is better than.
    pub(super) fn forgives(&self, failure: &Failure) -> bool {
        failure.is_outage() || (self.on_404 == OnMissing::Stale && failure.is_not_found())
    }
}

/// How long one answer holds, decided when it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    since: Instant,
    fresh: Duration,
    stale: Duration,
}

impl Validity {
    /// An answer given now, to a caller whose credentials live so long. All times are counted on a clock that nobody sets.
    pub(super) fn new(now: Instant, ttl: Duration, stale: Duration, credentials: Option<Duration>) -> Self {
        let fresh = credentials.map_or(ttl, |life| life.min(ttl));
        Self { since: now, fresh, stale }
    }

    /// How long there is any use in keeping it.
    pub(super) fn whole(&self) -> Duration {
        self.fresh.max(self.stale)
    }

    /// The upstream need not be asked, for a caller whose credentials live so long from now by the clock on the wall. One
    /// that was set forward ends them early; one that was set back prolongs nothing.
    pub(super) fn is_fresh(&self, now: Instant, credentials: Option<Duration>) -> bool {
        self.age(now) < self.fresh && credentials != Some(Duration::ZERO)
    }

    /// How old the answer is, if it is still better than nothing.
    pub(super) fn usable_age(&self, now: Instant) -> Option<Duration> {
        Some(self.age(now)).filter(|age| *age < self.stale)
    }

    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }
}

/// The client wants to hear what the upstream says now (RFC 9111, section 5.2.1).
pub(super) fn wants_revalidation(request: &HeaderMap) -> bool {
    let directives = request.get_all(CACHE_CONTROL).iter().filter_map(|line| line.to_str().ok());
    directives.flat_map(|line| line.split(',')).any(|directive| {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        let is = |word| name.trim().eq_ignore_ascii_case(word);
        is("no-cache") || (is("max-age") && value.trim().trim_matches('"').parse() == Ok(0_u64))
    })
}

/// Says on an answer that the upstream was not asked for it, and how old it is (RFC 9111, sections 5.1 and 5.5).
pub(super) fn mark_stale(answer: &mut HeaderMap, age: Duration) {
    answer.append(WARNING, HeaderValue::from_static("110 - \"Response is Stale\""));
    answer.insert(AGE, HeaderValue::from(age.as_secs()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rule = |tags, ttl| TagRule { tags: Glob::of_tags(tags).unwrap(), ttl: seconds(ttl) };
        let policy = TagPolicy {
            rules: vec![rule("*-RC*", 10), rule("v*", 3600), rule("v1", 7)],
            ..TagPolicy::under(Permission::Gateway)
        };
        for (tag, ttl) in [("v1-RC1", 10), ("v1", 3600), ("latest", 60)] {
            assert_eq!(policy.ttl_of(&Reference::Tag(tag.parse().unwrap())), seconds(ttl), "{tag}");
        }
        let digest = crate::image::digest::Digest::sha256(b"v1");
        assert_eq!(policy.ttl_of(&Reference::Digest(digest)), seconds(60));
    }

    #[test]
    fn only_the_absence_of_a_tag_that_people_give_is_remembered() {
        let policy = TagPolicy::under(Permission::Upstream);
        let tag = |tag: &str| policy.negative_ttl_of(&Reference::Tag(tag.parse().unwrap()));
        assert_eq!((tag("latest"), tag("sha256-0a1b.sig")), (seconds(10), Duration::ZERO));
        let digest = crate::image::digest::Digest::sha256(b"v1");
        assert_eq!(policy.negative_ttl_of(&Reference::Digest(digest)), Duration::ZERO);
    }

    #[test]
    fn an_answer_is_fresh_then_stale_then_over() {
        let now = Instant::now();
        let validity = Validity::new(now, seconds(10), seconds(30), None);
        for (after, fresh, usable) in [(0, true, true), (9, true, true), (10, false, true), (29, false, true)] {
            let later = now + seconds(after);
            assert_eq!(validity.is_fresh(later, None), fresh, "{after}");
            assert_eq!(validity.usable_age(later), usable.then(|| seconds(after)), "{after}");
        }
        for after in [30, 3000] {
            assert!(!validity.is_fresh(now + seconds(after), None));
            assert_eq!(validity.usable_age(now + seconds(after)), None, "{after}");
        }
    }

    #[test]
    fn credentials_end_what_was_remembered_for_them() {
        let now = Instant::now();
        let validity = Validity::new(now, seconds(10), Duration::ZERO, Some(seconds(5)));
        assert!(validity.is_fresh(now + seconds(4), Some(seconds(1))));
        assert!(!validity.is_fresh(now + seconds(5), Some(seconds(3600))), "the clock was set back");
        assert!(!validity.is_fresh(now + seconds(1), Some(Duration::ZERO)), "it was set forward");
        assert_eq!(Validity::new(now, seconds(10), Duration::ZERO, Some(Duration::MAX)).whole(), seconds(10));
    }

    #[test]
    fn a_client_can_insist() {
        let cases = [
            ("no-cache", true),
            ("No-Cache", true),
            ("max-age=0", true),
            ("public, max-age = \"0\"", true),
            ("max-age=1", false),
            ("max-age", false),
            ("max-age=0x", false),
            ("no-store", false),
            ("no-cached", false),
            ("", false),
        ];
        for (line, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, line.parse().unwrap());
            assert_eq!(wants_revalidation(&headers), expected, "{line}");
        }
    }

    proptest! {
        /// Whatever the numbers: fresh only within both lives, never an answer older than either allows, and nothing is
        /// ever stale where the upstream gives permission.
        #[test]
        fn nothing_is_repeated_longer_than_it_may(
            ttl in any::<u32>(), stale_if_error in any::<u32>(), life in proptest::option::of(any::<u64>()),
            left in proptest::option::of(any::<u64>()), after in any::<u32>(),
        ) {
            let policy = TagPolicy {
                ttl: seconds(ttl.into()),
                stale_if_error: seconds(stale_if_error.into()),
                ..TagPolicy::under(Permission::Gateway)
            };
            let (life, left, now) = (life.map(seconds), left.map(seconds), Instant::now());
            for permission in [Permission::Upstream, Permission::Gateway] {
                let validity = Validity::new(now, policy.ttl, policy.stale_life(permission), life);
                let later = now + seconds(after.into());
                let lives = |life: Option<Duration>| life.is_none_or(|life| seconds(after.into()) < life);
                let fresh = after < ttl && lives(life) && left != Some(Duration::ZERO);
                prop_assert_eq!(validity.is_fresh(later, left), fresh);
                let usable = permission == Permission::Gateway && after < stale_if_error;
                prop_assert_eq!(validity.usable_age(later), usable.then(|| seconds(after.into())));
            }
        }
    }
}
