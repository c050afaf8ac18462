//! The configuration file: TOML whose top-level keys are the flags of `serve`, and tables for what no flag can say.
//!
//! The file is given to the command line as what a flag is where neither it nor its variable is there. So a key has the
//! name, the form and the errors of its flag, and flags go before variables, and both before the file.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Command};
use toml::{Table, Value};

use super::tables::Tables;
use super::{keys, mistake};

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
        let mut table: Table = toml::from_str(text).map_err(|error| with_line(&error, text))?;
        let known = keys::flags(command);
        let names = known.iter().map(|flag| flag.key.as_str());
        keys::check(&table, &names.chain(keys::TABLES).collect::<Vec<_>>())?;
        let mut flags = Vec::new();
        for flag in &known {
            if let Some(value) = table.remove(&flag.key) {
                let values = texts(&flag.key, value)?;
                let argument = command.get_arguments().find(|argument| argument.get_id() == flag.id.as_str());
                argument.map_or(Ok(()), |argument| check(argument, &flag.key, &values))?;
                flags.push((flag.id.clone(), values));
            }
        }
        let tables = Tables::read(table)?;
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

/// What the flag would refuse is refused, even where another goes before it.
fn check(argument: &Arg, key: &str, values: &[String]) -> Result<(), String> {
    if values.is_empty() && !matches!(argument.get_action(), ArgAction::Append) {
        return Err(format!("`{key}` is an empty list: expected one value"));
    }
    let flag = argument.get_long().unwrap_or_default();
    let written = values.iter().map(|value| format!("--{flag}={value}"));
    let alone = Command::new("file").no_binary_name(true).arg(argument);
    alone.try_get_matches_from(written).map(drop).map_err(|error| mistake::in_words_of_the_file(&error, key))
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

/// Which line is none, without what stands in it, which could be a secret.
fn with_line(error: &toml::de::Error, text: &str) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let words = in_one_line(error);
    before.map_or_else(|| words.clone(), |before| format!("line {}: {words}", before.matches('\n').count() + 1))
}

/// The library's words and the key that they are about. There is no drawing of a line in them: where the error comes of
/// values, the library has none.
pub(super) fn in_one_line(error: &toml::de::Error) -> String {
    let words = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
    let words = words.strip_prefix("missing field ").map_or_else(|| words.clone(), |key| format!("{key} is missing"));
    let text = error.to_string();
    match text.trim_end().rsplit_once("\nin `").filter(|_| error.span().is_none()) {
        Some((_, key)) => format!("`{key}: {words}"),
        None => words,
    }
}
