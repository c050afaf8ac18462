//! Every key of the configuration file, for people and for whoever mistypes one.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, ArgMatches, Command};
use toml::{Table, Value};

/// The tables of a file.
pub(super) const TABLES: [&str; 3] = ["upstream", "client", "blob_cache"];

/// Flags that a file does not say: what they say has tables of its own, or is where the file is.
const NOT_IN_A_FILE: [&str; 4] = ["help", "version", "config", "upstream"];

/// A flag as a key of the file.
pub(super) struct Flag {
    /// Its identifier on the command line.
    pub(super) id: String,
    /// Its name in the file.
    pub(super) key: String,
    long: String,
    variable: String,
    default: String,
    text: String,
}

/// A key of a table.
pub(super) struct Key {
    /// Its tables and its name, joined by dots.
    pub(super) path: &'static str,
    /// What it looks like.
    form: &'static str,
    /// What it is where it is not said.
    default: &'static str,
    /// What it does.
    text: &'static str,
}

const fn key(path: &'static str, form: &'static str, default: &'static str, text: &'static str) -> Key {
    Key { path, form, default, text }
}

/// Every key of a table, in reading order.
pub(super) const KEYS: &[Key] = &[
    key(
        "upstream.name",
        "text",
        "",
        "what metrics, logs and the store call it; a change of it is another upstream to them",
    ),
    key("upstream.url", "URL", "", "the registry, without `/v2`; a path is kept as a prefix"),
    key(
        "upstream.aliases",
        "list of hosts",
        "the URL's own host; Docker Hub's, for Docker Hub",
        "what `?ns=` may call it, as containerd does",
    ),
    key("upstream.hosts", "list of hosts", "none", "hosts of the gateway at which clients reach it"),
    key("upstream.prefix", "path", "none", "reaches it as `/v2/<prefix>/…` and `/<prefix>/v2/…`"),
    key("upstream.library", "true or false", "true for Docker Hub", "a repository without a `/` is one of `library/`"),
    key(
        "upstream.auth.mode",
        "`passthrough`, `anonymous`, `basic`, `docker-config`, `helper`, `exec` or `ecr`",
        "the flag's, or else `passthrough` where it is the default or has `hosts`, and `anonymous` elsewhere",
        "whose credentials the registry is shown: each caller's own, none, or the gateway's",
    ),
    key("upstream.auth.username", "text", "", "`basic`: the user"),
    key("upstream.auth.password_file", "path", "", "`basic`: a file with the password, read again when it changes"),
    key(
        "upstream.auth.password_variable",
        "name",
        "",
        "`basic`: the variable of the environment that holds the password",
    ),
    key(
        "upstream.auth.file",
        "path",
        "`$REGISTRY_AUTH_FILE`, or else docker's own",
        "`docker-config`: a file like docker's `config.json`, with `auths`, `credsStore` and `credHelpers`",
    ),
    key("upstream.auth.helper", "name", "", "`helper`: asks the program `docker-credential-<name>`"),
    key(
        "upstream.auth.command",
        "list: program, arguments",
        "",
        "`exec`: is given the registry's host on standard input and prints JSON with `Username` and `Secret`, or `Token`",
    ),
    key("upstream.auth.lifetime", "duration", "`5m`", "`exec`: how long what it prints is good"),
    key(
        "upstream.auth.region",
        "text",
        "read from the URL",
        "`ecr`: the region; the credentials of AWS come from the platform's usual places",
    ),
    key("upstream.auth.endpoint", "URL", "the region's", "`ecr`: the service that gives tokens"),
    key(
        "upstream.auth.anonymous_as",
        "`themselves` or `gateway`",
        "`themselves`",
        "what a request without credentials is where callers log in themselves; `gateway` needs one of the credentials above beside `mode = \"passthrough\"`",
    ),
    key(
        "upstream.challenge",
        "`pass` or `rewrite`",
        "the flag's",
        "whether clients fetch tokens themselves or through `/token`",
    ),
    key("upstream.token_realms", "list of URLs", "the flag's", "token services beyond its own host that it may name"),
    key(
        "upstream.redirects",
        "`pass`, `follow` or `auto`",
        "the flag's",
        "whether clients follow redirects of blobs or the gateway does; `auto`: it does for Docker before 1.13 and where the target is not one of `redirect_hosts`",
    ),
    key("upstream.redirect_hosts", "list of globs", "the flag's", "hosts to which `auto` lets clients go"),
    key("upstream.tls.ca", "path", "the machine's", "authorities in PEM that are trusted beside the machine's"),
    key(
        "upstream.tls.client_certificate",
        "path",
        "none",
        "the certificate, and those between it and its authority, that the gateway shows",
    ),
    key("upstream.tls.client_key", "path", "none", "its key"),
    key("upstream.tls.insecure", "true or false", "false", "do not check the registry's certificate"),
    key("upstream.proxy.https", "URL", "`HTTPS_PROXY`", "the proxy on the way to https URLs; credentials stand in it"),
    key("upstream.proxy.http", "URL", "`HTTP_PROXY`", "the proxy on the way to http URLs"),
    key(
        "upstream.proxy.no_proxy",
        "list of hosts, domains and networks",
        "`NO_PROXY`",
        "what is reached without a proxy",
    ),
    key("upstream.proxy.direct", "true or false", "false", "no proxy, whatever the environment says"),
    key(
        "upstream.catalog",
        "true or false",
        "false",
        "with credentials of the gateway: answer `/v2/_catalog`, without what `repositories` leaves out",
    ),
    key("upstream.push", "true or false", "the flag's", "let pushes through"),
    key(
        "upstream.push_as",
        "`schema2` or `oci`",
        "the flag's",
        "what is stored in the place of a pushed schema 1 that it does not take",
    ),
    key("upstream.connect_timeout", "duration", "the flag's", "how long a connection may take to be made"),
    key("upstream.answer_timeout", "duration", "the flag's", "how long the head of an answer may take"),
    key("upstream.idle_timeout", "duration", "the flag's", "how long a body may stand still"),
    key("upstream.document_timeout", "duration", "the flag's", "how long a whole document may take"),
    key("upstream.tags.ttl", "duration", "the flag `tag_ttl`'s", "how long its answer for a tag is remembered"),
    key(
        "upstream.tags.rules.match",
        "glob",
        "",
        "one of `rules = [{ match, ttl }]`: for tags that match, the first rule holds",
    ),
    key("upstream.tags.rules.ttl", "duration", "", "how long the answer for such a tag is remembered"),
    key("upstream.tags.negative_ttl", "duration", "`10s`", "how long it is remembered that a tag is not there"),
    key(
        "upstream.tags.stale_if_error",
        "duration",
        "`24h`",
        "how old an answer may be that is repeated while the registry is away or has had enough; never where callers log in themselves",
    ),
    key("upstream.tags.on_404", "`pass` or `stale`", "`pass`", "what a tag is that was there before and is gone"),
    key("upstream.limits.in_flight", "number", "none", "how many requests to it may be under way at once"),
    key("upstream.limits.connections", "number", "none", "how many blobs may stream from it or to it at once"),
    key("upstream.limits.requests_per_second", "number", "none", "how many requests a second it is sent"),
    key(
        "upstream.limits.queue_timeout",
        "duration",
        "`10s`",
        "how long a request waits for its turn before it is answered with 503",
    ),
    key(
        "upstream.limits.rate_limit_floor",
        "number",
        "none",
        "what it must leave of its own rate limit for the gateway to ask about a tag that it remembers",
    ),
    key(
        "upstream.limits.breaker_failures",
        "number; 0 for never",
        "`5`",
        "after so many failures in a row it is left alone for a while",
    ),
    key(
        "upstream.repositories.allow",
        "list of globs",
        "all",
        "repositories that are served, as the upstream names them",
    ),
    key(
        "upstream.repositories.deny",
        "list of globs",
        "none",
        "but not these; holds for manifests, blobs, tags and referrers alike",
    ),
    key(
        "upstream.translate.platform",
        "list of `[GLOB=]OS/ARCHITECTURE`",
        "the flag's",
        "whose image a client gets that reads neither list nor index",
    ),
    key(
        "upstream.translate.arm_variants",
        "list of variants",
        "the flag's",
        "in which order variants of arm are tried",
    ),
    key(
        "upstream.translate.upgrade_schema1",
        "true or false",
        "the flag's",
        "translate stored schema 1 for clients that cannot read it, which reads each layer once",
    ),
    key(
        "upstream.translate.transcode",
        "`none` or `zstd`",
        "the flag's",
        "make gzip layers in the place of zstd ones, for clients and formats that cannot read those",
    ),
    key(
        "client.user_agents",
        "list of patterns",
        "any",
        "the rule is for these User-Agents; `*` stands for any characters, and case counts",
    ),
    key(
        "client.addresses",
        "list of networks",
        "any",
        "the rule is for clients at these addresses; both conditions must hold where both are said",
    ),
    key(
        "client.reads",
        "list of `schema1`, `schema2`, `oci`, `list`, `index`, `artifact`",
        "what is known of them",
        "the formats that they truly read",
    ),
    key("client.platform", "`OS/ARCHITECTURE`", "their own", "whose image they get out of a list"),
    key(
        "client.digest_probe",
        "true or false",
        "false",
        "they compare digests with what is stored, so they always get the stored form",
    ),
    key(
        "client.engine",
        "a User-Agent",
        "",
        "they compare digests with what this engine pulled, so they get what it would get",
    ),
    key("client.deny_schema1", "true or false", "false", "they never get schema 1"),
    key("blob_cache.directory", "path", "", "where blobs are kept; it belongs to one process"),
    key("blob_cache.max_size", "size", "", "how large all of it may become"),
    key("blob_cache.fills", "number", "`16`", "how many blobs may be on their way into it at once"),
    key(
        "blob_cache.fill_size",
        "size",
        "a quarter of `max_size`",
        "how large all blobs on their way may be together, and so the largest that is kept",
    ),
];

