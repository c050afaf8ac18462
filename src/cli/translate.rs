//! `schemabridge translate`: one cell of the table, offline.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::{Args, ValueEnum};

use crate::config;
use crate::image::manifest::{CONFIG_BYTES_MAX, MANIFEST_BYTES_MAX, Manifest};
use crate::image::media_type::Format;
use crate::image::reference::{Repository, Tag};
use crate::translate::sign::SigningKey;
use crate::translate::{self, Source};

use super::{Failure, print};

/// The flags of `translate`.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The format to translate to
    #[arg(long, value_name = "FORMAT")]
    to: Target,

    /// The manifest
    #[arg(long, value_name = "FILE")]
    manifest: PathBuf,

    /// The config blob that the manifest names
    #[arg(long, value_name = "FILE")]
    config_blob: Option<PathBuf>,

    /// The repository that schema 1 names
    #[arg(long, value_name = "NAME", default_value = "library/image")]
    repository: Repository,

    /// The tag that schema 1 names
    #[arg(long, value_name = "TAG", default_value = "latest")]
    tag: Tag,

    /// The key that signs schema 1: a P-256 private key in PEM [default: one that is made for this document]
    #[arg(long, value_name = "FILE")]
    signing_key: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Target {
    Schema1,
    Schema2,
    Oci,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let target = match arguments.to {
        Target::Schema1 => Format::Schema1,
        Target::Schema2 => Format::Schema2,
        Target::Oci => Format::Oci,
    };
    let manifest = Manifest::parse(read("--manifest", &arguments.manifest, MANIFEST_BYTES_MAX)?)
        .map_err(|malformed| format!("the document in {} {malformed}", arguments.manifest.display()))?;
    let config =
        arguments.config_blob.as_ref().map(|file| read("--config-blob", file, CONFIG_BYTES_MAX)).transpose()?;
    let key = match &arguments.signing_key {
        Some(file) => config::signing_key(file)?,
        None => SigningKey::generate(crate::gateway::random_bytes()?)?,
    };
    let Some(cell) = translate::cell_for(&manifest, target) else {
        return as_stored(&manifest, target, &key);
    };
    if config.is_none() && translate::config_needed(&manifest, target) {
        return Err("this translation reads the config: give it with --config-blob FILE".into());
    }
    let derived = cell(&Source {
        manifest: &manifest,
        config: config.as_deref(),
        repository: &arguments.repository,
        tag: &arguments.tag,
        signing_key: Some(&key),
        learnt: None,
    })
    .map_err(|reason| format!("cannot be translated to {}: {reason}", target.name()))?;
    print(&derived.bytes)
}

/// What is in the target format already, a schema 1 with a signature.
fn as_stored(manifest: &Manifest, target: Format, key: &SigningKey) -> Result<(), Failure> {
    if manifest.format() != target {
        let (from, to) = (manifest.format().name(), target.name());
        return Err(format!("there is no translation from {from} to {to}").into());
    }
    print(&translate::signed(manifest, key))
}

fn read(flag: &str, file: &Path, bytes_max: usize) -> Result<Bytes, Failure> {
    let bytes = std::fs::read(file).map_err(|error| format!("{flag} {}: {error}", file.display()))?;
    if bytes.len() > bytes_max {
        return Err(
            format!("{flag} {}: {} bytes, more than the limit of {bytes_max}", file.display(), bytes.len()).into()
        );
    }
    Ok(bytes.into())
}
