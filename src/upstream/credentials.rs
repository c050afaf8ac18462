//! Credentials of docker's `config.json`, for the gateway's own commands.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use http::HeaderValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Caller;
use super::token::DOCKER_HUB_HOSTS;

/// How long a credential helper may take.
const HELPER_TIMEOUT: Duration = Duration::from_secs(20);
/// How much a credential helper may print, in bytes.
const HELPER_BYTES_MAX: u64 = 64 * 1024;
/// Under which key docker keeps the credentials of Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// Why credentials that are configured cannot be used. Holds no secret.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the credentials for {registry}: {reason}")]
pub struct UnusableCredentials {
    registry: String,
    reason: String,
}

#[derive(serde::Deserialize, Default)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(rename = "credsStore")]
    creds_store: Option<String>,
    #[serde(rename = "credHelpers", default)]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(serde::Deserialize, Default)]
struct Entry {
    auth: Option<String>,
}

#[derive(serde::Deserialize)]
struct HelperAnswer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// The credentials that this `config.json` has for a registry (host and port); anonymous if the file is absent or does
/// not name it. `credHelpers` go before `credsStore`, and both before `auths`, as in docker.
pub async fn from_docker_config(file: &Path, registry: &str) -> Result<Caller, UnusableCredentials> {
    let unusable = |reason: String| UnusableCredentials { registry: registry.to_owned(), reason };
    let text = match tokio::fs::read(file).await {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Caller::default()),
        Err(error) => return Err(unusable(format!("{}: {error}", file.display()))),
    };
    let config: DockerConfig =
        serde_json::from_slice(&text).map_err(|error| unusable(format!("{}: {error}", file.display())))?;
    let keys = keys_of(registry);
    let helper = keys.iter().find_map(|key| config.cred_helpers.get(key)).or(config.creds_store.as_ref());
    if let Some(helper) = helper {
        let key = keys.first().map_or(registry, String::as_str);
        if let Some(basic) = ask_helper(helper, key).await.map_err(unusable)? {
            return Ok(basic);
        }
    }
    let auth = keys.iter().find_map(|key| config.auths.get(key)?.auth.clone()).filter(|auth| !auth.is_empty());
    Ok(Caller::new(auth.and_then(|auth| HeaderValue::try_from(format!("Basic {auth}")).ok())))
}

/// The keys under which docker may have stored this registry.
fn keys_of(registry: &str) -> Vec<String> {
    let mut keys = vec![registry.to_owned(), format!("https://{registry}"), format!("http://{registry}")];
    if DOCKER_HUB_HOSTS.contains(&registry) {
        keys.insert(0, DOCKER_HUB_KEY.to_owned());
    }
    keys
}

async fn ask_helper(name: &str, key: &str) -> Result<Option<Caller>, String> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if !is_plain {
        return Err(format!("`{name}` is not the name of a credential helper"));
    }
    let program = format!("docker-credential-{name}");
    let ask = async {
        let mut child = tokio::process::Command::new(&program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(key.as_bytes()).await?;
        }
        let mut answer = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(HELPER_BYTES_MAX).read_to_end(&mut answer).await?;
        }
        let status = child.wait().await?;
        std::io::Result::Ok(status.success().then_some(answer))
    };
    let answer = tokio::time::timeout(HELPER_TIMEOUT, ask)
        .await
        .map_err(|_| format!("{program} did not answer within {} s", HELPER_TIMEOUT.as_secs()))?
        .map_err(|error| format!("{program}: {error}"))?;
    // A helper that has nothing for this registry exits with an error.
    let Some(answer) = answer else { return Ok(None) };
    let HelperAnswer { username, secret } = serde_json::from_slice(&answer)
        .map_err(|_| format!("{program} did not print JSON with Username and Secret"))?;
    let basic = data_encoding::BASE64.encode(format!("{username}:{secret}").as_bytes());
    Ok(HeaderValue::try_from(format!("Basic {basic}")).ok().map(|value| Caller::new(Some(value))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn auths_are_read_and_absence_is_anonymous() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        assert!(from_docker_config(&file, "r.example:5000").await.unwrap().authorization().is_none());
        std::fs::write(&file, r#"{"auths":{"r.example:5000":{"auth":"dTpw"},"other":{}}}"#).unwrap();
        let caller = from_docker_config(&file, "r.example:5000").await.unwrap();
        assert_eq!(caller.authorization().unwrap().as_bytes(), b"Basic dTpw");
        assert!(from_docker_config(&file, "other").await.unwrap().authorization().is_none());
        std::fs::write(&file, "{").unwrap();
        assert!(from_docker_config(&file, "other").await.is_err());
    }
}
