//! `schemabridge serve`.

mod banner;
mod drain;
mod listen;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use prometheus_client::registry::Registry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::admin::Admin;
use crate::admin::access::Access;
use crate::config;
use crate::config::admin::AdminArguments;
use crate::config::file::File;
use crate::config::systemd::passed_sockets;
use crate::config::tls::TlsFiles;
use crate::config::{ListenAddress, ServeArguments, unknown_variables};
use crate::gateway::service::ServiceOptions;
use crate::gateway::{Peer, Service, StartError};
use crate::server::limits::{Limits, Places};
use crate::server::tls::{ClientAuth, HANDSHAKE_TIMEOUT, PairFiles, Tls, TlsOptions};
use crate::server::{self, Listener, Stop};

#[cfg(feature = "otel")]
use super::traces;
use super::{CommandLine, Commands, Failure, limits, reload, systemd, telemetry};
use banner::{Banner, Spoken};
use drain::Signals;
use listen::{Open, Passed};

/// How long work that cannot be called back, such as a write to a disk, may take at the end.
const LEFTOVERS_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) fn run(arguments: ServeArguments, file: &File, line: CommandLine) -> Result<(), Failure> {
    // Before there are threads, which must not see the environment change.
    let passed = Passed::sorted(passed_sockets()?)?;
    // Dropped last: what the end says is written too.
    let _log = telemetry::start_log(&arguments)?;
    for name in unknown_variables::<Commands>(file) {
        tracing::warn!(name, "this environment variable is none of schemabridge's: see `schemabridge serve --help`");
    }
    #[cfg(debug_assertions)]
    if let Some(arming) = arguments.fault_point {
        crate::store::fault_point::arm(arming);
    }
    let mut in_force = arguments.clone();
    if let Some(addresses) = passed.addresses()? {
        in_force.listen = addresses;
    }
    let options = in_force.options(file)?;
    let listened = in_force.listen.iter().filter_map(ListenAddress::network).collect();
    let again = reload::Again::new(line, &arguments, file, listened);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(serve(arguments, passed, options, again));
    runtime.shutdown_timeout(LEFTOVERS_TIMEOUT);
    served
}

