//! A token server as docker-registry wants one: it signs with a key whose certificate the registry was given.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use data_encoding::{BASE64, BASE64URL_NOPAD};
use p256::{
    SecretKey,
    ecdsa::{Signature, SigningKey, signature::Signer},
    pkcs8::DecodePrivateKey,
};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;
use url::{Url, form_urlencoded};

use crate::{
    programs,
    registries::{PASSWORD, USER, basic},
};

const SERVICE: &str = "test registry";
const ISSUER: &str = "test tokens";

/// Listens on a free port for as long as the test process lives, and gives tokens to [`USER`] with [`PASSWORD`], for pulls.
pub struct TokenServer {
    pub address: SocketAddr,
    certificate: PathBuf,
    mint: Arc<Mint>,
    asked: Arc<Mutex<Vec<Asked>>>,
    _directory: TempDir,
}

/// Who asked for a token, and for what.
#[derive(Clone, Debug)]
pub struct Asked {
    pub user_agent: String,
    /// Whether whoever asked was given a token.
    pub is_known: bool,
    pub scopes: Vec<String>,
}

impl TokenServer {
    pub fn start() -> Self {
        let directory = programs::directory();
        let key = KeyPair::generate().unwrap();
        let signed = CertificateParams::new(vec!["tokens".to_owned()]).unwrap().self_signed(&key).unwrap();
        let certificate = directory.path().join("tokens.pem");
        std::fs::write(&certificate, signed.pem()).unwrap();
        let mint = Arc::new(Mint {
            key: SigningKey::from(SecretKey::from_pkcs8_der(&key.serialize_der()).unwrap()),
            certificate: BASE64.encode(signed.der()),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let server = (Arc::clone(&mint), Arc::clone(&asked));
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (mint, asked) = server.clone();
                // A connection that breaks is for whoever asked to report.
                thread::spawn(move || mint.answer(connection, &asked));
            }
        });
        Self { address, certificate, mint, asked, _directory: directory }
    }

    /// What a registry's file says of this server.
    pub fn settings(&self) -> String {
        format!(
            "auth: {{token: {{realm: 'http://{}/token', service: '{SERVICE}', issuer: '{ISSUER}', rootcertbundle: '{}'}}}}\n",
            self.address,
            self.certificate.display()
        )
    }

    /// A token for these scopes.
    pub fn token(&self, scopes: &[String]) -> String {
        self.mint.token(scopes)
    }

    /// Everybody who came so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// A request for a token.
struct Request {
    authorization: String,
    user_agent: String,
    parameters: Vec<(String, String)>,
}

impl Request {
    fn read(connection: &TcpStream) -> std::io::Result<Self> {
        let mut reader = BufReader::new(connection);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let header = |name: &str| {
            let named = lines.iter().filter_map(|line| line.split_once(": "));
            let found = named.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        let target = lines.first().and_then(|line| line.split(' ').nth(1));
        let target = target.ok_or_else(|| std::io::Error::other("nothing is asked"))?;
        let url = Url::parse("http://tokens").unwrap().join(target).unwrap();
        let mut body = vec![0; header("content-length").parse().unwrap_or(0)];
        reader.read_exact(&mut body)?;
        let parameters = url.query_pairs().chain(form_urlencoded::parse(&body));
        let parameters = parameters.map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        Ok(Self { authorization: header("authorization"), user_agent: header("user-agent"), parameters })
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.parameters.iter().filter(move |(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// GET with a password in the header, or POST with one in the form.
    fn is_known(&self) -> bool {
        let is_named = self.values("username").eq([USER]) && self.values("password").eq([PASSWORD]);
        self.authorization == basic(USER, PASSWORD) || is_named
    }

    fn scopes(&self) -> Vec<String> {
        self.values("scope").flat_map(|scopes| scopes.split(' ')).map(str::to_owned).collect()
    }
}

/// What signs the tokens.
struct Mint {
    key: SigningKey,
    certificate: String,
}

impl Mint {
    fn answer(&self, mut connection: TcpStream, asked: &Mutex<Vec<Asked>>) -> std::io::Result<()> {
        let request = Request::read(&connection)?;
        let (is_known, scopes) = (request.is_known(), request.scopes());
        let (status, body) = if is_known {
            let token = self.token(&scopes);
            ("200 OK", json!({"token": token, "access_token": token, "expires_in": 300}))
        } else {
            ("401 Unauthorized", json!({"errors": [{"code": "UNAUTHORIZED", "message": "who are you?"}]}))
        };
        asked.lock().unwrap().push(Asked { user_agent: request.user_agent, is_known, scopes });
        let body = body.to_string();
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}", body.len());
        write!(connection, "{head}\r\nConnection: close\r\n\r\n{body}")
    }

    /// A token of the registry's own form ("Token Authentication Implementation" of its documentation).
    fn token(&self, scopes: &[String]) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [self.certificate]});
        let claims = json!({
            "iss": ISSUER,
            "sub": USER,
            "aud": SERVICE,
            "nbf": now - 10,
            "iat": now,
            "exp": now + 300,
            "jti": "one of many",
            "access": scopes.iter().filter_map(|scope| pull_access(scope)).collect::<Vec<_>>(),
        });
        let encoded = |value: Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let signed = format!("{}.{}", encoded(header), encoded(claims));
        let signature: Signature = self.key.sign(signed.as_bytes());
        format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature.to_bytes()))
    }
}

/// What of a scope is granted: to pull, where that was asked for.
fn pull_access(scope: &str) -> Option<Value> {
    let (name, actions) = scope.strip_prefix("repository:")?.rsplit_once(':')?;
    actions
        .split(',')
        .any(|action| action == "pull")
        .then(|| json!({"type": "repository", "name": name, "actions": ["pull"]}))
}