/// The flags of a command that a file may say.
pub(super) fn flags(command: &Command) -> Vec<Flag> {
    let flag = |argument: &Arg| {
        let long = argument.get_long().filter(|long| !NOT_IN_A_FILE.contains(long))?;
        let visible = !argument.is_hide_set();
        let texts: Vec<String> =
            argument.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
        visible.then(|| Flag {
            id: argument.get_id().to_string(),
            key: long.replace('-', "_"),
            long: format!("--{long}"),
            variable: argument.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            default: texts.join(","),
            text: argument.get_help().map(ToString::to_string).unwrap_or_default(),
        })
    };
    command.get_arguments().filter_map(flag).collect()
}

/// Every flag that a file may say, with what it is now.
pub fn flags_in_force(command: &Command, matches: &ArgMatches) -> Vec<(String, Vec<String>)> {
    let is_list = |flag: &Flag| {
        let mut arguments = command.get_arguments();
        arguments
            .any(|argument| argument.get_id() == flag.id.as_str() && matches!(argument.get_action(), ArgAction::Append))
    };
    let in_force = |flag: Flag| match matches.get_raw(&flag.id) {
        Some(values) => Some((flag.key, values.map(|value| value.to_string_lossy().into_owned()).collect())),
        None => is_list(&flag).then_some((flag.key, Vec::new())),
    };
    flags(command).into_iter().filter_map(in_force).collect()
}

