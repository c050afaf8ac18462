//! A bucket in this process, with as much of the API of Amazon S3 as the gateway uses: PUT with `If-None-Match: *`, GET,
//! HEAD, DELETE, deletion of several at once, version 2 of the listing, in one page, and uploads in parts.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::SystemTime;

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use schemabridge::store::bucket::{Bucket as Place, Service};
use schemabridge::store::location::Location;
use tokio::process::Command;

use super::fault::Answer;
use super::process::Process;
use super::registry::ranged;
use super::server::{Honest, Recorded, Server};
use super::sha256;
use super::upstream::Upstream;

/// The bucket's name.
const NAME: &str = "derived";
/// Where in the bucket the store is.
const PREFIX: &str = "of/schemabridge";
/// How the gateway is let in, by the names that the platform's variables have in lower case.
const CREDENTIALS: [(&str, &str); 3] =
    [("aws_access_key_id", "test"), ("aws_secret_access_key", "test"), ("aws_region", "eu-central-1")];

/// A bucket behind a socket.
pub type Bucket = Server<Objects>;

struct Object {
    bytes: Bytes,
    modified: SystemTime,
}

/// Whether `If-None-Match: *` is understood.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Honoured,
    Ignored,
}

/// What the bucket holds, by the names that objects have in the store.
pub struct Objects {
    held: BTreeMap<String, Object>,
    condition: Condition,
    /// The parts of what is not an object yet, by the id of the upload.
    uploads: BTreeMap<String, BTreeMap<u32, Bytes>>,
    uploads_begun: usize,
}

impl Bucket {
    /// An empty bucket on a free port.
    pub async fn start() -> Self {
        Self::start_with(|_| Objects {
            held: BTreeMap::new(),
            condition: Condition::Honoured,
            uploads: BTreeMap::new(),
            uploads_begun: 0,
        })
        .await
    }

    /// The store in this bucket, for a gateway in this process.
    pub fn location(&self) -> Location {
        Location::Bucket(Place {
            service: Service::S3,
            name: NAME.to_owned(),
            prefix: PREFIX.to_owned(),
            endpoint: Some(self.url().parse().unwrap()),
            settings: CREDENTIALS.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        })
    }

    /// A process in front of the upstream, with its store in this bucket.
    pub async fn serve(&self, upstream: &Upstream) -> Process {
        self.serve_with(upstream, &[]).await
    }

    /// The same with more arguments.
    pub async fn serve_with(&self, upstream: &Upstream, more: &[&str]) -> Process {
        let (url, store, endpoint) = (upstream.url(), format!("s3://{NAME}/{PREFIX}"), self.url());
        let variables = CREDENTIALS.map(|(name, value)| (name.to_uppercase(), value));
        let environment: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let arguments = ["--upstream", &url, "--store", &store, "--store-endpoint", &endpoint];
        Process::serve(&[&arguments, more].concat(), &environment).await
    }

    /// What `schemabridge store` with these words says of the store in this bucket.
    pub async fn told(&self, words: &[&str]) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_schemabridge"));
        command.arg("store").args(words).args(["--store", &format!("s3://{NAME}/{PREFIX}")]);
        command.args(["--store-endpoint", &self.url()]).env_clear();
        command.envs(CREDENTIALS.map(|(name, value)| (name.to_uppercase(), value)));
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The path of a request for what has this name in the store, `*` included.
    pub fn path(name: &str) -> String {
        format!("/{NAME}/{PREFIX}/{name}")
    }
}

impl Objects {
    /// From now on a name can be given twice.
    pub fn ignore_conditions(&mut self) {
        self.condition = Condition::Ignored;
    }

    /// The names of all objects whose name begins so.
    pub fn names(&self, beginning: &str) -> Vec<String> {
        self.held.keys().filter(|name| name.starts_with(beginning)).cloned().collect()
    }

    pub fn get(&self, name: &str) -> Bytes {
        self.held[name].bytes.clone()
    }

    pub fn put(&mut self, name: &str, bytes: impl Into<Bytes>) {
        self.held.insert(name.to_owned(), Object { bytes: bytes.into(), modified: SystemTime::now() });
    }

    pub fn remove(&mut self, name: &str) {
        self.held.remove(name);
    }

    /// Says of every object that it was written then.
    pub fn set_modified(&mut self, modified: SystemTime) {
        self.held.values_mut().for_each(|object| object.modified = modified);
    }

    /// How many uploads are neither an object nor given up.
    pub fn unfinished_uploads(&self) -> usize {
        self.uploads.len()
    }

