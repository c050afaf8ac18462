//! `schemabridge store`: looking at a store, and clearing it up by hand.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};
use clap::{Args, Subcommand};
use futures_util::TryStreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::config::{BoundsArguments, StoreArguments};
use crate::negotiate::Glob;
use crate::store::layout::Name;
use crate::store::sweep::{Occasion, Swept};
use crate::store::{Location, Store};

use super::{Failure, print};

/// The commands below `store`.
#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// List what was derived: one line for each recipe
    Ls {
        #[command(flatten)]
        store: StoreArguments,
        /// Only repositories that match this pattern
        #[arg(long, value_name = "GLOB")]
        repository: Option<Glob>,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Count what is there, by kind and edition
    Stat {
        #[command(flatten)]
        store: StoreArguments,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Read every object and hold it against its hash, name and digest; exit 1 if one is damaged
    Verify {
        #[command(flatten)]
        store: StoreArguments,
    },
    /// Remove what is beyond the bounds
    Gc(GcArguments),
}

/// The flags of `store gc`.
#[derive(Args, Debug)]
pub(super) struct GcArguments {
    #[command(flatten)]
    store: StoreArguments,
    #[command(flatten)]
    bounds: BoundsArguments,
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Clear up a bucket too, which its own lifecycle rules do otherwise
    #[arg(long)]
    bucket: bool,
}

pub(super) fn run(command: Command) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::Ls { store, repository, json } => {
                let form = if json { Form::Json } else { Form::Text };
                ls(&opened(&store)?, repository.as_ref(), form).await
            }
            Command::Stat { store, json } => stat(&store, if json { Form::Json } else { Form::Text }).await,
            Command::Verify { store } => verify(&opened(&store)?).await,
            Command::Gc(arguments) => gc(&arguments).await,
        }
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Json,
}

/// An existing store: looking must not make one.
fn opened(arguments: &StoreArguments) -> Result<Store, Failure> {
    let location = arguments.location()?;
    match &location {
        Location::Memory => Err("--store: `memory:` is gone with its process; expected a directory or a bucket".into()),
        Location::Directory(directory) if !directory.is_dir() => {
            Err(format!("--store: there is no directory {}", directory.display()).into())
        }
        _ => Store::open_as_it_is(&location).map_err(|error| format!("--store: {error}").into()),
    }
}

async fn ls(store: &Store, repositories: Option<&Glob>, form: Form) -> Result<(), Failure> {
    let mut recipes = store.all_recipes();
    let mut output = std::io::BufWriter::new(std::io::stdout().lock());
    while let Some((recipe, meta)) = recipes.try_next().await? {
        if repositories.is_some_and(|glob| !glob.matches(recipe.repository.as_str())) {
            continue;
        }
        let last_use = timestamp(meta.last_modified.into());
        let line = match form {
            Form::Json => {
                let mut line = serde_json::to_value(&recipe)?;
                line["last_use"] = json!(last_use);
                line.to_string()
            }
            Form::Text => {
                let tag = recipe.tag.as_ref().map_or(String::new(), |tag| format!(":{tag}"));
                let (from, to) = (recipe.source_format.word(), recipe.target.word());
                let (repository, edition) = (&recipe.repository, recipe.edition);
                let (derived, source) = (&recipe.derived, &recipe.source);
                format!("{last_use}  {repository}{tag}  {from} -> {to}  {derived}  from {source}  edition {edition}")
            }
        };
        writeln!(output, "{line}")?;
    }
    Ok(output.flush()?)
}

/// What `stat` counts of one kind of object.
#[derive(Default, serde::Serialize)]
struct Tally {
    objects: u64,
    bytes: u64,
    #[serde(serialize_with = "as_timestamp")]
    oldest_use: Option<SystemTime>,
    #[serde(serialize_with = "as_timestamp")]
    newest_use: Option<SystemTime>,
}

