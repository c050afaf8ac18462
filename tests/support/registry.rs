//! The OCI distribution API over contents in memory, as an honest registry serves it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use bytes::Bytes;

use super::fault::Answer;
use super::images::Document;
use super::server::{Honest, Recorded};
use super::sha256;

/// The query part that an upload's `Location` carries; it must come back byte for byte.
const UPLOAD_STATE: &str = "_state=a;b%2Fc%3D&_z=~!";

#[derive(Default)]
struct Holdings {
    blobs: BTreeMap<String, Bytes>,
    manifests: BTreeMap<String, Document>,
    tags: BTreeMap<String, String>,
    uploads: BTreeMap<String, Vec<u8>>,
}

/// Who may do what.
#[derive(Default)]
struct Door {
    /// The `WWW-Authenticate` of a 401; without one everybody may read and write.
    challenge: Option<String>,
    /// `Authorization` values, and the repositories each may use.
    callers: BTreeMap<String, BTreeSet<String>>,
    /// What the token endpoint gives for which `Authorization` or refresh token.
    tokens: BTreeMap<String, String>,
    /// Who gets a token of its own for whatever is asked for.
    minters: BTreeSet<String>,
    /// `Authorization` of each such token, and the scopes that it is good for.
    minted: BTreeMap<String, BTreeSet<String>>,
    /// How many were minted.
    mints: usize,
    /// What the token endpoint says of their life; nothing if null.
    expires_in: serde_json::Value,
}

/// How a Location of an upload is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Locations {
    Absolute,
    Relative,
}

/// What the registry holds and how it behaves.
pub struct Contents {
    repositories: BTreeMap<String, Holdings>,
    places: BTreeMap<String, Bytes>,
    door: Door,
    negotiates: bool,
    /// How a pushed schema 1 is refused: a status and the code of the error.
    pub refuses_schema1: Option<(u16, &'static str)>,
    pub locations: Locations,
    address: SocketAddr,
    uploads_begun: usize,
}

impl Honest for Contents {
    fn answer(&mut self, request: &Recorded) -> Answer {
        if let Some(bytes) = self.places.get(&request.path) {
            return ranged(request, Answer::new(200).header("content-type", "application/octet-stream"), bytes);
        }
        if request.path == "/token" {
            return self.token(request);
        }
        if let Some(refusal) = self.refusal(request) {
            return refusal.header("docker-distribution-api-version", "registry/2.0");
        }
        self.route(request).header("docker-distribution-api-version", "registry/2.0")
    }
}

impl Contents {
    pub fn new(address: SocketAddr) -> Self {
        Self {
            repositories: BTreeMap::new(),
            places: BTreeMap::new(),
            door: Door::default(),
            negotiates: false,
            refuses_schema1: None,
            locations: Locations::Absolute,
            address,
            uploads_begun: 0,
        }
    }

    pub fn put(&mut self, repository: &str, tag: Option<&str>, document: &Document) {
        let holdings = self.repositories.entry(repository.to_owned()).or_default();
        holdings.manifests.insert(document.digest.clone(), document.clone());
        if let Some(tag) = tag {
            holdings.tags.insert(tag.to_owned(), document.digest.clone());
        }
    }

    pub fn put_blob(&mut self, repository: &str, bytes: Bytes) -> String {
        let digest = sha256(&bytes);
        let holdings = self.repositories.entry(repository.to_owned()).or_default();
        holdings.blobs.insert(digest.clone(), bytes);
        digest
    }

    /// Forgets the document, and the tags that name it.
    pub fn remove_manifest(&mut self, repository: &str, digest: &str) {
        if let Some(holdings) = self.repositories.get_mut(repository) {
            holdings.manifests.remove(digest);
            holdings.tags.retain(|_, named| named != digest);
        }
    }

    pub fn blob(&self, repository: &str, digest: &str) -> Option<Bytes> {
        self.repositories.get(repository)?.blobs.get(digest).cloned()
    }

    pub fn manifest(&self, repository: &str, reference: &str) -> Option<&Document> {
        let holdings = self.repositories.get(repository)?;
        let digest = holdings.tags.get(reference).map_or(reference, String::as_str);
        holdings.manifests.get(digest)
    }

