//! The configuration file: TOML whose top-level keys are the flags of `serve`, and tables for what no flag can say.
//!
//! The file is given to the command line as what a flag is where neither it nor its variable is there. So a key has the
//! name, the form and the errors of its flag, and flags go before variables, and both before the file.

use std::path::{Path, PathBuf};

use clap::Command;
use toml::{Table, Value};

use super::keys;
use super::tables::Tables;

/// What a file says.
#[derive(Clone, Debug, Default)]
pub struct File {
    /// What it says of flags, by their identifiers.
    flags: Vec<(String, Vec<String>)>,
    /// The rest.
    pub tables: Tables,
}

/// Why a file cannot be used: one line that names the file and, where it can, the key.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", .file.display())]
pub struct UnusableFile {
    file: PathBuf,
    reason: String,
}

impl File {
    /// Reads a file for this command, whose flags are its top-level keys.
    pub fn read(file: &Path, command: &Command) -> Result<Self, UnusableFile> {
        let unusable = |reason: String| UnusableFile { file: file.to_owned(), reason };
        let text = std::fs::read_to_string(file).map_err(|error| unusable(error.to_string()))?;
        Self::parse(&text, command).map_err(unusable)
    }

    /// The same for the text of one.
    pub fn parse(text: &str, command: &Command) -> Result<Self, String> {
        let mut table: Table = toml::from_str(text).map_err(|error| in_one_line(&error))?;
        let known = keys::flags(command);
        let names = known.iter().map(|flag| flag.key.as_str());
        keys::check(&table, &names.chain(keys::TABLES).collect::<Vec<_>>())?;
        let mut flags = Vec::new();
        for flag in &known {
            if let Some(value) = table.remove(&flag.key) {
                flags.push((flag.id.clone(), texts(&flag.key, value)?));
            }
        }
        let tables = Tables::deserialize(table)?;
        Ok(Self { flags, tables })
    }

    /// The command, to which this file's word is what a flag is where nobody says otherwise.
    pub fn as_defaults(&self, command: Command) -> Command {
        self.flags.iter().fold(command, |command, (id, values)| {
            let values = values.clone();
            command.mut_arg(id, |argument| argument.default_values(values))
        })
    }
}

/// A value as it would be written behind its flag.
fn texts(key: &str, value: Value) -> Result<Vec<String>, String> {
    let text = |value: Value| match value {
        Value::String(text) => Ok(text),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Boolean(truth) => Ok(truth.to_string()),
        other => Err(format!("`{key}` is {}: expected a string, a number, true or false", other.type_str())),
    };
    match value {
        Value::Array(values) => values.into_iter().map(text).collect(),
        value => text(value).map(|text| vec![text]),
    }
}

/// The library's words without the drawing of the line, which could hold a secret.
pub(super) fn in_one_line(error: &toml::de::Error) -> String {
    error.message().split_whitespace().collect::<Vec<_>>().join(" ")
}
