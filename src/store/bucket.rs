//! A bucket of a cloud, or of a server that speaks the same protocol.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use url::Url;

/// How long a connection to the service may take to be made.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long one request to the service may take, a little less than a whole operation.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(9);
/// After this long a request that failed is not tried again.
pub const RETRY_TIMEOUT: Duration = Duration::from_secs(4);
/// How often a request that failed is tried again.
pub const RETRIES_MAX: usize = 2;

/// Who keeps the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Amazon S3, or a server with its API.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage, whose buckets are called containers.
    Azure,
}

/// A bucket, where in it the store is, and how to get in.
#[derive(Clone, PartialEq, Eq)]
pub struct Bucket {
    /// Who keeps it.
    pub service: Service,
    /// Its name.
    pub name: String,
    /// Where in it the store is; empty for all of it.
    pub prefix: String,
    /// The service's URL, where it is not the cloud's own.
    pub endpoint: Option<Url>,
    /// What the platform's usual variables say, by their names in lower case. Some are secret.
    pub settings: Vec<(String, String)>,
}

impl Service {
    /// The scheme of its URLs.
    pub const fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gs",
            Self::Azure => "az",
        }
    }

    /// How the platform's own variables begin.
    pub const fn variables(self) -> &'static [&'static str] {
        match self {
            Self::S3 => &["AWS_"],
            Self::Gcs => &["GOOGLE_", "SERVICE_ACCOUNT"],
            Self::Azure => &["AZURE_", "IDENTITY_ENDPOINT"],
        }
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}://{}", self.service.scheme(), self.name)?;
        if !self.prefix.is_empty() {
            write!(formatter, "/{}", self.prefix)?;
        }
        Ok(())
    }
}

/// The names of the settings, never their values.
impl fmt::Debug for Bucket {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.settings.iter().map(|(name, _)| name.as_str()).collect();
        write!(formatter, "Bucket({self}, endpoint {:?}, settings {names:?})", self.endpoint.as_ref().map(Url::as_str))
    }
}

/// A client for the bucket. No request is made: one that is away or refuses shows when it is first asked.
pub(super) fn open(bucket: &Bucket) -> Result<Arc<dyn ObjectStore>, String> {
    // The library makes its own HTTP client, which takes the process's provider of cryptography; where one was installed
    // already, it is this one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let objects = match bucket.service {
        Service::S3 => s3(bucket),
        Service::Gcs => gcs(bucket),
        Service::Azure => azure(bucket),
    };
    let objects = objects.map_err(|error| error.to_string())?;
    if bucket.prefix.is_empty() { Ok(objects) } else { Ok(Arc::new(PrefixStore::new(objects, bucket.prefix.as_str()))) }
}

fn s3(bucket: &Bucket) -> object_store::Result<Arc<dyn ObjectStore>> {
    let mut builder = AmazonS3Builder::new().with_client_options(client_options(bucket)).with_retry(retries());
    for (key, value) in known::<AmazonS3ConfigKey>(bucket) {
        builder = builder.with_config(key, value);
    }
    if let Some(endpoint) = &bucket.endpoint {
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, without_slash(endpoint));
    }
    Ok(Arc::new(builder.with_bucket_name(&bucket.name).build()?))
}

fn gcs(bucket: &Bucket) -> object_store::Result<Arc<dyn ObjectStore>> {
    let mut builder =
        GoogleCloudStorageBuilder::new().with_client_options(client_options(bucket)).with_retry(retries());
    for (key, value) in known::<GoogleConfigKey>(bucket) {
        builder = builder.with_config(key, value);
    }
    if let Some(endpoint) = &bucket.endpoint {
        builder = builder.with_config(GoogleConfigKey::BaseUrl, without_slash(endpoint));
    }
    Ok(Arc::new(builder.with_bucket_name(&bucket.name).build()?))
}

fn azure(bucket: &Bucket) -> object_store::Result<Arc<dyn ObjectStore>> {
    let mut builder = MicrosoftAzureBuilder::new().with_client_options(client_options(bucket)).with_retry(retries());
    for (key, value) in known::<AzureConfigKey>(bucket) {
        builder = builder.with_config(key, value);
    }
    if let Some((_, endpoint)) = bucket.settings.iter().find(|(name, _)| name == "identity_endpoint") {
        builder = builder.with_config(AzureConfigKey::MsiEndpoint, endpoint);
    }
    if let Some(endpoint) = &bucket.endpoint {
        builder = builder.with_config(AzureConfigKey::Endpoint, without_slash(endpoint));
    }
    Ok(Arc::new(builder.with_container_name(&bucket.name).build()?))
}

/// The settings that this service's client knows; the platform has variables for many other programs too.
fn known<Key: std::str::FromStr>(bucket: &Bucket) -> impl Iterator<Item = (Key, &str)> {
    bucket.settings.iter().filter_map(|(name, value)| Some((name.parse().ok()?, value.as_str())))
}

fn client_options(bucket: &Bucket) -> ClientOptions {
    // Plain HTTP only where the operator wrote it.
    let named = bucket.endpoint.as_ref().map(Url::as_str);
    let by_variable = bucket.settings.iter().filter(|(name, _)| is_endpoint(name)).map(|(_, value)| value.as_str());
    let is_plain = named.into_iter().chain(by_variable).any(|url| url.starts_with("http://"));
    ClientOptions::new().with_connect_timeout(CONNECT_TIMEOUT).with_timeout(REQUEST_TIMEOUT).with_allow_http(is_plain)
}

/// These name the storage service itself; those of token services are not asked for documents.
fn is_endpoint(name: &str) -> bool {
    matches!(
        name,
        "aws_endpoint_url_s3"
            | "aws_endpoint_url"
            | "aws_endpoint"
            | "google_base_url"
            | "azure_endpoint"
            | "azure_storage_endpoint"
    )
}

fn retries() -> RetryConfig {
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(1), base: 2.0 };
    RetryConfig { backoff, max_retries: RETRIES_MAX, retry_timeout: RETRY_TIMEOUT }
}

fn without_slash(endpoint: &Url) -> &str {
    endpoint.as_str().trim_end_matches('/')
}

/// A prefix as it stands in a URL, if each of its parts can be one of an object's path.
pub(super) fn prefix_of(path: &str) -> Option<String> {
    let prefix = path.trim_matches('/');
    Path::parse(prefix).ok().map(|path| path.to_string())
}
