//! What the page shows, for programs: `/api/clients` and `/api/status`, described in docs/page.md.
//!
//! Fields may be added; none changes its name or what it means.

use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use crate::gateway::Service;
use crate::gateway::layers::Shown;
use crate::gateway::seen::{LastRefusal, Others, PULLS_MAX, Pull, REFUSALS_MAX, Refusal, Row, Snapshot, Tally};
use crate::gateway::standing::{Fill, OfUpstream, Standing};
use crate::image::media_type::Format;
use crate::upstream::RateLimit;

/// Who asked for what, and what they got.
pub(super) fn clients(service: &Service) -> Value {
    let Snapshot { since, pulls, other_pulls, cells, refusals, other_refusals } = service.shared().seen().snapshot();
    json!({
        "since": time(since),
        "now": time(SystemTime::now()),
        "clients_max": PULLS_MAX,
        "clients": pulls.iter().map(|(pull, row)| self::pull(pull, row)).collect::<Vec<_>>(),
        "other_clients": other_pulls.iter().map(|(need, others)| {
            let mut shown = self::others(others);
            shown["needs"] = need.word().into();
            shown
        }).collect::<Vec<_>>(),
        "translations": cells.iter().map(|((stored, served), tally)| {
            with_tally(json!({ "stored": stored.word(), "served": served.word() }), tally)
        }).collect::<Vec<_>>(),
        "refusals_max": REFUSALS_MAX,
        "refusals": refusals.iter().map(|(refusal, row)| self::refusal(refusal, row)).collect::<Vec<_>>(),
        "other_refusals": other_refusals.as_ref().map(others),
    })
}

fn pull(pull: &Pull, row: &Row<String>) -> Value {
    let shown = json!({
        "upstream": pull.upstream,
        "repository": pull.repository,
        "client": pull.sender.kind,
        "version": pull.sender.version,
        "class": pull.sender.class,
        "reads": pull.reads.iter().map(Format::word).collect::<Vec<_>>(),
        "needs": pull.need().word(),
        "stored": pull.stored.word(),
        "served": pull.served.map(Format::word),
        "why": row.last,
    });
    with_tally(shown, &row.tally)
}

fn refusal(refusal: &Refusal, row: &Row<LastRefusal>) -> Value {
    let shown = json!({
        "upstream": refusal.upstream,
        "status": refusal.status.as_u16(),
        "code": refusal.code,
        "class": refusal.class,
        "reason": row.last.words,
        "path": row.last.path,
    });
    with_tally(shown, &row.tally)
}

fn others(others: &Others) -> Value {
    with_tally(json!({ "rows": others.rows }), &others.tally)
}

fn with_tally(mut shown: Value, tally: &Tally) -> Value {
    shown["requests"] = tally.requests.into();
    shown["first_seen"] = time(tally.first).into();
    shown["last_seen"] = time(tally.last).into();
    shown
}

/// What the gateway stands in front of, and how that and what it keeps are.
pub(super) fn status(service: &Service) -> Value {
    let Standing { upstreams, store, store_is_durable, store_state, memory, blob_cache, work } = service.standing();
    let (since, now) = (service.shared().seen().since(), SystemTime::now());
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "since": time(since),
        "now": time(now),
        "uptime_seconds": now.duration_since(since).unwrap_or_default().as_secs(),
        "upstreams": upstreams.iter().map(upstream).collect::<Vec<_>>(),
        "store": {
            "location": store,
            "durable": store_is_durable,
            "reads": store_state.reads,
            "writes": store_state.writes,
        },
        "memory": fill(&memory),
        "blob_cache": blob_cache.as_ref().map(fill),
        "work": work.iter().map(self::work).collect::<Vec<_>>(),
    })
}

fn work(shown: &Shown) -> Value {
    let Shown { kind, upstream, repository, source, since, layers, layers_done, bytes, bytes_done } = shown;
    json!({
        "kind": kind.word(),
        "upstream": upstream,
        "repository": repository,
        "source": source,
        "since": time(*since),
        "layers": layers,
        "layers_done": layers_done,
        "bytes": bytes,
        "bytes_done": bytes_done,
    })
}

fn upstream(shown: &OfUpstream) -> Value {
    let OfUpstream { name, url, credentials, standing } = shown;
    json!({
        "name": name,
        "url": url,
        "credentials": credentials,
        "breaker": standing.breaker,
        "last_answer": standing.last_answer.map(time),
        "last_failure": standing.last_failure.as_ref().map(|(when, words)| json!({
            "time": time(*when),
            "reason": words,
        })),
        "rate_limit": standing.rate_limit.map(|RateLimit { limit, remaining, age_seconds }| json!({
            "limit": limit,
            "remaining": remaining,
            "age_seconds": age_seconds,
        })),
    })
}

fn fill(fill: &Fill) -> Value {
    json!({ "entries": fill.entries, "bytes": fill.bytes, "bytes_max": fill.bytes_max })
}

/// RFC 3339, in UTC, to the second.
fn time(when: SystemTime) -> String {
    DateTime::<Utc>::from(when).to_rfc3339_opts(SecondsFormat::Secs, true)
}