    /// An upload in parts: begun, one part of it, ended or given up.
    fn upload_answer(&mut self, request: &Recorded, name: &str) -> Answer {
        let query: BTreeMap<_, _> = url::form_urlencoded::parse(request.query.as_bytes()).into_owned().collect();
        let Some(id) = query.get("uploadId") else {
            self.uploads_begun += 1;
            let id = format!("upload-{}", self.uploads_begun);
            let answer = xml(
                200,
                &format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"),
            );
            self.uploads.insert(id, BTreeMap::new());
            return answer;
        };
        let Some(parts) = self.uploads.get_mut(id) else {
            return refusal(404, "NoSuchUpload", "The specified upload does not exist.");
        };
        match request.method.as_str() {
            "PUT" => {
                parts.insert(query["partNumber"].parse().unwrap(), request.body.clone());
                Answer::new(200).header("etag", &etag(&request.body))
            }
            "DELETE" => {
                self.uploads.remove(id);
                Answer::new(204)
            }
            _ => {
                let whole = parts.values().flatten().copied().collect::<Vec<u8>>();
                let tag = etag(&whole).replace('"', "&quot;");
                self.uploads.remove(id);
                self.put(name, whole);
                xml(200, &format!("<CompleteMultipartUploadResult><ETag>{tag}</ETag></CompleteMultipartUploadResult>"))
            }
        }
    }

    fn put_answer(&mut self, request: &Recorded, name: &str) -> Answer {
        let is_conditional = request.header("if-none-match") == Some("*");
        if is_conditional && self.condition == Condition::Honoured && self.held.contains_key(name) {
            return refusal(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold");
        }
        self.put(name, request.body.clone());
        Answer::new(200).header("etag", &etag(&request.body))
    }

    fn get_answer(&self, request: &Recorded, name: &str) -> Answer {
        let Some(object) = self.held.get(name) else {
            return refusal(404, "NoSuchKey", "The specified key does not exist.");
        };
        let modified = DateTime::<Utc>::from(object.modified).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let answer = Answer::new(200)
            .header("etag", &etag(&object.bytes))
            .header("last-modified", &modified)
            .header("content-type", "application/octet-stream");
        ranged(request, answer, &object.bytes)
    }

    fn list_answer(&self, request: &Recorded) -> Answer {
        let query: BTreeMap<_, _> = url::form_urlencoded::parse(request.query.as_bytes()).into_owned().collect();
        let wanted = query.get("prefix").map(String::as_str).unwrap_or_default();
        let mut contents = String::new();
        for (name, object) in &self.held {
            let key = format!("{PREFIX}/{name}");
            if key.starts_with(wanted) {
                let modified = DateTime::<Utc>::from(object.modified).to_rfc3339_opts(SecondsFormat::Millis, true);
                let (size, etag) = (object.bytes.len(), etag(&object.bytes).replace('"', "&quot;"));
                let facts = format!("<LastModified>{modified}</LastModified><ETag>{etag}</ETag><Size>{size}</Size>");
                write!(contents, "<Contents><Key>{key}</Key>{facts}</Contents>").unwrap();
            }
        }
        xml(200, &format!("<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"))
    }

    fn delete_answer(&mut self, request: &Recorded) -> Answer {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let keys = body.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
        let mut deleted = String::new();
        for key in keys {
            self.held.remove(key.strip_prefix(&format!("{PREFIX}/")).unwrap_or(key));
            write!(deleted, "<Deleted><Key>{key}</Key></Deleted>").unwrap();
        }
        xml(200, &format!("<DeleteResult>{deleted}</DeleteResult>"))
    }
}

impl Honest for Objects {
    fn answer(&mut self, request: &Recorded) -> Answer {
        let path = request.path.trim_end_matches('/');
        if path == format!("/{NAME}") {
            return match request.method.as_str() {
                "GET" if request.query.contains("list-type=2") => self.list_answer(request),
                "POST" if request.query.starts_with("delete") => self.delete_answer(request),
                _ => refusal(501, "NotImplemented", "not what this bucket is for"),
            };
        }
        let Some(name) = path.strip_prefix(&Bucket::path("")) else {
            return refusal(404, "NoSuchBucket", "The specified bucket does not exist");
        };
        let is_of_an_upload = request.query.contains("uploadId=") || request.query.starts_with("uploads");
        match request.method.as_str() {
            "POST" | "PUT" | "DELETE" if is_of_an_upload => self.upload_answer(request, name),
            "PUT" => self.put_answer(request, name),
            "GET" | "HEAD" => self.get_answer(request, name),
            "DELETE" => {
                self.held.remove(name);
                Answer::new(204)
            }
            _ => refusal(405, "MethodNotAllowed", "The specified method is not allowed against this resource."),
        }
    }
}

/// An error as S3 says it.
pub fn refusal(status: u16, code: &str, message: &str) -> Answer {
    xml(status, &format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>"))
}

fn xml(status: u16, body: &str) -> Answer {
    let body = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>{body}");
    Answer::new(status).header("content-type", "application/xml").body(body)
}

fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", &sha256(bytes)[7..39])
}
