//! `schemabridge serve`.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::Arc;

use http::Request;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::file::File;
use crate::config::tls::TlsFiles;
use crate::config::{LogFormat, ServeArguments, unknown_variables};
use crate::gateway::service::ServiceOptions;
use crate::gateway::{Service, StartError};
use crate::server::Listener;
use crate::server::limits::Places;
use crate::server::tls::{HANDSHAKE_TIMEOUT, Tls, TlsOptions};
use crate::{admin, server};

use super::{CommandLine, Commands, Failure, limits, log, reload};

/// How many connections may wait to be accepted, if the kernel allows as many: a fleet that is told to pull opens them all
/// at once, and one that finds no place tries again after a second at the earliest.
const WAITING_CONNECTIONS_MAX: u32 = 4096;

/// Why a listener cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("{flag} {address}: {reason}; expected an address of this machine and a port that nothing else listens on")]
struct CannotListen {
    flag: &'static str,
    address: SocketAddr,
    reason: std::io::Error,
}

pub(super) fn run(arguments: ServeArguments, file: &File, line: CommandLine) -> Result<(), Failure> {
    // Dropped last: what the end says is written too.
    let _log = start_log(&arguments)?;
    for name in unknown_variables::<Commands>(file) {
        tracing::warn!(name, "this environment variable is none of schemabridge's: see `schemabridge serve --help`");
    }
    #[cfg(debug_assertions)]
    if let Some(arming) = arguments.fault_point {
        crate::store::fault_point::arm(arming);
    }
    let options = arguments.options(file)?;
    let again = reload::Again::new(line, &arguments, file);
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(arguments, options, again))
}

async fn serve(arguments: ServeArguments, options: ServiceOptions, again: reload::Again) -> Result<(), Failure> {
    let tls = tls(&arguments)?;
    // From here on, being told to read the file again does not end the process.
    let hangup = signal(SignalKind::hangup())?;
    let mut listeners = Vec::new();
    for address in &arguments.listen {
        listeners.push(listen("--listen", *address)?);
    }
    let admin = listen("--admin-listen", arguments.admin_listen)?;
    let (upstreams, store) = (origins(&options), options.shared.store.clone());
    let service = Service::start(options).map_err(in_words_of_the_flag)?;

    let connections = server::Metrics::default();
    let places = Places::new(limits::limits(&arguments), connections.clone());
    let stop = CancellationToken::new();
    let running = TaskTracker::new();
    for listener in listeners {
        let address = listener.local_addr()?;
        tracing::info!(%address, upstreams, %store, "listening");
        let listener = Listener::new(listener, tls.clone()).within(places.clone());
        running.spawn(server::serve(listener, Arc::clone(&service), stop.clone().cancelled_owned()));
    }
    tracing::info!(address = %admin.local_addr()?, "admin listening");
    let mut registry = Registry::with_prefix("schemabridge");
    service.shared().register_metrics(&mut registry);
    connections.register(&mut registry);
    let reloads = reload::Metrics::default();
    reloads.register(&mut registry);
    let operated = Arc::new((registry, Arc::clone(&service)));
    let answer = move |request: Request<_>, _| {
        let operated = Arc::clone(&operated);
        async move { admin::answer(request, &operated.0, &operated.1).await }
    };
    running.spawn(server::serve_with(admin, stop.clone().cancelled_owned(), answer));
    let (shared, bounds, until) = (service.shared().clone(), arguments.bounds.bounds(), stop.clone());
    running.spawn(async move { until.run_until_cancelled(shared.tend_store(bounds)).await });
    let (keeping_up, until) = (reload::keep_up(again, hangup, service, reloads), stop.clone());
    running.spawn(async move { until.run_until_cancelled(keeping_up).await });
    running.close();

    asked_to_stop().await?;
    tracing::info!("stopping");
    stop.cancel();
    running.wait().await;
    Ok(())
}

/// TLS to clients, with its files read, if there is to be any.
pub(super) fn tls(arguments: &ServeArguments) -> Result<Option<Tls>, Failure> {
    let Some(TlsFiles { chain, key, client_authorities }) = arguments.tls.files()? else { return Ok(None) };
    let options = TlsOptions { chain, key, client_authorities, handshake_timeout: HANDSHAKE_TIMEOUT };
    Ok(Some(Tls::read(&options).map_err(|reason| format!("TLS to clients: {reason}"))?))
}

/// Where the upstreams are, for the line that says what the gateway stands in front of.
fn origins(options: &ServiceOptions) -> String {
    let upstreams = options.site.upstreams.iter();
    upstreams.map(|(upstream, _)| upstream.upstream.url.origin().ascii_serialization()).collect::<Vec<_>>().join(" ")
}

fn listen(flag: &'static str, address: SocketAddr) -> Result<TcpListener, CannotListen> {
    bound(address).map_err(|reason| CannotListen { flag, address, reason })
}

fn bound(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart does not wait for what is left of the connections before it.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(WAITING_CONNECTIONS_MAX)
}

fn in_words_of_the_flag(error: StartError) -> Failure {
    match error {
        StartError::Store(error) => format!("--store: {error}").into(),
        error => error.into(),
    }
}

async fn asked_to_stop() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn start_log(arguments: &ServeArguments) -> std::io::Result<log::Writer> {
    let writer = log::Writer::start(std::io::stderr())?;
    let colours = std::io::stderr().is_terminal();
    let builder =
        tracing_subscriber::fmt().with_max_level(arguments.log_level).with_writer(writer.lines()).with_ansi(colours);
    let filter = filter(arguments.log_level);
    match arguments.log_format {
        LogFormat::Json => builder.json().flatten_event(true).finish().with(filter).init(),
        LogFormat::Text => builder.finish().with(filter).init(),
    }
    Ok(writer)
}

/// The client of buckets says of each attempt that it was not the last; of a store that is away one line is enough.
fn filter(level: Level) -> Targets {
    let of_buckets = if level > Level::INFO { level } else { level.min(Level::WARN) };
    Targets::new().with_default(level).with_target("object_store", of_buckets)
}
