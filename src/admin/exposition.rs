//! The metrics as text, in the form that whoever reads them asks for: `OpenMetrics`, or the older one of Prometheus, which
//! every reader understands.

use http::header::{ACCEPT, HeaderMap};
use prometheus_client::registry::Registry;

const OPENMETRICS: &str = "application/openmetrics-text";

/// The metrics, and the type of their text.
pub(super) fn metrics(registry: &Registry, request: &HeaderMap) -> Result<(&'static str, String), std::fmt::Error> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    if accepts_openmetrics(request) {
        Ok(("application/openmetrics-text; version=1.0.0; charset=utf-8", text))
    } else {
        Ok(("text/plain; version=0.0.4; charset=utf-8", classic(&text)))
    }
}

fn accepts_openmetrics(request: &HeaderMap) -> bool {
    let lines = request.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(OPENMETRICS));
        let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(Ok(1.0), str::parse::<f32>);
        is_named && weight.is_ok_and(|weight| weight > 0.0)
    })
}

/// The older form: a counter is called by the name of its series, there are no units, and the end is the end.
fn classic(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut lines = openmetrics.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let is_counter = |line: &str| line.starts_with("# TYPE ") && line.ends_with(" counter");
        let heads_counter = is_counter(line) || lines.peek().is_some_and(|next| is_counter(next));
        let mut words = line.splitn(4, ' ');
        if heads_counter
            && let (Some("#"), Some(keyword), Some(name), Some(rest)) =
                (words.next(), words.next(), words.next(), words.next())
        {
            text.extend(["# ", keyword, " ", name, "_total ", rest, "\n"]);
        } else {
            text.extend([line, "\n"]);
        }
    }
    text
}