    /// Answers a plain path outside `/v2/` with these bytes: a blob store behind a redirect.
    pub fn place(&mut self, path: &str, bytes: Bytes) {
        self.places.insert(path.to_owned(), bytes);
    }

    /// From now on an `Accept` that does not list the stored type gives 404, as CNCF distribution answers for OCI types.
    pub fn negotiate_like_distribution(&mut self) {
        self.negotiates = true;
    }

    /// From now on callers must be admitted; the others get 401 with this `WWW-Authenticate`.
    pub fn close(&mut self, challenge: &str) {
        self.door.challenge = Some(challenge.to_owned());
    }

    /// Lets a caller with this `Authorization` use the repository.
    pub fn admit(&mut self, authorization: &str, repository: &str) {
        self.door.callers.entry(authorization.to_owned()).or_default().insert(repository.to_owned());
    }

    /// Takes the repository away from that caller.
    pub fn revoke(&mut self, authorization: &str, repository: &str) {
        self.door.callers.entry(authorization.to_owned()).or_default().remove(repository);
    }

    /// The token endpoint `/token` gives this token to whoever shows this `Authorization`, refresh token or, as
    /// `user:password`, these form fields. An empty credential is the anonymous caller.
    pub fn issue(&mut self, credential: &str, token: &str) {
        self.door.tokens.insert(credential.to_owned(), token.to_owned());
    }

    /// The token endpoint gives whoever shows this credential, as for [`Contents::issue`], a new token each time, good
    /// for exactly the scopes that are asked for.
    pub fn mint_for(&mut self, credential: &str) {
        self.door.minters.insert(credential.to_owned());
    }

    /// Nobody has credentials any more, and no token is good.
    pub fn change_the_locks(&mut self) {
        self.door.minters.clear();
        self.door.callers.clear();
        self.revoke_minted();
    }

    /// No token that was minted is good any more.
    pub fn revoke_minted(&mut self) {
        self.door.minted.clear();
    }

    /// What the token endpoint says of the life of what it mints; nothing at all if null.
    pub fn tokens_expire_in(&mut self, expires_in: serde_json::Value) {
        self.door.expires_in = expires_in;
    }

    fn route(&mut self, request: &Recorded) -> Answer {
        let Some(rest) = request.path.strip_prefix("/v2/") else {
            return Answer::new(404).header("content-type", "text/plain").body("404 page not found\n");
        };
        if rest.is_empty() {
            return Answer::new(200).header("content-type", "application/json").body("{}");
        }
        let (head, last) = rest.rsplit_once('/').unwrap_or(("", rest));
        if let Some(name) = head.strip_suffix("/blobs/uploads") {
            return self.upload(request, name, last);
        }
        if let Some(name) = head.strip_suffix("/blobs") {
            return self.blob_answer(request, name, last);
        }
        if let Some(name) = head.strip_suffix("/manifests") {
            return self.manifest_answer(request, name, last);
        }
        if let Some(name) = head.strip_suffix("/tags").filter(|_| last == "list") {
            return self.tags(request, name);
        }
        if let Some(name) = head.strip_suffix("/referrers") {
            return self.referrers(request, name, last);
        }
        if rest == "_catalog" {
            let names: Vec<&String> = self.repositories.keys().collect();
            return json(&serde_json::json!({"repositories": names}));
        }
        Answer::new(404).header("content-type", "text/plain").body("404 page not found\n")
    }

    fn refusal(&self, request: &Recorded) -> Option<Answer> {
        let challenge = self.door.challenge.as_ref()?;
        if let Some(scopes) = request.header("authorization").and_then(|token| self.door.minted.get(token)) {
            let insufficient = Answer::error(401, "UNAUTHORIZED", "insufficient scope");
            return (!suffices(scopes, request)).then(|| insufficient.header("www-authenticate", challenge));
        }
        let known = request.header("authorization").and_then(|caller| self.door.callers.get(caller));
        let Some(repositories) = known else {
            let answer = Answer::error(401, "UNAUTHORIZED", "authentication required");
            return Some(answer.header("www-authenticate", challenge));
        };
        let rest = request.path.strip_prefix("/v2/").unwrap_or_default();
        let may = rest.is_empty() || repositories.iter().any(|name| rest.starts_with(&format!("{name}/")));
        (!may).then(|| Answer::error(403, "DENIED", "requested access to the resource is denied"))
    }

