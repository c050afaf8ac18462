//! What is in force, as a file would say it, with nothing left open and no secret in it.

use toml::{Table, Value};
use url::Url;

use crate::config::auth::AuthMode;
use crate::config::layers::TranscodeForm;
use crate::config::{RedirectsForm, values};
use crate::gateway::{Callers, Catalog, OnMissing, Options, Pushes, SingleNames, TagPolicy};
use crate::negotiate::{Glob, Upgrade};
use crate::store::blobs::BlobCacheOptions;
use crate::upstream::route::RouteNames;
use crate::upstream::{Authentication, Limits, Tls, Verification};

use super::{AuthTable, BlobCacheTable, ProxyTable, ProxyUrl, Text, UpstreamTable};

impl UpstreamTable {
    /// The same with nothing left open, where this holds of credentials. Secrets are not in it.
    pub(in crate::config) fn in_force(&self, auth: &AuthTable, options: &Options, names: &RouteNames) -> Table {
        let texts = |texts: &[String]| Value::from(texts.to_vec());
        let shown = |values: &mut dyn Iterator<Item = String>| Value::from(values.collect::<Vec<_>>());
        let time = |time: std::time::Duration| Value::from(values::in_words(time));
        let upstream = &options.upstream;
        let mut table = Table::from_iter([
            ("name".to_owned(), Value::from(self.name())),
            ("url".to_owned(), Value::from(self.url.as_str())),
            ("aliases".to_owned(), texts(&names.aliases)),
            ("hosts".to_owned(), texts(&names.hosts)),
            ("library".to_owned(), Value::from(options.single_names == SingleNames::InLibrary)),
            ("challenge".to_owned(), Value::from(options.challenge.word())),
            ("token_realms".to_owned(), shown(&mut upstream.token_realms.iter().map(Url::to_string))),
            ("push".to_owned(), Value::from(options.pushes == Pushes::Forwarded)),
            ("push_as".to_owned(), Value::from(options.push_as.word())),
            ("connect_timeout".to_owned(), time(upstream.connect_timeout)),
            ("answer_timeout".to_owned(), time(upstream.answer_timeout)),
            ("idle_timeout".to_owned(), time(upstream.idle_timeout)),
            ("document_timeout".to_owned(), time(upstream.document_timeout)),
        ]);
        if let Some(prefix) = &names.prefix {
            table.insert("prefix".to_owned(), Value::from(prefix.as_str()));
        }
        let tags = tags_in_force(&options.tags);
        let globs = |globs: &[Glob]| shown(&mut globs.iter().map(ToString::to_string));
        let repositories = Table::from_iter([
            ("allow".to_owned(), globs(&options.repositories.allow)),
            ("deny".to_owned(), globs(&options.repositories.deny)),
        ]);
        let variant = |variant: &Option<String>| variant.clone().unwrap_or_else(|| "none".to_owned());
        let work = options.policy.layers;
        let translate = Table::from_iter([
            ("platform".to_owned(), shown(&mut options.policy.platforms.iter().map(ToString::to_string))),
            ("arm_variants".to_owned(), shown(&mut options.policy.arm_variants.iter().map(variant))),
            ("upgrade_schema1".to_owned(), Value::from(work.upgrade == Upgrade::Schema1)),
            ("transcode".to_owned(), Value::from(TranscodeForm::word_of(work.transcode))),
        ]);
        table.insert("redirects".to_owned(), Value::from(RedirectsForm::from(&upstream.redirects).word()));
        table.insert("redirect_hosts".to_owned(), globs(&upstream.redirect_hosts));
        table.insert("catalog".to_owned(), Value::from(options.catalog == Catalog::Filtered));
        let auth = auth.in_force(options);
        let (tls, proxy, limits) =
            (tls_in_force(&upstream.tls), self.proxy.in_force(), limits_in_force(&upstream.limits));
        for (name, below) in [
            ("auth", auth),
            ("tls", tls),
            ("proxy", proxy),
            ("limits", limits),
            ("tags", tags),
            ("repositories", repositories),
            ("translate", translate),
        ] {
            table.insert(name.to_owned(), Value::Table(below));
        }
        table
    }
}

impl BlobCacheTable {
    /// All that it says.
    pub(in crate::config) fn in_force(&self) -> Table {
        let BlobCacheOptions { directory, bytes_max, fills_max, fill_bytes_max } = self.options();
        let fills = i64::try_from(fills_max).unwrap_or(i64::MAX);
        let mut table = Table::new();
        insert(&mut table, "directory", Some(shown_path(&directory)));
        insert(&mut table, "max_size", Some(format!("{bytes_max}B")));
        insert(&mut table, "fills", Some(fills));
        insert(&mut table, "fill_size", Some(format!("{fill_bytes_max}B")));
        table
    }
}

