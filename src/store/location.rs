//! The `--store` URL.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use url::Url;

use super::bucket::{Bucket, Service, prefix_of};

/// Where what must last is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `memory:`: nowhere; a restart forgets every derived digest.
    Memory,
    /// `file:///directory`.
    Directory(PathBuf),
    /// `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
    Bucket(Bucket),
}

/// Why a text is not a [`Location`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a store URL: expected `memory:`, `file:///directory` with an absolute path, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`"
)]
pub struct InvalidLocation;

impl FromStr for Location {
    type Err = InvalidLocation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text).map_err(|_| InvalidLocation)?;
        let is_plain = url.query().is_none() && url.fragment().is_none();
        match url.scheme() {
            "memory" if is_plain && url.path().is_empty() => Ok(Self::Memory),
            "file" if is_plain && text.starts_with("file:///") => {
                url.to_file_path().map(Self::Directory).map_err(|()| InvalidLocation)
            }
            "s3" if is_plain => bucket(Service::S3, &url),
            "gs" if is_plain => bucket(Service::Gcs, &url),
            "az" if is_plain => bucket(Service::Azure, &url),
            _ => Err(InvalidLocation),
        }
    }
}

/// Credentials never stand in the URL: it is shown in logs.
fn bucket(service: Service, url: &Url) -> Result<Location, InvalidLocation> {
    if !url.username().is_empty() || url.password().is_some() || url.port().is_some() {
        return Err(InvalidLocation);
    }
    let name = url.host_str().filter(|name| !name.is_empty()).ok_or(InvalidLocation)?.to_owned();
    let prefix = prefix_of(url.path()).ok_or(InvalidLocation)?;
    Ok(Location::Bucket(Bucket { service, name, prefix, endpoint: None, settings: Vec::new() }))
}

impl fmt::Display for Location {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => formatter.write_str("memory:"),
            Self::Directory(directory) => write!(formatter, "file://{}", directory.display()),
            Self::Bucket(bucket) => bucket.fmt(formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_never_shown() {
        let Ok(Location::Bucket(mut bucket)) = "s3://bucket".parse() else { panic!() };
        bucket.settings.push(("aws_secret_access_key".to_owned(), "hush".to_owned()));
        let shown = format!("{bucket} {bucket:?} {:?}", Location::Bucket(bucket.clone()));
        assert!(shown.contains("aws_secret_access_key") && !shown.contains("hush"), "{shown}");
    }

    #[test]
    fn locations() {
        assert_eq!("memory:".parse(), Ok(Location::Memory));
        assert_eq!("file:///var/lib/x".parse(), Ok(Location::Directory("/var/lib/x".into())));
        for (text, service, name, prefix) in [
            ("s3://bucket", Service::S3, "bucket", ""),
            ("s3://my_bucket.1/a/b/", Service::S3, "my_bucket.1", "a/b"),
            ("gs://bucket/a", Service::Gcs, "bucket", "a"),
            ("az://container/a", Service::Azure, "container", "a"),
        ] {
            let Ok(Location::Bucket(bucket)) = text.parse() else { panic!("{text}") };
            assert_eq!((bucket.service, bucket.name.as_str(), bucket.prefix.as_str()), (service, name, prefix));
            assert_eq!(bucket.to_string(), text.trim_end_matches('/'));
        }
        for bad in [
            "",
            "memory",
            "/var/lib/x",
            "file:x",
            "file://host/x",
            "file:///x?y",
            "s4://b",
            "memory:x",
            "s3://",
            "s3:b",
            "s3://user:pw@b",
            "gs://b?x",
            "s3://b/../c#x",
        ] {
            assert_eq!(bad.parse::<Location>(), Err(InvalidLocation), "{bad}");
        }
    }
}
