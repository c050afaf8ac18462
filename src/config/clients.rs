//! `[[client]]`: what the operator says about clients, as it is written in the file.

use serde::Deserialize;
use toml::{Table, Value};

use crate::image::media_type::Format;
use crate::image::platform::InvalidPlatform;
use crate::negotiate::{Asks, ClientRule, InvalidClientRule, InvalidUserAgentGlob, Schema1, Senders, Treatment};

use super::values;

/// One `[[client]]` of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientTable {
    /// Patterns of the `User-Agent`, in which `*` stands for any characters.
    pub user_agents: Vec<String>,
    /// Networks or addresses of the clients.
    pub addresses: Vec<String>,
    /// The formats that they truly read: `schema1`, `schema2`, `oci`, `list`, `index`, `artifact`.
    pub reads: Option<Vec<Format>>,
    /// The platform whose image is picked out of a list for them.
    pub platform: Option<String>,
    /// They compare digests with what is stored, so they always get the stored form.
    pub digest_probe: bool,
    /// They compare digests with what an engine pulled, so they get what the engine with this `User-Agent` gets.
    pub engine: Option<String>,
    /// They never get schema 1.
    pub deny_schema1: bool,
}

/// Why a `[[client]]` cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableClient {
    /// The value of a key is not what it should be.
    #[error("{key} = \"{value}\": {reason}")]
    Value {
        /// The key.
        key: &'static str,
        /// What it says.
        value: String,
        /// What would be accepted.
        reason: String,
    },
    /// Two keys contradict each other.
    #[error("`digest_probe` and `engine` both say in whose place a client asks; expected one of them")]
    TwoProbes,
    /// The rule as a whole says nothing, or two things.
    #[error(transparent)]
    Rule(#[from] InvalidClientRule),
}

impl ClientTable {
    /// As the file says it.
    pub(super) fn in_force(&self) -> Table {
        let mut table = Table::new();
        let mut insert = |name: &str, value: Value| drop(table.insert(name.to_owned(), value));
        if !self.user_agents.is_empty() {
            insert("user_agents", Value::from(self.user_agents.clone()));
        }
        if !self.addresses.is_empty() {
            insert("addresses", Value::from(self.addresses.clone()));
        }
        if let Some(formats) = &self.reads {
            insert("reads", Value::from(formats.iter().map(|format| format.word().to_owned()).collect::<Vec<_>>()));
        }
        for (name, text) in [("platform", &self.platform), ("engine", &self.engine)] {
            if let Some(text) = text {
                insert(name, Value::from(text.as_str()));
            }
        }
        insert("digest_probe", Value::from(self.digest_probe));
        insert("deny_schema1", Value::from(self.deny_schema1));
        table
    }
}

impl TryFrom<ClientTable> for ClientRule {
    type Error = UnusableClient;

    fn try_from(table: ClientTable) -> Result<Self, UnusableClient> {
        let user_agents = all("user_agents", &table.user_agents, |text| {
            text.parse().map_err(|error: InvalidUserAgentGlob| error.to_string())
        })?;
        let networks = all("addresses", &table.addresses, values::network)?;
        let platform = all("platform", table.platform.as_slice(), |text| {
            text.parse().map_err(|error: InvalidPlatform| error.to_string())
        })?;
        let asks = match (table.digest_probe, table.engine) {
            (false, None) => Asks::ForItself,
            (true, None) => Asks::ForStored,
            (false, Some(engine)) => Asks::ForEngine(engine),
            (true, Some(_)) => return Err(UnusableClient::TwoProbes),
        };
        let treatment = Treatment {
            reads: table.reads.map(|formats| formats.into_iter().collect()),
            platform: platform.into_iter().next(),
            asks,
            schema1: if table.deny_schema1 { Schema1::Denied } else { Schema1::Allowed },
        };
        Ok(Self::new(Senders { user_agents, networks }, treatment)?)
    }
}

fn all<T>(
    key: &'static str,
    texts: &[String],
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, UnusableClient> {
    let value =
        |text: &String| parse(text).map_err(|reason| UnusableClient::Value { key, value: text.clone(), reason });
    texts.iter().map(value).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rule(table: Value) -> Result<ClientRule, String> {
        let table: ClientTable = serde_json::from_value(table).map_err(|error| error.to_string())?;
        ClientRule::try_from(table).map_err(|error| error.to_string())
    }

    #[test]
    fn every_key_arrives() {
        let written = json!({
            "user_agents": ["docker/1.9.*"], "addresses": ["10.1.0.0/16", "::1"], "reads": ["schema1", "list"],
            "platform": "linux/arm/v7", "deny_schema1": true,
        });
        let senders = Senders {
            user_agents: vec!["docker/1.9.*".parse().unwrap()],
            networks: vec!["10.1.0.0/16".parse().unwrap(), "::1/128".parse().unwrap()],
        };
        let treatment = Treatment {
            reads: Some([Format::Schema1, Format::List].into_iter().collect()),
            platform: Some("linux/arm/v7".parse().unwrap()),
            asks: Asks::ForItself,
            schema1: Schema1::Denied,
        };
        assert_eq!(rule(written), Ok(ClientRule::new(senders, treatment).unwrap()));
        let asks = |table| rule(table).unwrap().treatment().asks.clone();
        assert_eq!(asks(json!({"user_agents": ["x"], "digest_probe": true})), Asks::ForStored);
        let engine = "docker/17.05.0-ce";
        assert_eq!(asks(json!({"user_agents": ["x"], "engine": engine})), Asks::ForEngine(engine.to_owned()));
    }

    #[test]
    fn an_error_names_the_key_and_what_would_do() {
        for (table, words) in [
            (json!({"digest_probe": true}), "needs a condition"),
            (json!({"user_agents": [""]}), "user_agents = \"\": not a pattern"),
            (json!({"addresses": ["10.0.0.0/33"]}), "addresses = \"10.0.0.0/33\": expected a network"),
            (json!({"addresses": ["10.0.0.1"], "platform": "linux"}), "platform = \"linux\": not a platform"),
            (json!({"addresses": ["10.0.0.1"], "reads": ["schema3"]}), "schema3"),
            (
                json!({"addresses": ["10.0.0.1"], "digest_probe": true, "engine": "docker/1.9.1"}),
                "expected one of them",
            ),
            (json!({"addresses": ["10.0.0.1"], "engine": "docker/dev"}), "nobody knows what this engine reads"),
            (json!({"user_agent": ["x"]}), "user_agent"),
        ] {
            let error = rule(table).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
