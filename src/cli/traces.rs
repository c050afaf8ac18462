//! Spans of requests to a collector of traces, in OTLP over HTTP.
//!
//! Requests put their spans into a queue and go on. One task gathers them and hands them over, many at a time. What a
//! collector that is away cannot be given is lost, and the log says when that begins, when it is over and how much it was.

use std::time::Duration;

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use url::Url;

use crate::config::telemetry::TelemetryArguments;
use crate::gateway::service::ServiceOptions;
use crate::upstream::collector_client;
use crate::upstream::trace::{End, EndedSpans, Parent, Side, Span, Spans, Value};

use super::Failure;

/// How many spans may wait to be handed over. Those beyond them are lost.
const WAITING_SPANS_MAX: usize = 4096;
/// How many are handed over at once.
const BATCH_SPANS_MAX: usize = 512;
/// How long the first of some spans waits for others to be handed over with it.
const GATHERING: Duration = Duration::from_secs(1);
/// How long the collector may take for those.
const COLLECTOR_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take at the end, when the gateway waits for it.
const LAST_TIMEOUT: Duration = Duration::from_secs(3);

/// What the gateway is called.
const NAME: &str = "schemabridge";

/// Where collectors take spans, below their URL.
const PATH: &str = "v1/traces";

/// The task that hands spans over.
pub(super) struct Export {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// Starts to hand over the spans of what is served, where the flags say to whom.
pub(super) fn start(
    mut options: ServiceOptions,
    arguments: &TelemetryArguments,
) -> Result<(ServiceOptions, Option<Export>), Failure> {
    let Some(endpoint) = &arguments.otlp_endpoint else { return Ok((options, None)) };
    let collector = Collector::new(endpoint).map_err(|reason| format!("--otlp-endpoint {endpoint}: {reason}"))?;
    let (spans, ended) = Spans::queue(WAITING_SPANS_MAX);
    options.shared.spans = Some(spans);
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(collector.serve(ended, stopped));
    Ok((options, Some(Export { stop, task })))
}

/// Hands over what is there, and nothing more.
pub(super) async fn finish(export: Option<Export>) {
    let Some(Export { stop, task }) = export else { return };
    let _ended_already = stop.send(());
    if tokio::time::timeout(LAST_TIMEOUT, task).await.is_err() {
        tracing::warn!("the collector of traces did not take the last spans in time");
    }
}

/// Whoever takes the spans.
struct Collector {
    exporter: SpanExporter,
    scope: InstrumentationScope,
    /// How many spans it was not given since it answered last.
    lost: u64,
}

impl Collector {
    fn new(endpoint: &Url) -> Result<Self, String> {
        let client = collector_client(endpoint, COLLECTOR_TIMEOUT)?;
        let builder = SpanExporter::builder().with_http().with_http_client(client).with_timeout(COLLECTOR_TIMEOUT);
        let exporter = builder.with_endpoint(collector_of(endpoint)).build();
        let mut exporter = exporter.map_err(|error| error.to_string())?;
        // What the environment says of this service, as it does for every program of this kind, goes before.
        let resource = Resource::builder_empty()
            .with_attribute(KeyValue::new("service.name", NAME))
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_detector(Box::new(EnvResourceDetector::new()))
            .build();
        exporter.set_resource(&resource);
        let scope = InstrumentationScope::builder(NAME).with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Self { exporter, scope, lost: 0 })
    }

    /// Hands spans over until it is told to stop, and then those that are left.
    async fn serve(mut self, mut ended: EndedSpans, mut stop: oneshot::Receiver<()>) {
        let mut batch = Vec::new();
        let mut is_open = true;
        while is_open {
            tokio::select! {
                () = gather(&mut ended, &mut batch) => {}
                _ = &mut stop => {
                    is_open = false;
                    ended.close();
                    while ended.take(&mut batch, WAITING_SPANS_MAX).await > 0 {}
                }
            }
            self.hand_over(std::mem::take(&mut batch), ended.lost()).await;
        }
        if self.lost > 0 {
            tracing::warn!(spans = self.lost, "spans were lost");
        }
    }

    async fn hand_over(&mut self, batch: Vec<Span>, without_place: u64) {
        if without_place > 0 {
            tracing::warn!(spans = without_place, "spans were lost: more came than the collector of traces took");
        }
        let spans = batch.len() as u64;
        if spans == 0 {
            return;
        }
        let data = batch.into_iter().map(|span| data(span, &self.scope)).collect();
        let taken = tokio::time::timeout(COLLECTOR_TIMEOUT, self.exporter.export(data)).await;
        let reason = match taken {
            Ok(Ok(())) => {
                if self.lost > 0 {
                    tracing::info!(spans_lost = self.lost, "the collector of traces takes spans again");
                    self.lost = 0;
                }
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it did not answer within {} s", COLLECTOR_TIMEOUT.as_secs()),
        };
        if self.lost == 0 {
            tracing::warn!(reason, "the collector of traces takes no spans; they are lost until it does");
        }
        self.lost += spans;
    }
}

/// Waits for spans, and a while for others after them.
async fn gather(ended: &mut EndedSpans, batch: &mut Vec<Span>) {
    if ended.take(batch, BATCH_SPANS_MAX).await == 0 {
        // There will be none; whoever stops the task is about to.
        return std::future::pending().await;
    }
    let others =
        async { while batch.len() < BATCH_SPANS_MAX && ended.take(batch, BATCH_SPANS_MAX - batch.len()).await > 0 {} };
    let _in_time = tokio::time::timeout(GATHERING, others).await;
}

/// A collector is named by where it is, as the variables of other programs name it, or by the whole URL.
fn collector_of(endpoint: &Url) -> String {
    let text = endpoint.as_str().trim_end_matches('/');
    if text.ends_with(PATH) { text.to_owned() } else { format!("{text}/{PATH}") }
}

fn data(span: Span, scope: &InstrumentationScope) -> SpanData {
    let (parent, is_remote) = match span.parent {
        Some(Parent::Own(id)) => (SpanId::from(id), false),
        Some(Parent::Clients(id)) => (SpanId::from(id), true),
        None => (SpanId::INVALID, false),
    };
    let (trace, id) = (TraceId::from(span.place.trace), SpanId::from(span.place.span));
    let attributes = span.attributes.into_iter().map(|(name, value)| match value {
        Value::Text(text) => KeyValue::new(name, text),
        Value::Number(number) => KeyValue::new(name, number),
    });
    SpanData {
        span_context: SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::default()),
        parent_span_id: parent,
        parent_span_is_remote: is_remote,
        span_kind: match span.side {
            Side::Server => SpanKind::Server,
            Side::Client => SpanKind::Client,
        },
        name: span.name.into(),
        start_time: span.started,
        end_time: span.ended,
        attributes: attributes.collect(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: match span.end {
            End::Good => Status::Unset,
            End::Bad => Status::error(""),
        },
        instrumentation_scope: scope.clone(),
    }
}
