//! Docker's `container.Config` inside of schema 1, read and written as Go does with its struct: every field is there, in
//! the struct's order, unless the struct leaves it out where it is empty.

use std::borrow::Cow;

use super::v1_image::{V1Fault, value_of};
use crate::image::json::{self, Object, ObjectWriter, Raw};

/// A `container_config` or `config`; a struct in Go, so there even where the document has none.
pub(super) struct ContainerConfig<'a> {
    members: Option<Object<'a>>,
    command: Vec<Cow<'a, str>>,
}

/// What a field holds, and what becomes of it where it holds nothing.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    TextIfAny,
    Truth,
    TruthIfTrue,
    Strings,
    /// A list of strings, or one string for a list of it.
    Words,
    WordsIfAny,
    /// An object of which only the keys count.
    Keys,
    KeysIfAny,
    Map,
    Healthcheck,
    NumberIfAny,
}

use Kind::{
    Healthcheck, Keys, KeysIfAny, Map, NumberIfAny, Strings, Text, TextIfAny, Truth, TruthIfTrue, Words, WordsIfAny,
};

/// The fields of moby's `api/types/container.Config`, in its order.
const FIELDS: [(&str, Kind); 25] = [
    ("Hostname", Text),
    ("Domainname", Text),
    ("User", Text),
    ("AttachStdin", Truth),
    ("AttachStdout", Truth),
    ("AttachStderr", Truth),
    ("ExposedPorts", KeysIfAny),
    ("Tty", Truth),
    ("OpenStdin", Truth),
    ("StdinOnce", Truth),
    ("Env", Strings),
    ("Cmd", Words),
    ("Healthcheck", Healthcheck),
    ("ArgsEscaped", TruthIfTrue),
    ("Image", Text),
    ("Volumes", Keys),
    ("WorkingDir", Text),
    ("Entrypoint", Words),
    ("NetworkDisabled", TruthIfTrue),
    ("MacAddress", TextIfAny),
    ("OnBuild", Strings),
    ("Labels", Map),
    ("StopSignal", TextIfAny),
    ("StopTimeout", NumberIfAny),
    ("Shell", WordsIfAny),
];

impl<'a> ContainerConfig<'a> {
    pub(super) fn read(field: &'static str, value: Option<Raw<'a>>) -> Result<Self, V1Fault> {
        let members = value.map(|value| value.object().ok_or(V1Fault::Field { field, expected: "an object" }));
        let members = members.transpose()?;
        let command = members.as_ref().and_then(|members| value_of(members, "Cmd"));
        let command = command.map(|value| words("Cmd", value)).transpose()?.unwrap_or_default();
        Ok(Self { members, command })
    }

    /// The command in one line.
    pub(super) fn command(&self) -> String {
        self.command.join(" ")
    }

    pub(super) fn written(&self) -> Result<String, V1Fault> {
        FIELDS
            .iter()
            .try_fold(ObjectWriter::new(), |text, (field, kind)| {
                let value = self.members.as_ref().and_then(|members| value_of(members, field));
                Ok(match written(field, *kind, value)? {
                    Some(value) => text.json(field, &value),
                    None => text,
                })
            })
            .map(ObjectWriter::finish)
    }
}

/// A field's value as Go writes it; `None` where it is left out.
fn written(field: &'static str, kind: Kind, value: Option<Raw<'_>>) -> Result<Option<String>, V1Fault> {
    let null = || "null".to_owned();
    let Some(value) = value else {
        return Ok(match kind {
            Text => Some("\"\"".to_owned()),
            Truth => Some("false".to_owned()),
            Strings | Words | Keys | Map => Some(null()),
            TextIfAny | TruthIfTrue | WordsIfAny | KeysIfAny | Healthcheck | NumberIfAny => None,
        });
    };
    let fault = |expected| V1Fault::Field { field, expected };
    let text = match kind {
        Text | TextIfAny => json::string(&value.string().ok_or(fault("a string"))?),
        Truth | TruthIfTrue => value.boolean().ok_or(fault("true or false"))?.to_string(),
        Strings => list(&strings(field, value)?),
        Words | WordsIfAny => list(&words(field, value)?),
        Keys | KeysIfAny => keys(value).ok_or(fault("an object of empty objects"))?,
        Map => map(value).ok_or(fault("an object of strings"))?,
        Healthcheck => healthcheck(field, value)?,
        NumberIfAny => value.integer().ok_or(fault("a whole number"))?.to_string(),
    };
    let is_left_out = match kind {
        TextIfAny => text == "\"\"",
        TruthIfTrue => text == "false",
        WordsIfAny => text == "[]",
        KeysIfAny => text == "{}",
        _ => false,
    };
    Ok(Some(text).filter(|_| !is_left_out))
}

fn list(words: &[Cow<'_, str>]) -> String {
    json::array(words.iter().map(|word| json::string(word)))
}

fn strings<'a>(field: &'static str, value: Raw<'a>) -> Result<Vec<Cow<'a, str>>, V1Fault> {
    let fault = V1Fault::Field { field, expected: "an array of strings" };
    let elements = value.array().ok_or_else(|| fault.clone())?.into_iter();
    let string = |element: Raw<'a>| if element.is_null() { Some(Cow::Borrowed("")) } else { element.string() };
    elements.map(string).collect::<Option<_>>().ok_or(fault)
}

fn words<'a>(field: &'static str, value: Raw<'a>) -> Result<Vec<Cow<'a, str>>, V1Fault> {
    match value.string() {
        Some(word) => Ok(vec![word]),
        None => strings(field, value),
    }
}

fn keys(value: Raw<'_>) -> Option<String> {
    let mut text = ObjectWriter::new();
    for (key, value) in value.object()?.into_sorted() {
        value.object().map(drop).or_else(|| value.is_null().then_some(()))?;
        text = text.json(&key, "{}");
    }
    Some(text.finish())
}

fn map(value: Raw<'_>) -> Option<String> {
    let mut text = ObjectWriter::new();
    for (key, value) in value.object()?.into_sorted() {
        let word = if value.is_null() { Cow::Borrowed("") } else { value.string()? };
        text = text.string(&key, word.as_ref());
    }
    Some(text.finish())
}

/// moby's `HealthConfig`: every field is left out where it is empty.
fn healthcheck(field: &'static str, value: Raw<'_>) -> Result<String, V1Fault> {
    let members = value.object().ok_or(V1Fault::Field { field, expected: "an object" })?;
    let mut text = ObjectWriter::new();
    let command = value_of(&members, "Test").map(|value| strings("Test", value)).transpose()?.unwrap_or_default();
    if !command.is_empty() {
        text = text.json("Test", &list(&command));
    }
    for field in ["Interval", "Timeout", "StartPeriod", "StartInterval", "Retries"] {
        let number = value_of(&members, field).map(Raw::integer);
        let fault = V1Fault::Field { field, expected: "a whole number" };
        match number.unwrap_or(Some(0)).ok_or(fault)? {
            0 => {}
            number => text = text.json(field, &number.to_string()),
        }
    }
    Ok(text.finish())
}