    /// Whether the caller may use that repository too.
    fn admits_to(&self, request: &Recorded, repository: &str) -> bool {
        let callers = &self.door.callers;
        let known = || request.header("authorization").and_then(|caller| callers.get(caller));
        callers.is_empty() || known().is_some_and(|repositories| repositories.contains(repository))
    }

    fn token(&mut self, request: &Recorded) -> Answer {
        let form: BTreeMap<String, String> = url::form_urlencoded::parse(&request.body).into_owned().collect();
        let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        let credential = match (request.method.as_str(), field("grant_type")) {
            ("POST", "refresh_token") => field("refresh_token").to_owned(),
            ("POST", _) => format!("{}:{}", field("username"), field("password")),
            _ => request.header("authorization").unwrap_or_default().to_owned(),
        };
        if self.door.minters.contains(&credential) {
            let query: Vec<(String, String)> =
                url::form_urlencoded::parse(request.query.as_bytes()).into_owned().collect();
            let asked = query.iter().filter(|(name, _)| name == "scope").map(|(_, scope)| scope.as_str());
            let scopes = asked.chain(field("scope").split_ascii_whitespace()).map(str::to_owned).collect();
            return self.mint(scopes);
        }
        match self.door.tokens.get(&credential) {
            Some(token) if request.method == "POST" => {
                json(&serde_json::json!({"access_token": token, "expires_in": 300}))
            }
            Some(token) => json(&serde_json::json!({"token": token, "expires_in": 300})),
            None => Answer::error(401, "UNAUTHORIZED", "incorrect username or password"),
        }
    }

    fn mint(&mut self, scopes: BTreeSet<String>) -> Answer {
        self.door.mints += 1;
        let token = format!("minted-{}", self.door.mints);
        self.door.minted.insert(format!("Bearer {token}"), scopes);
        let mut answer = serde_json::json!({"token": token});
        if !self.door.expires_in.is_null() {
            answer["expires_in"] = self.door.expires_in.clone();
        }
        json(&answer)
    }

    fn manifest_answer(&mut self, request: &Recorded, name: &str, reference: &str) -> Answer {
        let unknown = || Answer::error(404, "MANIFEST_UNKNOWN", "manifest unknown");
        match request.method.as_str() {
            "GET" | "HEAD" => match self.manifest(name, reference) {
                Some(document) if self.negotiates && !is_listed(request, &document.content_type) => Answer::error(
                    404,
                    "MANIFEST_UNKNOWN",
                    "OCI manifest found, but accept header does not support OCI manifests",
                ),
                Some(document) => {
                    let etag = format!("\"{}\"", document.digest);
                    let answer = Answer::new(200)
                        .header("content-type", &document.content_type)
                        .header("docker-content-digest", &document.digest)
                        .header("etag", &etag);
                    if request.header("if-none-match") == Some(etag.as_str()) {
                        return Answer::new(304).header("etag", &etag);
                    }
                    answer.body(document.bytes.clone())
                }
                None => unknown(),
            },
            "PUT" => self.put_answer(request, name, reference),
            "DELETE" if self.manifest(name, reference).is_some() => {
                self.remove_manifest(name, reference);
                Answer::new(202)
            }
            "DELETE" => unknown(),
            _ => Answer::error(405, "UNSUPPORTED", "the operation is unsupported"),
        }
    }