/// Every key of a file is one that there is, and every value of a table of its kind; the error names the nearest key, or
/// what would be accepted.
pub(super) fn check(file: &Table, top: &[&str]) -> Result<(), String> {
    for (name, value) in file {
        if !top.contains(&name.as_str()) {
            return Err(unknown(name, top.iter().copied()));
        }
        if !TABLES.contains(&name.as_str()) {
            continue;
        }
        match value {
            Value::Array(entries) if LISTS.contains(&name.as_str()) => {
                let check = |(place, entry)| {
                    let of_entry = |words: String| format!("{}: {words}", called(name, place, entry));
                    check_within(name, entry).map_err(of_entry)
                };
                entries.iter().enumerate().try_for_each(check)?;
            }
            Value::Table(_) if !LISTS.contains(&name.as_str()) => check_within(name, value)?,
            other => return Err(format!("`{name}` is {}: expected {}", other.type_str(), in_brackets(name))),
        }
    }
    Ok(())
}

/// What people call one of several tables: its name, or else its number.
pub(super) fn called(list: &str, place: usize, entry: &Value) -> String {
    match entry.get("name").and_then(Value::as_str) {
        Some(name) => format!("{list} `{name}`"),
        None => format!("{} number {}", in_brackets(list), place + 1),
    }
}