async fn serve(
    arguments: ServeArguments,
    passed: Passed,
    options: ServiceOptions,
    again: reload::Again,
) -> Result<(), Failure> {
    let (tls, access) = (tls(&arguments)?, access(&arguments.admin)?);
    // From here on, being told to read the file again or to stop does not end the process.
    let (hangup, signals) = (signal(SignalKind::hangup())?, Signals::catch()?);
    let (listeners, admin) = passed.open(&arguments)?;
    let (site, store, upstreams) = (options.site.clone(), options.shared.store.clone(), origins(&options));
    #[cfg(feature = "otel")]
    let (options, traces) = traces::start(options, &arguments.telemetry)?;
    let service = Service::start(options).map_err(in_words_of_the_flag)?;

    let connections = server::Metrics::default();
    let places = Places::new(limits::limits(&arguments), connections.clone());
    let (stop, mut clients, mut listening) = (Stop::default(), JoinSet::new(), Vec::new());
    for Open { socket, address } in listeners {
        tracing::info!(%address, upstreams, %store, "listening");
        listening.push(address);
        let (listener, service) = (Listener::new(socket, tls.clone()).within(places.clone()), Arc::clone(&service));
        clients.spawn(server::serve_with(listener, stop.clone(), move |request, peer| {
            let service = Arc::clone(&service);
            async move { service.answer(request, peer).await }
        }));
    }
    // After the clients', because whoever is answered there hears that clients are served.
    tracing::info!(address = %admin.address, "admin listening");
    let reloads = reload::Metrics::default();
    let operated = admin_of(&service, &reloads, &connections, tls.as_ref(), access);
    let (last_stop, answering) = (Stop::default(), Arc::clone(&operated));
    // Whose connections are the operator's, and counted nowhere.
    let admin_places = Places::new(Limits::of_admin(), server::Metrics::default());
    let admin_listener = Listener::new(admin.socket, None).within(admin_places);
    let admin_served = tokio::spawn(server::serve_with(admin_listener, last_stop.clone(), move |request, peer| {
        let operated = Arc::clone(&answering);
        async move { operated.answer(request, peer).await }
    }));
    let (shared, bounds, until) = (service.shared().clone(), arguments.bounds.bounds(), stop.clone());
    tokio::spawn(async move { until.until_closing(Box::pin(shared.tend_store(bounds))).await });
    let (keeping_up, until) = (reload::keep_up(again, hangup, service, tls.clone(), reloads), stop.clone());
    tokio::spawn(async move { until.until_closing(keeping_up).await });
    let living = Arc::clone(&operated);
    tokio::spawn(systemd::report_life(move || is_alive(Arc::clone(&living))));

    systemd::ready(&listening.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
    let spoken = if tls.is_some() { Spoken::Tls } else { Spoken::Plain };
    let banner = Banner { listening: &listening, admin: &admin.address, spoken, site: &site, store: &store };
    banner::show(|| banner.text());
    drop(site);
    let cut = async { clients.join_all().await.into_iter().sum() };
    drain::serve_until_told(signals, operated.health(), &stop, &arguments.lifecycle, cut).await;
    drain::end_operator(&last_stop, admin_served).await;
    #[cfg(feature = "otel")]
    traces::finish(traces).await;
    Ok(())
}

/// What the operator sees, with the metrics of all that there is.
fn admin_of(
    service: &Arc<Service>,
    reloads: &reload::Metrics,
    connections: &server::Metrics,
    tls: Option<&Tls>,
    access: Access,
) -> Arc<Admin> {
    let mut registry = Registry::default();
    let own = telemetry::register(&mut registry);
    service.shared().register_metrics(own);
    reloads.register(own);
    connections.register(own);
    if let Some(tls) = tls {
        tls.register_metrics(own);
    }
    Arc::new(Admin::new(registry, Arc::clone(service), access))
}

/// What whoever asks at the admin listener would hear.
async fn is_alive(operated: Arc<Admin>) -> bool {
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = http::Uri::from_static("/livez");
    operated.answer(request, Peer::UnixSocket).await.status() == StatusCode::OK
}

/// Who may see what the admin listener says of repositories, with the file of tokens read.
pub(super) fn access(arguments: &AdminArguments) -> Result<Access, Failure> {
    let Some(file) = &arguments.admin_token_file else { return Ok(Access::FromThisMachine) };
    Ok(Access::with_token(file).map_err(|error| format!("--admin-token-file: {error}"))?)
}

/// TLS to clients, with its files read, if there is to be any.
pub(super) fn tls(arguments: &ServeArguments) -> Result<Option<Tls>, Failure> {
    let Some(TlsFiles { pairs, client_authorities, client_auth }) = arguments.tls.files()? else { return Ok(None) };
    let pairs = pairs.into_iter().map(|(chain, key)| PairFiles { chain, key }).collect();
    let client_auth = match client_auth {
        config::tls::ClientAuth::Request => ClientAuth::Request,
        config::tls::ClientAuth::Require => ClientAuth::Require,
    };
    let options = TlsOptions { pairs, client_authorities, client_auth, handshake_timeout: HANDSHAKE_TIMEOUT };
    Ok(Some(Tls::read(&options).map_err(|reason| format!("TLS to clients: {reason}"))?))
}

/// Where the upstreams are, for the line that says what the gateway stands in front of.
fn origins(options: &ServiceOptions) -> String {
    let upstreams = options.site.upstreams.iter();
    upstreams.map(|(upstream, _)| upstream.upstream.url.origin().ascii_serialization()).collect::<Vec<_>>().join(" ")
}

fn in_words_of_the_flag(error: StartError) -> Failure {
    match error {
        StartError::Store(error) => format!("--store: {error}").into(),
        error => error.into(),
    }
}