    /// Refuses, as registries do, a manifest whose blobs are not there.
    fn put_answer(&mut self, request: &Recorded, name: &str, reference: &str) -> Answer {
        let digest = sha256(&request.body);
        let Ok(manifest) = serde_json::from_slice::<serde_json::Value>(&request.body) else {
            return Answer::error(400, "MANIFEST_INVALID", "manifest invalid");
        };
        if let Some((status, code)) = self.refuses_schema1.filter(|_| manifest["schemaVersion"] == 1) {
            return Answer::error(status, code, "schema 1 is not taken");
        }
        let layers = manifest["layers"].as_array().cloned().unwrap_or_default();
        for blob in layers.iter().chain([&manifest["config"]]).filter_map(|blob| blob["digest"].as_str()) {
            if self.blob(name, blob).is_none() {
                return Answer::error(400, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry");
            }
        }
        let content_type = request.header("content-type").unwrap_or_default().to_owned();
        let document = Document { bytes: request.body.clone(), content_type, digest: digest.clone() };
        self.put(name, (!reference.contains(':')).then_some(reference), &document);
        let location = format!("http://{}/v2/{name}/manifests/{digest}", self.address);
        Answer::new(201).header("location", &location).header("docker-content-digest", &digest)
    }

    fn blob_answer(&mut self, request: &Recorded, name: &str, digest: &str) -> Answer {
        let Some(bytes) = self.blob(name, digest) else {
            return Answer::error(404, "BLOB_UNKNOWN", "blob unknown to registry");
        };
        if request.method == "DELETE" {
            self.repositories.entry(name.to_owned()).or_default().blobs.remove(digest);
            return Answer::new(202);
        }
        let answer = Answer::new(200)
            .header("content-type", "application/octet-stream")
            .header("docker-content-digest", digest)
            .header("etag", &format!("\"{digest}\""))
            .header("cache-control", "max-age=31536000")
            .header("accept-ranges", "bytes");
        ranged(request, answer, &bytes)
    }

    fn upload(&mut self, request: &Recorded, name: &str, upload: &str) -> Answer {
        let query: BTreeMap<String, String> =
            url::form_urlencoded::parse(request.query.as_bytes()).into_owned().collect();
        if upload.is_empty() {
            let mounted = query.get("mount").and_then(|digest| {
                let from = query.get("from").filter(|from| self.admits_to(request, from))?;
                self.blob(from, digest)
            });
            if let Some(bytes) = mounted {
                let digest = self.put_blob(name, bytes);
                return self.created(name, &digest);
            }
            if query.get("digest").is_some_and(|digest| *digest == sha256(&request.body)) {
                let digest = self.put_blob(name, request.body.clone());
                return self.created(name, &digest);
            }
            self.uploads_begun += 1;
            let upload = format!("upload-{}", self.uploads_begun);
            self.repositories.entry(name.to_owned()).or_default().uploads.insert(upload.clone(), Vec::new());
            return self.accepted(name, &upload, 0);
        }
        let holdings = self.repositories.entry(name.to_owned()).or_default();
        let Some(sofar) = holdings.uploads.get_mut(upload).filter(|_| request.query.starts_with(UPLOAD_STATE)) else {
            return Answer::error(404, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry");
        };
        sofar.extend_from_slice(&request.body);
        let length = sofar.len();
        match (request.method.as_str(), query.get("digest")) {
            ("PATCH" | "GET", _) => self.accepted(name, upload, length),
            ("PUT", Some(digest)) if *digest == sha256(sofar) => {
                let bytes = holdings.uploads.remove(upload).unwrap_or_default();
                let digest = self.put_blob(name, bytes.into());
                self.created(name, &digest)
            }
            ("PUT", _) => Answer::error(400, "DIGEST_INVALID", "provided digest did not match uploaded content"),
            ("DELETE", _) => Answer::new(204),
            _ => Answer::error(405, "UNSUPPORTED", "the operation is unsupported"),
        }
    }

    fn accepted(&self, name: &str, upload: &str, length: usize) -> Answer {
        let path = format!("/v2/{name}/blobs/uploads/{upload}?{UPLOAD_STATE}");
        Answer::new(202)
            .header("location", &self.location(&path))
            .header("range", &format!("0-{}", length.saturating_sub(1)))
            .header("docker-upload-uuid", upload)
    }

    fn created(&self, name: &str, digest: &str) -> Answer {
        let location = self.location(&format!("/v2/{name}/blobs/{digest}"));
        Answer::new(201).header("location", &location).header("docker-content-digest", digest)
    }

    fn location(&self, path: &str) -> String {
        match self.locations {
            Locations::Absolute => format!("http://{}{path}", self.address),
            Locations::Relative => path.to_owned(),
        }
    }

    fn tags(&self, request: &Recorded, name: &str) -> Answer {
        let Some(holdings) = self.repositories.get(name) else {
            return Answer::error(404, "NAME_UNKNOWN", "repository name not known to registry");
        };
        let query: BTreeMap<String, String> =
            url::form_urlencoded::parse(request.query.as_bytes()).into_owned().collect();
        let last = query.get("last").map(String::as_str).unwrap_or_default();
        let count = query.get("n").and_then(|n| n.parse().ok()).unwrap_or(usize::MAX);
        let rest: Vec<&String> = holdings.tags.keys().filter(|tag| tag.as_str() > last).collect();
        let page = &rest[..count.min(rest.len())];
        let answer = json(&serde_json::json!({"name": name, "tags": page}));
        match page.last() {
            Some(tag) if page.len() < rest.len() => {
                answer.header("link", &format!("</v2/{name}/tags/list?last={tag}&n={count}>; rel=\"next\""))
            }
            _ => answer,
        }
    }

    fn referrers(&self, request: &Recorded, name: &str, digest: &str) -> Answer {
        let holdings = self.repositories.get(name);
        let documents = holdings.into_iter().flat_map(|holdings| holdings.manifests.values());
        let referring: Vec<serde_json::Value> = documents
            .filter_map(|document| {
                let manifest: serde_json::Value = serde_json::from_slice(&document.bytes).ok()?;
                (manifest["subject"]["digest"] == digest).then(|| {
                    serde_json::json!({
                        "mediaType": document.content_type, "digest": document.digest, "size": document.bytes.len(),
                        "artifactType": manifest["artifactType"],
                    })
                })
            })
            .collect();
        let index = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": referring,
        });
        let mut answer = json(&index);
        answer.headers.insert("content-type", "application/vnd.oci.image.index.v1+json".parse().unwrap());
        if request.query.contains("artifactType=") {
            answer = answer.header("oci-filters-applied", "artifactType");
        }
        answer
    }
}

/// Whether a token of these scopes is good for the request, as distribution decides.
fn suffices(scopes: &BTreeSet<String>, request: &Recorded) -> bool {
    let needed: &[&str] = match request.method.as_str() {
        "GET" | "HEAD" => &["pull"],
        "DELETE" => &["delete"],
        _ => &["pull", "push"],
    };
    let rest = request.path.strip_prefix("/v2/").unwrap_or_default();
    rest.is_empty()
        || scopes.iter().any(|scope| {
            let [_, name, actions] = scope.splitn(3, ':').collect::<Vec<_>>()[..] else { return false };
            let actions: Vec<&str> = actions.split(',').collect();
            rest.starts_with(&format!("{name}/")) && needed.iter().all(|action| actions.contains(action))
        })
}

fn json(value: &serde_json::Value) -> Answer {
    Answer::new(200).header("content-type", "application/json").body(value.to_string())
}

fn is_listed(request: &Recorded, content_type: &str) -> bool {
    let lines = request.headers.iter().filter(|(name, _)| name == "accept").map(|(_, value)| value.as_str());
    lines.flat_map(|line| line.split(',')).any(|item| item.split(';').next().unwrap_or_default().trim() == content_type)
}

/// One range of `bytes` where the request asks for one that can be read, else all of it.
pub fn ranged(request: &Recorded, mut answer: Answer, bytes: &Bytes) -> Answer {
    let length = bytes.len();
    let range = request.header("range").and_then(|range| range.strip_prefix("bytes=")).and_then(|range| {
        let (first, last) = range.split_once('-')?;
        match (first.parse::<usize>(), last.parse::<usize>()) {
            (Ok(first), Ok(last)) => Some((first, last.min(length.saturating_sub(1)))),
            (Ok(first), Err(_)) if last.is_empty() => Some((first, length.saturating_sub(1))),
            (Err(_), Ok(count)) if first.is_empty() => Some((length.saturating_sub(count), length.saturating_sub(1))),
            _ => None,
        }
    });
    match range {
        None => answer.body(bytes.clone()),
        Some((first, last)) if first >= length || last < first => {
            let answer = Answer::error(416, "RANGE_INVALID", "invalid content range");
            answer.header("content-range", &format!("bytes */{length}"))
        }
        Some((first, last)) => {
            answer.status = http::StatusCode::PARTIAL_CONTENT;
            answer.header("content-range", &format!("bytes {first}-{last}/{length}")).body(bytes.slice(first..=last))
        }
    }
}
