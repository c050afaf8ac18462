//! Docker's `config.json`, which podman's `auth.json` is too.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use data_encoding::BASE64;
use tokio::io::AsyncReadExt;

use super::credentials::Credential;
use super::token::DOCKER_HUB_HOSTS;

/// How large the file may be, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Under which key docker keeps the credentials of Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// What the file has for one registry.
#[derive(Default)]
pub(super) struct Entry {
    /// The helper to ask first, and by which key.
    pub(super) helper: Option<(String, String)>,
    /// What the file itself holds.
    pub(super) credential: Option<Credential>,
}

#[derive(serde::Deserialize, Default)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Stored>,
    #[serde(rename = "credsStore")]
    creds_store: Option<String>,
    #[serde(rename = "credHelpers", default)]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct Stored {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

/// Reads the file for this registry (host and port). An absent file has nothing.
pub(super) async fn read(file: &Path, registry: &str) -> Result<Entry, String> {
    let unusable = |reason: String| format!("{}: {reason}", file.display());
    let read = async {
        let mut text = Vec::new();
        tokio::fs::File::open(file).await?.take(FILE_BYTES_MAX).read_to_end(&mut text).await?;
        std::io::Result::Ok(text)
    };
    match read.await {
        // What the parser says could quote the file.
        Ok(text) => entry(&text, registry).ok_or_else(|| unusable("it is not docker's configuration".to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Entry::default()),
        Err(error) => Err(unusable(error.to_string())),
    }
}

/// `credHelpers` go before `credsStore`, and both before `auths`, as in docker.
fn entry(text: &[u8], registry: &str) -> Option<Entry> {
    let file: File = serde_json::from_slice(text).ok()?;
    let keys = keys_of(registry);
    let named = keys.iter().find_map(|key| Some((file.cred_helpers.get(key)?.clone(), key.clone())));
    let store = file.creds_store.filter(|store| !store.is_empty());
    let helper = named.or_else(|| Some((store?, keys.first()?.clone())));
    let stored = keys.iter().find_map(|key| file.auths.get(key));
    Some(Entry { helper, credential: stored.and_then(credential) })
}

/// The keys under which docker may have stored this registry.
fn keys_of(registry: &str) -> Vec<String> {
    let mut keys = vec![registry.to_owned(), format!("https://{registry}"), format!("http://{registry}")];
    if DOCKER_HUB_HOSTS.contains(&registry) {
        keys.insert(0, DOCKER_HUB_KEY.to_owned());
        keys.push("docker.io".to_owned());
    }
    keys
}

fn credential(stored: &Stored) -> Option<Credential> {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    if let Some(token) = text(&stored.registrytoken) {
        return Some(Credential::Bearer(token));
    }
    if let Some(token) = text(&stored.identitytoken) {
        return Some(Credential::Identity(token));
    }
    let decoded = BASE64.decode(stored.auth.trim().as_bytes()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let (username, password) = match decoded.as_deref().and_then(|pair| pair.split_once(':')) {
        Some((username, password)) => (username.to_owned(), password.trim_end_matches('\0').to_owned()),
        None => (stored.username.clone(), stored.password.clone()),
    };
    (!username.is_empty()).then(|| Credential::named(username, password))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(username: &str, password: &str) -> Credential {
        Credential::Basic { username: username.to_owned(), password: password.to_owned() }
    }

    #[test]
    fn each_form_of_an_entry_is_read() {
        let text = br#"{"auths":{
            "r.example:5000": {"auth": "dTpwOnc="},
            "https://plain.example": {"username": "ann", "password": "pw"},
            "identity.example": {"auth": "MDAwMDo=", "identitytoken": "long-lived"},
            "bearer.example": {"registrytoken": "token"},
            "empty.example": {},
            "junk.example": {"auth": "%%%"},
            "https://index.docker.io/v1/": {"auth": "aHViOnB3"}
        }, "HttpHeaders": {"X": "y"}}"#;
        let found = |registry: &str| entry(text, registry).unwrap().credential;
        assert_eq!(found("r.example:5000"), Some(basic("u", "p:w")));
        assert_eq!(found("plain.example"), Some(basic("ann", "pw")));
        assert_eq!(found("identity.example"), Some(Credential::Identity("long-lived".to_owned())));
        assert_eq!(found("bearer.example"), Some(Credential::Bearer("token".to_owned())));
        assert_eq!(found("registry-1.docker.io"), Some(basic("hub", "pw")));
        for nobody in ["empty.example", "junk.example", "other.example", "r.example", "index.docker.io.example"] {
            assert_eq!(found(nobody), None, "{nobody}");
        }
        assert!(entry(b"{", "r.example").is_none());
    }

    #[test]
    fn the_registrys_own_helper_goes_before_the_store() {
        let text = br#"{"credsStore":"all","credHelpers":{"r.example":"own"},"auths":{"r.example":{"auth":"dTpw"}}}"#;
        let pair = |name: &str, key: &str| Some((name.to_owned(), key.to_owned()));
        let found = entry(text, "r.example").unwrap();
        assert_eq!((found.helper, found.credential), (pair("own", "r.example"), Some(basic("u", "p"))));
        assert_eq!(entry(text, "other.example").unwrap().helper, pair("all", "other.example"));
        assert_eq!(entry(text, "docker.io").unwrap().helper, pair("all", "https://index.docker.io/v1/"));
    }
}
