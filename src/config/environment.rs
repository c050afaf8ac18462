//! What the environment says beside the twins of flags: other programs' variables, where state is kept, what is misspelt.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::CommandFactory;

use super::auth::PASSWORD_VARIABLE;
use super::file::File;
use super::tables::UpstreamTable;
use super::{Unusable, values};

/// The prefix of every environment variable that is ours.
const PREFIX: &str = "SCHEMABRIDGE_";

/// The upstream that CNCF distribution's variables name, so that a mirror of that kind can be replaced by this gateway.
pub(super) fn registry_proxy() -> Option<Result<UpstreamTable, Unusable>> {
    const URL: &str = "REGISTRY_PROXY_REMOTEURL";
    const USERNAME: &str = "REGISTRY_PROXY_USERNAME";
    const PASSWORD: &str = "REGISTRY_PROXY_PASSWORD";
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let text = variable(URL)?;
    let table = values::upstream(&text).map_err(|reason| Unusable::DropIn { variable: URL, reason });
    Some(table.map(|table| match variable(USERNAME) {
        Some(username) => table.with_password_in(username, PASSWORD),
        // A mirror of that kind is anonymous then; it never passes anybody's credentials on.
        None => table.anonymous(),
    }))
}

/// Where state is kept by convention: the directory that systemd made for the service, or the user's.
pub(super) fn state_directory() -> Option<PathBuf> {
    let path = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    path("STATE_DIRECTORY")
        .or_else(|| path("XDG_STATE_HOME").map(|state| state.join("schemabridge")))
        .or_else(|| path("HOME").map(|home| home.join(".local/state/schemabridge")))
}

/// The variables that begin in one of these ways, their names in lower case.
pub(super) fn platform_settings(beginnings: &[&str]) -> Vec<(String, String)> {
    let ours = |name: &str| beginnings.iter().any(|beginning| name.starts_with(beginning));
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    variables
        .filter(|(name, value)| ours(name) && !value.is_empty())
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect()
}

/// Docker's `config.json`, by docker's own rules.
pub fn docker_config() -> Option<PathBuf> {
    let path = |name: &str| std::env::var_os(name).map(PathBuf::from);
    path("DOCKER_CONFIG")
        .or_else(|| path("HOME").map(|home| home.join(".docker")))
        .map(|folder| folder.join("config.json"))
}

/// The variables of the environment that begin like ours and are not: most likely a misspelt flag. Those that hold a
/// password are known, and what Kubernetes injects for a service of our name is left out.
pub fn unknown_variables<Commands: CommandFactory>(file: &File) -> Vec<String> {
    let command = Commands::command();
    let flags = command.get_subcommands().flat_map(clap::Command::get_arguments);
    let twins = flags.filter_map(|argument| argument.get_env()?.to_str());
    let passwords = file.tables.upstreams.iter().filter_map(UpstreamTable::password_variable);
    let known: BTreeSet<&str> = twins.chain(passwords).chain([PASSWORD_VARIABLE]).collect();
    let mut unknown: Vec<String> = std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| name.starts_with(PREFIX) && !known.contains(name.as_str()))
        .filter(|name| !name.starts_with("SCHEMABRIDGE_PORT") && !name.starts_with("SCHEMABRIDGE_SERVICE_"))
        .collect();
    unknown.sort();
    unknown
}
