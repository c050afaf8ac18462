//! Work on layers, for clients that cannot use an image otherwise: whether, and how much.

use std::num::NonZeroUsize;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};

use crate::gateway::{LayerLimits, LayerPace};
use crate::negotiate::{LayerWork, Transcode, Upgrade};
use crate::transcode::{Bounds, Workers};

use super::values;

/// The flags of work on layers.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct LayerArguments {
    /// Translate stored schema 1 for clients that cannot read it: Docker from 26 on, containerd from 2.0 on, crane and others.
    /// Each layer is read once
    #[arg(long, env = "SCHEMABRIDGE_UPGRADE_SCHEMA1", value_name = "true|false", value_parser = clap::builder::BoolishValueParser::new(), action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    upgrade_schema1: bool,

    /// Make gzip layers in the place of those that are compressed with this, for clients and formats that cannot read it:
    /// Docker before 23, schema 1 and schema 2
    #[arg(long, env = "SCHEMABRIDGE_TRANSCODE", value_name = "COMPRESSION", default_value = "none")]
    transcode: TranscodeForm,

    /// How long a client waits for work on layers before it is asked to come again; the work goes on
    #[arg(long, env = "SCHEMABRIDGE_DERIVE_TIMEOUT", value_name = "DURATION", default_value = "50s", value_parser = values::duration)]
    derive_timeout: Duration,

    /// How many layers are worked on at a time [default: one fewer than there are processors]
    #[arg(long, env = "SCHEMABRIDGE_LAYERS_AT_ONCE", value_name = "NUMBER")]
    layers_at_once: Option<NonZeroUsize>,

    /// How many bytes a layer may unpack to
    #[arg(long, env = "SCHEMABRIDGE_LAYER_MAX_SIZE", value_name = "SIZE", default_value = "64GiB", value_parser = values::byte_size)]
    layer_max_size: u64,

    /// How many times its size a layer may unpack to, once that is more than 1 GiB
    #[arg(long, env = "SCHEMABRIDGE_LAYER_MAX_RATIO", value_name = "NUMBER", default_value = "200")]
    layer_max_ratio: u64,

    /// How many bytes of a layer the upstream must send each second, on average over a minute of waiting for it; 0 for any
    #[arg(long, env = "SCHEMABRIDGE_LAYER_MIN_RATE", value_name = "SIZE", default_value = "16KiB", value_parser = values::byte_size)]
    layer_min_rate: u64,
}

/// The compression of layers in whose place gzip ones are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TranscodeForm {
    /// None are made.
    None,
    /// zstd.
    Zstd,
}

impl TranscodeForm {
    /// The word for what is done.
    pub(super) const fn word_of(transcode: Transcode) -> &'static str {
        match transcode {
            Transcode::Nothing => "none",
            Transcode::Zstd => "zstd",
        }
    }
}

impl From<TranscodeForm> for Transcode {
    fn from(form: TranscodeForm) -> Self {
        match form {
            TranscodeForm::None => Self::Nothing,
            TranscodeForm::Zstd => Self::Zstd,
        }
    }
}

/// What is upgraded, as a switch says it.
pub(super) const fn upgrade(schema1: bool) -> Upgrade {
    if schema1 { Upgrade::Schema1 } else { Upgrade::Nothing }
}

impl LayerArguments {
    /// What layers are read for.
    pub(super) fn work(&self) -> LayerWork {
        LayerWork { upgrade: upgrade(self.upgrade_schema1), transcode: self.transcode.into() }
    }

    /// How much work there may be.
    pub(super) fn limits(&self) -> LayerLimits {
        LayerLimits {
            at_once: self.layers_at_once.unwrap_or_else(Workers::default_at_once),
            bounds: Bounds { bytes_max: self.layer_max_size, ratio_max: self.layer_max_ratio, ..Bounds::default() },
            pace: LayerPace { bytes_per_second_min: self.layer_min_rate, ..LayerPace::default() },
            derive_timeout: self.derive_timeout,
        }
    }
}
