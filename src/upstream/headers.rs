//! Which headers travel from end to end (RFC 9110, section 7.6.1).

use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_TYPE, ETAG, EXPECT, HOST, HeaderMap, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, RANGE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

use super::DOCKER_CONTENT_DIGEST;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Belong to one connection.
const HOP_BY_HOP: [HeaderName; 11] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HTTP2_SETTINGS,
    EXPECT,
];

/// Decided by the gateway, request by request: credentials by the caller, the host by the upstream's URL, and no
/// content coding, because the digest of what is on the wire would change.
const SET_BY_THE_GATEWAY: [HeaderName; 3] = [AUTHORIZATION, HOST, ACCEPT_ENCODING];

/// The headers of a client's request that go on to the upstream. `X-Forwarded-*` and cookies stay behind: the one
/// describes the gateway's neighbours, the other belongs to the gateway's origin.
pub fn end_to_end_request(headers: &HeaderMap) -> HeaderMap {
    let mut kept = end_to_end(headers);
    for name in SET_BY_THE_GATEWAY {
        kept.remove(name);
    }
    for name in ["cookie", "forwarded", "x-real-ip", "via"] {
        kept.remove(name);
    }
    let forwarded: Vec<HeaderName> =
        kept.keys().filter(|name| name.as_str().starts_with("x-forwarded-")).cloned().collect();
    for name in forwarded {
        kept.remove(name);
    }
    kept
}

/// The headers of a request that say which part of a thing is wanted and what the client already has.
pub(super) fn of_part(headers: &HeaderMap) -> HeaderMap {
    only(headers, &[RANGE, IF_RANGE, IF_NONE_MATCH, IF_MODIFIED_SINCE])
}

/// The headers of an answer that describe its content: what another origin may say through the upstream.
pub(super) fn of_content(headers: &HeaderMap) -> HeaderMap {
    let described = [CONTENT_LENGTH, CONTENT_TYPE, CONTENT_RANGE, CONTENT_ENCODING, ACCEPT_RANGES, ETAG, LAST_MODIFIED];
    let mut kept = only(headers, &described);
    kept.extend(only(headers, &[DOCKER_CONTENT_DIGEST]));
    kept
}

fn only(headers: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let wanted = |name: &HeaderName| Some((name.clone(), headers.get(name)?.clone()));
    names.iter().filter_map(wanted).collect()
}

/// All headers but those that belong to one connection, including what its `Connection` header names. Content-Length
/// is end to end.
pub fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(','))
        .filter_map(|token| token.trim().parse().ok())
        .filter(|name| *name != CONTENT_LENGTH)
        .collect();
    for name in HOP_BY_HOP.into_iter().chain(named) {
        kept.remove(name);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_a_connection_stays_on_it() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABk"),
            ("transfer-encoding", "chunked"),
            ("range", "bytes=1-"),
            ("authorization", "Basic dTpw"),
            ("cookie", "a=b"),
            ("x-forwarded-for", "10.0.0.1"),
            ("accept-encoding", "zstd"),
        ] {
            headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        let kept = end_to_end_request(&headers);
        assert_eq!(kept.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["range"]);
    }
}
