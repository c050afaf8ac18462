//! The configuration: which word counts, what is refused and in which words, and what `check-config` shows of it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use clap::Args as _;
use proptest::prelude::*;
use schemabridge::config::file::File;
use schemabridge::config::{ServeArguments, documentation};
use toml::{Table, Value};

use crate::support::basic;
use crate::support::client::Client;
use crate::support::images::Image;
use crate::support::process::Process;
use crate::support::secure::Authority;
use crate::support::upstream::Upstream;

/// Where the state is to go, so that nothing of this machine counts.
const STATE: (&str, &str) = ("STATE_DIRECTORY", "/var/lib/schemabridge");
type Environment<'a> = &'a [(&'a str, &'a str)];

const ONE: &str = "[[upstream]]\nname = \"hub\"\nurl = \"https://registry.example\"\n";

fn check(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_schemabridge"));
    command.arg("check-config").args(arguments).env_clear().envs([STATE]).envs(environment.iter().copied());
    command.stdin(Stdio::null()).output().unwrap()
}

/// What is in force.
fn shown(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = check(arguments, environment);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn in_force(arguments: &[&str], environment: &[(&str, &str)]) -> Table {
    shown(arguments, environment).parse().unwrap()
}

/// The one line that a refusal is.
fn refusal(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = check(arguments, environment);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{arguments:?}: {text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> String {
        let file = self.0.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    }

    /// What is said of this file when it is checked.
    fn refused(&self, text: &str) -> String {
        refusal(&["--config", &self.write("refused.toml", text)], &[])
    }
}

/// The command whose flags are the file's top-level keys.
fn serve() -> clap::Command {
    ServeArguments::augment_args(clap::Command::new("serve"))
}

fn parse(text: &str) -> Result<File, String> {
    File::parse(text, &serve())
}

#[test]
fn a_flag_goes_before_its_variable_and_both_before_the_file_and_that_before_the_default() {
    let folder = Folder::new();
    let top = "tag_ttl = \"3m\"\nredirect_hosts = [\"file.example\", \"*.file.example\"]\npush = true\n";
    let config = folder.write("config.toml", &format!("{top}{ONE}"));
    let bare = folder.write("bare.toml", ONE);
    let environment = [
        ("SCHEMABRIDGE_TAG_TTL", "2m"),
        ("SCHEMABRIDGE_REDIRECT_HOSTS", "variable.example"),
        ("SCHEMABRIDGE_PUSH", "false"),
    ];
    let flags = ["--tag-ttl", "1m", "--redirect-hosts", "flag.example", "--push=true"];
    let with = |file: &str, flags: &[&str], environment: &[(&str, &str)]| {
        let shown = in_force(&[&["--config", file], flags].concat(), environment);
        let upstream = shown["upstream"][0].clone();
        let hosts = upstream["redirect_hosts"].as_array().unwrap().iter().map(|host| host.as_str().unwrap().to_owned());
        let ttl = upstream["tags"]["ttl"].as_str().unwrap().to_owned();
        (ttl, hosts.collect::<Vec<_>>().join(" "), upstream["push"].as_bool().unwrap())
    };
    let said = |ttl: &str, hosts: &str, push| (ttl.to_owned(), hosts.to_owned(), push);
    assert_eq!(with(&config, &flags, &environment), said("1m", "flag.example", true));
    assert_eq!(with(&config, &[], &environment), said("2m", "variable.example", false));
    assert_eq!(with(&config, &[], &[]), said("3m", "file.example *.file.example", true));
    assert_eq!(with(&bare, &[], &[]), said("0s", "*", false));
    assert!(!with(&config, &["--push=false"], &[]).2, "a flag turns off what the file turns on");
    assert!(with(&bare, &["--push"], &[("SCHEMABRIDGE_PUSH", "0")]).2);
    let by_variable = in_force(&[], &[("SCHEMABRIDGE_CONFIG", &config)]);
    assert_eq!(by_variable["tag_ttl"].as_str(), Some("3m"));
}

#[test]
fn a_key_that_there_is_not_is_named_with_the_nearest() {
    let folder = Folder::new();
    for (text, unknown, nearest) in [
        ("tag_tll = \"1m\"\n", "`tag_tll`", "`tag_ttl`"),
        ("[[upstreams]]\n", "`upstreams`", "`upstream`"),
        ("config = \"x\"\n", "`config`", ""),
        ("[[upstream]]\nulr = \"x\"\n", "`upstream.ulr`", "`upstream.url`"),
        ("[[upstream]]\ntags = { tll = \"1m\" }\n", "`upstream.tags.tll`", "`upstream.tags.ttl`"),
        (
            "[[upstream]]\ntags.rules = [{ mach = \"v*\" }]\n",
            "`upstream.tags.rules.mach`",
            "`upstream.tags.rules.match`",
        ),
        ("[[client]]\nuser_agent = [\"x\"]\n", "`client.user_agent`", "`client.user_agents`"),
        ("[blob_cache]\nfils = 3\n", "`blob_cache.fils`", "`blob_cache.fills`"),
    ] {
        let words = folder.refused(text);
        assert!(words.contains(&format!("{unknown} is not a key: did you mean {nearest}")), "{words}");
        assert!(words.contains("refused.toml"), "{words}");
    }
}

#[test]
fn a_value_that_cannot_be_is_refused_in_words_of_the_file() {
    let folder = Folder::new();
    let upstream = |rest: &str| format!("{ONE}{rest}\n");
    for (text, words) in [
        ("tag_ttl = \"soon\"\n".to_owned(), vec!["invalid value 'soon' for `tag_ttl`", "`60s`"]),
        ("index_entries = -1\n".to_owned(), vec!["'-1' for `index_entries`"]),
        ("push = \"perhaps\"\n".to_owned(), vec!["'perhaps' for `push`"]),
        ("challenge = \"maybe\"\n".to_owned(), vec!["'maybe' for `challenge`", "pass", "rewrite"]),
        ("tag_ttl = [\"1m\", \"2m\"]\n".to_owned(), vec!["`tag_ttl`", "multiple"]),
        ("tag_ttl = []\n".to_owned(), vec!["`tag_ttl` is an empty list"]),
        (format!("listen = []\n{ONE}"), vec!["`listen` is empty"]),
        ("tag_ttl = 1.5\n".to_owned(), vec!["`tag_ttl` is float"]),
        ("external_url = \"https://user:s3cret@x\"\n".to_owned(), vec!["`external_url`", "[redacted]"]),
        ("a = \n".to_owned(), vec!["line 1"]),
        ("\n\nurl = s3cret\n".to_owned(), vec!["line 3"]),
        ("upstream = \"s3cret\"\n".to_owned(), vec!["`upstream` is string: expected [[upstream]]"]),
        ("[upstream]\nname = \"s3cret\"\n".to_owned(), vec!["`upstream` is table: expected [[upstream]]"]),
        ("[[blob_cache]]\n".to_owned(), vec!["`blob_cache` is array: expected [blob_cache]"]),
        (upstream("hosts = \"s3cret\""), vec!["upstream `hub`: `upstream.hosts` is string: expected list of hosts"]),
        (upstream("push = \"yes\""), vec!["upstream `hub`: `upstream.push` is string: expected true or false"]),
        (
            upstream("proxy = \"http://u:s3cret@p\""),
            vec!["upstream `hub`: `upstream.proxy` is string: expected a table"],
        ),
        (upstream("proxy.https = \"p:s3cret@\""), vec!["upstream `hub`", "`proxy.https`", "URL of a proxy"]),
        (upstream("limits.in_flight = 0"), vec!["upstream `hub`", "`limits.in_flight`"]),
        (
            upstream("limits.in_flight = \"9\""),
            vec!["upstream `hub`", "`upstream.limits.in_flight` is string: expected number"],
        ),
        (upstream("tags.ttl = \"soon\""), vec!["upstream `hub`", "`tags.ttl`", "`60s`"]),
        (upstream("tags.rules = [{ match = \"v*\" }]"), vec!["upstream `hub`", "`ttl` is missing"]),
        (upstream("auth.mode = \"s0me\""), vec!["upstream `hub`", "`auth.mode`", "docker-config"]),
        (upstream("auth.mode = \"basic\""), vec!["upstream `hub`", "`auth.username` is missing"]),
        (upstream("proxy.no_proxy = [\"x\"]"), vec!["upstream `hub`", "`proxy.no_proxy`"]),
        (upstream("prefix = \"v2\""), vec!["prefix `v2`"]),
        (upstream("prefix = \"Hub\""), vec!["prefix `Hub`"]),
        (upstream("aliases = [\"https://x\"]"), vec!["alias `https://x`"]),
        ("[[upstream]]\nname = \"hub\"\n".to_owned(), vec!["upstream `hub`: `url` is missing"]),
        (format!("{ONE}[[upstream]]\nurl = \"http://x\"\n"), vec!["[[upstream]] number 2: `name` is missing"]),
        ("[[upstream]]\nname = \"Hub\"\nurl = \"http://x\"\n".to_owned(), vec!["upstream `Hub`", "lower-case"]),
        ("[[upstream]]\nname = \"hub\"\nurl = \"http://u:s3cret@x\"\n".to_owned(), vec!["upstream `hub`", "`url`"]),
        (format!("{ONE}{ONE}"), vec!["two upstreams are called `hub`"]),
        (format!("default_upstream = \"corp\"\n{ONE}"), vec!["default", "corp", "`hub`", "none"]),
        (format!("{ONE}[[client]]\nreads = [\"schema3\"]\n"), vec!["[[client]] number 1", "`reads`", "schema3"]),
        (
            format!("{ONE}[[client]]\naddresses = \"10.0.0.1\"\n"),
            vec!["[[client]] number 1: `client.addresses` is string"],
        ),
        (
            format!("{ONE}[[client]]\nuser_agents = [\"x\"]\n[[client]]\ndeny_schema1 = true\n"),
            vec!["[[client]] number 2"],
        ),
        (format!("{ONE}[blob_cache]\nmax_size = \"1GiB\"\n"), vec!["[blob_cache]", "`directory` is missing"]),
        (
            format!("{ONE}[blob_cache]\ndirectory = \"/x\"\nmax_size = \"much\"\n"),
            vec!["[blob_cache]", "`max_size`", "256MiB"],
        ),
    ] {
        let said = folder.refused(&text);
        for word in words {
            assert!(said.contains(word), "{text}: {word}: {said}");
        }
        assert!(!said.contains("s3cret"), "{said}");
    }
}

#[test]
fn names_that_two_upstreams_share_and_a_login_that_leads_nowhere_are_refused() {
    let folder = Folder::new();
    let two = |each: &str| {
        let other = ONE.replace("hub", "corp").replace("registry.example", "corp.example");
        folder.refused(&format!("{ONE}{each}\n{other}{each}\n"))
    };
    for (each, words) in [
        ("aliases = [\"same.example\"]", "alias `same.example` is used twice"),
        ("hosts = [\"same.example\"]", "host `same.example` is used twice"),
        ("prefix = \"same\"", "prefix `same` is used twice"),
        ("auth.mode = \"passthrough\"", "upstream `corp`: with `auth.mode = \"passthrough\"`"),
    ] {
        let said = two(each);
        assert!(said.contains(words), "{said}");
    }
}

/// What stands between this file and a start, but for addresses, store and blob cache, which only a start can take.
#[test]
fn what_would_not_start_is_refused() {
    let (folder, authority) = (Folder::new(), Authority::new());
    let (one, other) = (authority.issue(&["one"]), authority.issue(&["other"]));
    let [chain, key] = [&one.chain, &other.key].map(|file| file.to_str().unwrap().to_owned());
    for (rest, words) in [
        ("tls.ca = \"/nowhere/ca.pem\"".to_owned(), "/nowhere/ca.pem"),
        (format!("tls.ca = {key:?}"), "no certificate"),
        (format!("tls.client_certificate = {chain:?}"), "one without the other"),
        (format!("tls = {{ client_certificate = {chain:?}, client_key = {key:?} }}"), "is not the private key"),
        ("auth = { username = \"u\", password_variable = \"NOT_THERE\" }".to_owned(), "NOT_THERE is not set"),
    ] {
        let said = folder.refused(&format!("{ONE}{rest}\n"));
        assert!(said.contains(words), "{said}");
    }
    for (top, words) in [
        ("htpasswd = \"/nowhere/htpasswd\"\n", "/nowhere/htpasswd"),
        ("signing_key = \"/nowhere/key.pem\"\n", "/nowhere/key.pem"),
        ("store_endpoint = \"http://x\"\n", "--store-endpoint"),
    ] {
        let said = folder.refused(&format!("{top}{ONE}"));
        assert!(said.contains(words), "{said}");
    }
    let held = format!("listen = [\"0.0.0.0:5000\"]\n{ONE}auth = {{ username = \"u\", password_file = \"/p\" }}\n");
    assert!(folder.refused(&held).contains("allow_anonymous"));
}

#[tokio::test]
async fn checking_writes_nothing_and_dials_nobody() {
    let (folder, upstream) = (Folder::new(), Upstream::start().await);
    let below = folder.0.path().join("below");
    let text = format!(
        "store = \"file://{0}\"\n[[upstream]]\nname = \"hub\"\nurl = {1:?}\n[blob_cache]\ndirectory = {0:?}\nmax_size = \"1GiB\"\n",
        below.display(),
        upstream.url()
    );
    let config = folder.write("config.toml", &text);
    tokio::task::spawn_blocking(move || shown(&["--config", &config], &[])).await.unwrap();
    assert!(!below.exists());
    assert_eq!(upstream.connections(), 0);
}

/// Every key of the file; a new one that is not here fails the test below.
const EVERY_KEY: &str = include_str!("golden/configuration/every-key.toml");

/// The paths of what stands in a table, where a list of tables is one.
fn paths(path: &str, value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Table(table) => {
            for (name, value) in table {
                paths(&format!("{path}{}{name}", if path.is_empty() { "" } else { "." }), value, found);
            }
        }
        Value::Array(entries) if entries.iter().all(Value::is_table) => {
            for entry in entries {
                paths(path, entry, found);
            }
        }
        _ => drop(found.insert(path.to_owned())),
    }
}

/// Every key that is documented.
fn documented() -> BTreeSet<String> {
    let (mut keys, mut table) = (BTreeSet::new(), String::new());
    for line in documentation(&serve()).lines() {
        if let Some(title) = line.strip_prefix("## ") {
            let name = title.trim_matches(['`', '[', ']']);
            table = if title.starts_with('`') { format!("{name}.") } else { String::new() };
        }
        if let Some((name, _)) = line.strip_prefix("| `").and_then(|row| row.split_once('`')) {
            keys.insert(format!("{table}{name}"));
        }
    }
    keys
}

#[test]
fn every_key_that_is_documented_can_be_written_and_is_shown() {
    let folder = Folder::new();
    let (authority, hash) = (Authority::new(), "u:$2y$05$abcdefghijklmnopqrstuuGSCpBOZkYKGc9jQ0rJ.rXBmDqDxkq6y\n");
    let client = authority.issue(&["gateway"]);
    let files = [
        ("AUTHORITY", authority.file().to_str().unwrap().to_owned()),
        ("CHAIN", client.chain.to_str().unwrap().to_owned()),
        ("PRIVATE", client.key.to_str().unwrap().to_owned()),
        ("SIGNING", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/signature/key.pkcs8.pem").to_owned()),
        ("HTPASSWD", folder.write("htpasswd", hash)),
        ("TOKENS", folder.write("tokens", &"t".repeat(40))),
    ];
    let text = files.iter().fold(EVERY_KEY.to_owned(), |text, (word, file)| text.replace(&format!("<{word}>"), file));
    let (mut written, mut seen) = (BTreeSet::new(), BTreeSet::new());
    paths("", &Value::Table(text.parse().unwrap()), &mut written);
    assert_eq!(documented(), written);
    let environment = [("HUB_PASSWORD", "s3cret")];
    let (behind_a_door, _) = text.split_once("# Callers log in").unwrap();
    let is_door = |line: &&str| line.starts_with("htpasswd") || line.starts_with("tokens_file");
    let without_a_door: Vec<&str> = text.lines().filter(|line| !is_door(line)).collect();
    for text in [behind_a_door, &without_a_door.join("\n")] {
        let once = shown(&["--config", &folder.write("every-key.toml", text)], &environment);
        paths("", &Value::Table(once.parse().unwrap()), &mut seen);
        let again = folder.write("again.toml", &once);
        assert_eq!(shown(&["--config", &again], &environment), once);
        assert!(!once.contains("s3cret"), "{once}");
    }
    assert_eq!(written, seen, "what can be written is shown");
}

#[test]
fn what_flags_say_is_shown_as_a_file_that_says_the_same() {
    let folder = Folder::new();
    let password = folder.write("password", "s3cret");
    let environment = [("SCHEMABRIDGE_PASSWORD", "s3cret"), ("REGISTRY_PROXY_PASSWORD", "s3cret")];
    let drop_in = [
        ("REGISTRY_PROXY_REMOTEURL", "https://registry-1.docker.io"),
        ("REGISTRY_PROXY_USERNAME", "u"),
        ("REGISTRY_PROXY_PASSWORD", "s3cret"),
    ];
    let empty = folder.write("empty.toml", &format!("redirect_hosts = []\n{ONE}"));
    let cases: [(&[&str], Environment); 5] = [
        (&["--upstream", "https://a.example", "--username", "u"], &environment),
        (&["--upstream", "https://a.example", "--username", "u", "--password-file", &password], &[]),
        (&["--upstream", "a=https://a.example,b=https://b.example", "--default-upstream", "none"], &[]),
        (&["--config", &empty], &[]),
        (&[], &drop_in),
    ];
    for (arguments, variables) in cases {
        let once = shown(arguments, variables);
        assert!(!once.contains("s3cret"), "{once}");
        let again = folder.write("again.toml", &once);
        assert_eq!(shown(&["--config", &again], &environment), once);
    }
}

#[test]
fn an_upstream_of_a_flag_is_called_by_its_name() {
    let two = ["--upstream", "hub=https://a.example", "--upstream", "corp=https://b.example"];
    let word = |shown: &Table, place: usize, key: &str| shown["upstream"][place][key].clone();
    let shown = in_force(&two, &[]);
    for (place, name) in ["hub", "corp"].into_iter().enumerate() {
        assert_eq!(word(&shown, place, "prefix").as_str(), Some(name));
        assert_eq!(word(&shown, place, "aliases"), Value::from(vec![name]));
    }
    // Callers can log in to the default only.
    let mode = |shown: &Table, place| word(shown, place, "auth")["mode"].as_str().unwrap().to_owned();
    assert_eq!([mode(&shown, 0), mode(&shown, 1)], ["passthrough", "anonymous"]);
    let shown = in_force(&[&two[..], &["--default-upstream", "corp"]].concat(), &[]);
    assert_eq!([mode(&shown, 0), mode(&shown, 1)], ["anonymous", "passthrough"]);
    let alone = in_force(&["--upstream", "https://a.example:8443"], &[]);
    assert_eq!(word(&alone, 0, "aliases"), Value::from(vec!["a.example:8443"]));
    assert!(alone["upstream"][0].get("prefix").is_none());
}

#[test]
fn the_variables_of_a_mirror_are_taken_and_never_repeated() {
    let url = ("REGISTRY_PROXY_REMOTEURL", "https://registry-1.docker.io");
    let mode = |environment: &[(&str, &str)]| in_force(&[], environment)["upstream"][0]["auth"]["mode"].clone();
    assert_eq!(mode(&[url]).as_str(), Some("anonymous"));
    let password = ("REGISTRY_PROXY_PASSWORD", "s3cret");
    assert_eq!(mode(&[url, ("REGISTRY_PROXY_USERNAME", "u"), password]).as_str(), Some("basic"));
    for bad in ["https://u:s3cret@x", "s3cret@x", "registry"] {
        let said = refusal(&[], &[("REGISTRY_PROXY_REMOTEURL", bad)]);
        assert!(said.contains("REGISTRY_PROXY_REMOTEURL") && !said.contains("s3cret"), "{said}");
    }
    let said = refusal(&[], &[url, ("REGISTRY_PROXY_USERNAME", "u")]);
    assert!(said.contains("REGISTRY_PROXY_PASSWORD is not set"), "{said}");
}

#[tokio::test]
async fn a_mirrors_variables_hold_its_credentials() {
    let upstream = Upstream::start().await;
    let image = Image::classic("app");
    upstream.put_image("app", "latest", &image, &image.oci());
    upstream.contents().close(r#"Basic realm="registry""#);
    upstream.contents().admit(&basic("u", "p"), "app");
    let environment = [
        ("REGISTRY_PROXY_REMOTEURL", upstream.url()),
        ("REGISTRY_PROXY_USERNAME", "u".to_owned()),
        ("REGISTRY_PROXY_PASSWORD", "p".to_owned()),
    ];
    let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let process = Process::serve(&["--store", "memory:"], &environment).await;
    let got = process.get(&Client::docker_17(), "/v2/app/manifests/latest").await;
    assert_eq!((got.status, got.digest()), (200, image.schema2().digest.as_str()));
}

#[tokio::test]
async fn a_variable_that_holds_a_password_is_not_an_unknown_one() {
    let folder = Folder::new();
    let auth = "auth = { username = \"u\", password_variable = \"SCHEMABRIDGE_HUB_PASSWORD\" }\n";
    let config = folder.write("config.toml", &format!("{ONE}{auth}"));
    let environment = [
        ("SCHEMABRIDGE_PASSWORD", "s3cret"),
        ("SCHEMABRIDGE_HUB_PASSWORD", "s3cret"),
        ("SCHEMABRIDGE_PASSWROD", "s3cret"),
    ];
    let process = Process::serve(&["--store", "memory:", "--config", &config], &environment).await;
    assert_eq!(process.lines_logged("this environment variable").await, 1);
    let log = process.log();
    assert!(log.contains("SCHEMABRIDGE_PASSWROD") && !log.contains("s3cret"), "{log}");
}

#[test]
fn the_documentation_is_what_the_code_says() {
    let generated = String::from_utf8(check(&["--documentation"], &[]).stdout).unwrap();
    let written = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")).unwrap();
    assert!(generated == written, "run `schemabridge check-config --documentation > docs/configuration.md`");
}

#[test]
fn every_example_of_the_documentation_can_be_used() {
    let mut count = 0;
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        for block in text.split("```toml\n").skip(1) {
            let block = block.split("```").next().unwrap();
            // What is not ours, such as containerd's own, names no table of this gateway.
            if !["[[upstream]]", "[[client]]", "[blob_cache]"].iter().any(|table| block.contains(table)) {
                continue;
            }
            let folder = Folder::new();
            let upstream = if block.contains("[[upstream]]") { "" } else { ONE };
            shown(&["--config", &folder.write("example.toml", &format!("{block}\n{upstream}"))], &[]);
            count += 1;
        }
    }
    assert!(count >= 5, "{count} examples");
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "[a-z0-9./:=*-]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            proptest::collection::btree_map("[a-z_]{0,6}", inner, 0..3)
                .prop_map(|map| Value::Table(map.into_iter().collect())),
        ]
    })
}

/// A table at this path, and tables above it, in the list that it belongs to.
fn at(path: &str, value: Value) -> Value {
    match path.split_once('.') {
        None => Value::Table(Table::from_iter([(path.to_owned(), value)])),
        Some((table @ ("upstream" | "client" | "rules"), rest)) => {
            Value::Table(Table::from_iter([(table.to_owned(), Value::Array(vec![at(rest, value)]))]))
        }
        Some((table, rest)) => Value::Table(Table::from_iter([(table.to_owned(), at(rest, value))])),
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_fall_over(text in any::<String>()) {
        let _usable_or_not = parse(&text);
    }

    #[test]
    fn no_value_of_a_key_does(number in any::<proptest::sample::Index>(), value in value()) {
        let keys: Vec<String> = documented().into_iter().collect();
        let text = at(&keys[number.index(keys.len())], value).to_string();
        if let Err(words) = parse(&text) {
            prop_assert!(!words.is_empty() && words.lines().count() == 1, "{}", words);
        }
    }
}