async fn stat(arguments: &StoreArguments, form: Form) -> Result<(), Failure> {
    let store = opened(arguments)?;
    let progress = progress("objects counted");
    let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
    let mut objects = store.objects();
    while let Some(object) = objects.try_next().await? {
        progress.inc(1);
        let kind = match &object.name {
            Some(Name::Document { edition, .. }) => format!("documents of edition {edition}"),
            Some(Name::Recipe { edition, .. }) => format!("recipes of edition {edition}"),
            Some(Name::Config { edition, .. }) => format!("configs of edition {edition}"),
            Some(Name::Facts { .. }) => "facts of layers".to_owned(),
            Some(Name::Transcoding { .. } | Name::Transcoded { .. }) => "transcodings".to_owned(),
            Some(Name::Layer { .. }) => "transcoded layers".to_owned(),
            Some(Name::Claim) => "claims".to_owned(),
            Some(Name::SigningKey) => "signing key".to_owned(),
            Some(Name::Staged) => "staged".to_owned(),
            None => "unknown".to_owned(),
        };
        let used = object.meta.last_modified.into();
        let tally = tallies.entry(kind).or_default();
        tally.objects += 1;
        tally.bytes += object.meta.size;
        tally.oldest_use = Some(tally.oldest_use.map_or(used, |oldest| oldest.min(used)));
        tally.newest_use = Some(tally.newest_use.map_or(used, |newest| newest.max(used)));
    }
    progress.finish_and_clear();
    if form == Form::Json {
        return print(format!("{}\n", serde_json::to_string(&tallies)?).as_bytes());
    }
    let mut lines = vec![arguments.location()?.to_string()];
    for (kind, tally) in &tallies {
        let Tally { objects, bytes, oldest_use, newest_use } = tally;
        let [oldest, newest] = [oldest_use, newest_use].map(|used| used.map_or(String::new(), timestamp));
        lines.push(format!("{kind}: {objects} objects, {bytes} bytes, last used {oldest} to {newest}"));
    }
    if !tallies.contains_key("signing key") {
        lines.push("no signing key: it is made with the first schema 1".to_owned());
    }
    print(format!("{}\n", lines.join("\n")).as_bytes())
}

async fn verify(store: &Store) -> Result<(), Failure> {
    let progress = progress("objects read");
    let mut inspected = store.inspect();
    let (mut objects, mut damaged) = (0_u64, 0_u64);
    while let Some(object) = inspected.try_next().await? {
        progress.inc(1);
        objects += 1;
        if let Some(fault) = object.fault {
            damaged += 1;
            progress.suspend(|| print(format!("damaged: {}: {fault}\n", object.path).as_bytes()))?;
        }
    }
    progress.finish_and_clear();
    if damaged == 0 {
        return print(format!("{objects} objects, all sound\n").as_bytes());
    }
    let words = "damaged documents are made again when they are asked for, as long as the upstream has their source";
    Err(format!("{damaged} of {objects} objects are damaged; {words}").into())
}

async fn gc(arguments: &GcArguments) -> Result<(), Failure> {
    let location = arguments.store.location()?;
    if matches!(location, Location::Bucket(_)) && !arguments.bucket {
        let words = "a bucket is cleared up by its lifecycle rules; to read and clear all of it now, say --bucket";
        return Err(format!("--store {location}: {words}").into());
    }
    let store = opened(&arguments.store)?;
    let occasion = if arguments.dry_run { Occasion::Rehearsal } else { Occasion::ByHand };
    let progress = progress("objects looked at");
    let swept = store.sweep(arguments.bounds.bounds(), occasion, || progress.inc(1)).await?;
    progress.finish_and_clear();
    print(in_words(&swept, occasion).as_bytes())
}

fn in_words(swept: &Swept, occasion: Occasion) -> String {
    let Swept { recipes, documents, documents_of_older_editions, documents_bytes, leftovers, .. } = swept;
    let layers = match swept.layers {
        0 => String::new(),
        layers => format!("{layers} transcoded layers of {} bytes, ", swept.layers_bytes),
    };
    let verb = if occasion == Occasion::Rehearsal { "would remove" } else { "removed" };
    format!(
        "{verb} {recipes} recipes, {documents} documents of {documents_bytes} bytes ({documents_of_older_editions} of \
         older editions), {layers}{leftovers} leftovers\n"
    )
}

/// Shown on a terminal only, on standard error.
fn progress(words: &'static str) -> ProgressBar {
    let template = format!("{{spinner}} {{human_pos}} {words}, {{per_sec}}, {{elapsed}}");
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_spinner());
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn timestamp(moment: SystemTime) -> String {
    DateTime::<Utc>::from(moment).to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[allow(clippy::ref_option, reason = "serde hands fields by reference")]
fn as_timestamp<S: serde::Serializer>(moment: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    match moment {
        Some(moment) => serializer.serialize_str(&timestamp(*moment)),
        None => serializer.serialize_none(),
    }
}
