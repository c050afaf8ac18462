//! How much clients may have, out of what flags say and what the system lets the process have.

use crate::config::ServeArguments;
use crate::config::limits::LimitArguments;
use crate::server::limits::{CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX, Limits, connections_within, open_files_max};

/// What holds for all listeners of clients together.
pub(super) fn limits(arguments: &ServeArguments) -> Limits {
    let gateway = &arguments.gateway;
    let LimitArguments { connections, connections_per_address, header_timeout, head_size, headers, keep_alive_timeout } =
        arguments.limits.clone();
    // Behind a proxy all clients have its address.
    let per_address = if gateway.trusted_proxies.is_empty() { CONNECTIONS_PER_ADDRESS_MAX } else { 0 };
    Limits {
        connections: within_open_files(connections.map(usize::from)),
        connections_per_address: Some(connections_per_address.unwrap_or(per_address)).filter(|limit| *limit > 0),
        header_timeout,
        keep_alive_timeout,
        body_idle_timeout: gateway.requests.body_idle_timeout,
        head_bytes: head_size,
        headers: headers.get(),
    }
}

/// As many as were said, or as there are files for. Who finds too few is told what to raise.
fn within_open_files(said: Option<usize>) -> usize {
    let wanted = said.unwrap_or(CONNECTIONS_MAX);
    let Some(open_files) = open_files_max() else { return wanted };
    let possible = connections_within(open_files);
    if said.is_some_and(|said| said > possible) {
        tracing::warn!(
            open_files,
            connections = wanted,
            "the system lets this process open too few files for so many connections: raise the limit (LimitNOFILE of \
             the unit, `ulimit -n`) or lower --connections"
        );
        return wanted;
    }
    if said.is_none() && possible < wanted {
        tracing::info!(open_files, connections = possible, "so many connections are taken as there are files for");
        return possible;
    }
    wanted
}