fn check_within(path: &str, value: &Value) -> Result<(), String> {
    let Value::Table(table) = value else {
        return Err(format!("`{path}` is {}: expected a table", value.type_str()));
    };
    table.iter().try_for_each(|(name, value)| check_value(&format!("{path}.{name}"), value))
}

fn check_value(path: &str, value: &Value) -> Result<(), String> {
    let below = format!("{path}.");
    if KEYS.iter().any(|key| key.path.starts_with(&below)) {
        return match value {
            Value::Array(entries) if path == TAG_RULES => {
                entries.iter().try_for_each(|entry| check_within(path, entry))
            }
            _ if path == TAG_RULES => Err(format!("`{path}` is {}: expected a list of tables", value.type_str())),
            _ => check_within(path, value),
        };
    }
    let key = KEYS.iter().find(|key| key.path == path).ok_or_else(|| unknown(path, paths()))?;
    if key.takes(value) { Ok(()) } else { Err(format!("`{path}` is {}: expected {}", value.type_str(), key.form)) }
}

impl Key {
    /// Whether a value is of its kind. What else is wrong with it, its type says.
    fn takes(&self, value: &Value) -> bool {
        match value {
            Value::Array(values) => self.form.starts_with("list") && values.iter().all(Value::is_str),
            Value::Boolean(_) => self.form == "true or false",
            Value::Integer(_) => self.form.starts_with("number"),
            Value::String(_) => {
                !self.form.starts_with("list") && !self.form.starts_with("number") && self.form != "true or false"
            }
            _ => false,
        }
    }
}

/// The one table in a table that there may be more than once.
const TAG_RULES: &str = "upstream.tags.rules";

fn in_brackets(table: &str) -> String {
    if LISTS.contains(&table) { format!("[[{table}]]") } else { format!("[{table}]") }
}

/// Every path that may be written: of keys, and of the tables that they are in.
fn paths() -> impl Iterator<Item = &'static str> {
    KEYS.iter().flat_map(|key| {
        let tables = key.path.match_indices('.').filter_map(|(end, _)| key.path.get(..end));
        tables.chain([key.path])
    })
}

fn unknown<'known>(path: &str, known: impl Iterator<Item = &'known str>) -> String {
    let nearest = known.min_by_key(|known| strsim::damerau_levenshtein(known, path));
    match nearest {
        Some(nearest) => format!("`{path}` is not a key: did you mean `{nearest}`?"),
        None => format!("`{path}` is not a key"),
    }
}

/// The whole of `docs/configuration.md`.
pub fn documentation(command: &Command) -> String {
    let mut text = String::from(include_str!("configuration.md"));
    text.push_str("\n## Top-level keys\n\n| key | flag | variable | default | what it does |\n|---|---|---|---|---|\n");
    for Flag { key, long, variable, default, text: what, .. } in flags(command) {
        let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
        let _ = writeln!(text, "| `{key}` | `{long}` | `{variable}` | {default} | {} |", escaped(&what));
    }
    let mut table = "";
    for Key { path, form, default, text: what } in KEYS {
        let first = path.split('.').next().unwrap_or_default();
        if first != table {
            table = first;
            let brackets = in_brackets(first);
            let _ = write!(text, "\n## `{brackets}`\n\n| key | form | default | what it does |\n|---|---|---|---|\n");
        }
        let name = path.strip_prefix(first).and_then(|rest| rest.strip_prefix('.')).unwrap_or(path);
        let _ = writeln!(text, "| `{name}` | {} | {} | {} |", escaped(form), escaped(default), escaped(what));
    }
    text
}

/// Tables that may be there more than once.
const LISTS: [&str; 2] = ["upstream", "client"];

fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