fn insert(table: &mut Table, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        table.insert(name.to_owned(), value.into());
    }
}

fn shown_path(path: &std::path::Path) -> String {
    path.display().to_string()
}

fn tags_in_force(policy: &TagPolicy) -> Table {
    let rules = policy.rules.iter().map(|rule| {
        let words = [("match", rule.tags.to_string()), ("ttl", values::in_words(rule.ttl))];
        Value::Table(words.into_iter().map(|(name, word)| (name.to_owned(), Value::from(word))).collect())
    });
    let rules = Value::Array(rules.collect());
    let mut table = Table::from_iter([("rules".to_owned(), rules)]);
    for (name, time) in
        [("ttl", policy.ttl), ("negative_ttl", policy.negative_ttl), ("stale_if_error", policy.stale_if_error)]
    {
        insert(&mut table, name, Some(values::in_words(time)));
    }
    let on_404 = if policy.on_404 == OnMissing::Stale { "stale" } else { "pass" };
    insert(&mut table, "on_404", Some(on_404));
    table
}

fn tls_in_force(tls: &Tls) -> Table {
    let mut table = Table::new();
    insert(&mut table, "ca", tls.authorities.as_deref().map(shown_path));
    insert(&mut table, "client_certificate", tls.certificate.as_ref().map(|own| shown_path(&own.chain)));
    insert(&mut table, "client_key", tls.certificate.as_ref().map(|own| shown_path(&own.key)));
    insert(&mut table, "insecure", Some(tls.verification == Verification::Insecure));
    table
}

fn limits_in_force(limits: &Limits) -> Table {
    let mut table = Table::new();
    let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    insert(&mut table, "in_flight", limits.in_flight.map(|limit| number(limit.get())));
    insert(&mut table, "connections", limits.connections.map(|limit| number(limit.get())));
    insert(&mut table, "requests_per_second", limits.requests_per_second.map(|limit| i64::from(limit.get())));
    insert(&mut table, "queue_timeout", Some(values::in_words(limits.queue_timeout)));
    let floor = limits.rate_limit_floor.map(|floor| i64::try_from(floor).unwrap_or(i64::MAX));
    insert(&mut table, "rate_limit_floor", floor);
    insert(&mut table, "breaker_failures", Some(limits.breaker.map_or(0, |policy| i64::from(policy.failures.get()))));
    table
}

impl AuthTable {
    /// Where the credentials come from; never what they are.
    fn in_force(&self, options: &Options) -> Table {
        let mut table = Table::new();
        let mode = match (options.callers, &options.upstream.authentication) {
            (Callers::Themselves | Callers::ThemselvesOrTheGateway, _) => AuthMode::Passthrough,
            (Callers::TheGateway, authentication) => AuthMode::of(authentication),
        };
        insert(&mut table, "mode", Some(mode.word()));
        if options.callers == Callers::ThemselvesOrTheGateway {
            insert(&mut table, "anonymous_as", Some("gateway"));
        }
        insert(&mut table, "username", self.username.as_deref());
        insert(&mut table, "password_file", self.password_file.as_deref().map(shown_path));
        insert(&mut table, "password_variable", self.password_variable.as_deref());
        insert(&mut table, "helper", self.helper.as_deref());
        insert(&mut table, "command", self.command.as_deref().map(without_arguments));
        insert(&mut table, "lifetime", self.lifetime().map(values::in_words));
        insert(&mut table, "endpoint", self.endpoint.as_ref().map(|Text(url)| url.to_string()));
        match &options.upstream.authentication {
            Authentication::DockerConfig { file, .. } => insert(&mut table, "file", Some(shown_path(file))),
            Authentication::Ecr { region, .. } => insert(&mut table, "region", Some(region.as_str())),
            _ => {}
        }
        table
    }
}

/// A command whose arguments may hold secrets.
fn without_arguments(command: &[String]) -> Vec<String> {
    let arguments = command.iter().skip(1).map(|_| "[redacted]".to_owned());
    command.first().cloned().into_iter().chain(arguments).collect()
}

impl ProxyTable {
    /// Without credentials, which stand in the URL of a proxy.
    fn in_force(&self) -> Table {
        let mut table = Table::from_iter([("direct".to_owned(), Value::from(self.direct))]);
        let origin = |url: &ProxyUrl| url.0.origin().ascii_serialization();
        insert(&mut table, "https", self.https.as_ref().map(origin));
        insert(&mut table, "http", self.http.as_ref().map(origin));
        insert(&mut table, "no_proxy", Some(self.no_proxy.clone()));
        table
    }
}
