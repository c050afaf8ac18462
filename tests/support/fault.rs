//! Scripted faults: what a server does otherwise than an honest one, for which requests, how often.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::sync::watch;

use super::server::Recorded;

/// An answer before it is sent. What a fault changes.
#[derive(Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub delivery: Delivery,
}

/// How the body reaches the wire.
#[derive(Clone)]
pub enum Delivery {
    Whole,
    /// The connection ends after so many bytes, whatever `Content-Length` said.
    Cut {
        after: usize,
    },
    /// Pauses at the gate after so many bytes.
    Held {
        after: usize,
        gate: Gate,
    },
}

impl Answer {
    pub fn new(status: u16) -> Self {
        let status = StatusCode::from_u16(status).unwrap();
        Self { status, headers: HeaderMap::new(), body: Bytes::new(), delivery: Delivery::Whole }.body("")
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        self.headers.append(name, HeaderValue::from_str(value).unwrap());
        self
    }

    /// Sets the body and the `Content-Length` that goes with it.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.headers.insert(CONTENT_LENGTH, self.body.len().into());
        self
    }

    /// An error answer in the form of the distribution-spec.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let body = serde_json::json!({"errors": [{"code": code, "message": message, "detail": {}}]});
        Self::new(status).header(CONTENT_TYPE.as_str(), "application/json").body(body.to_string())
    }
}

/// A place where the server waits until the test says go. Clones are the same gate.
#[derive(Clone)]
pub struct Gate {
    waiting: Arc<watch::Sender<usize>>,
    open: Arc<watch::Sender<bool>>,
    gone: Arc<watch::Sender<usize>>,
}

impl Gate {
    pub fn new() -> Self {
        Self {
            waiting: Arc::new(watch::Sender::new(0)),
            open: Arc::new(watch::Sender::new(false)),
            gone: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Lets everyone through, now and later.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// Waits until `count` requests in all have come to the gate.
    pub async fn reached(&self, count: usize) {
        let mut waiting = self.waiting.subscribe();
        super::patiently("requests to reach a gate", waiting.wait_for(|reached| *reached >= count)).await.unwrap();
    }

    /// Waits until `count` callers in all have gone away while they were held here.
    pub async fn abandoned(&self, count: usize) {
        let mut gone = self.gone.subscribe();
        super::patiently("a held caller to go away", gone.wait_for(|left| *left >= count)).await.unwrap();
    }

    /// The server's side: passes when the gate opens; being dropped before that counts as a caller that went away.
    pub async fn pass(&self) {
        struct Departure<'a>(&'a Gate, bool);
        impl Drop for Departure<'_> {
            fn drop(&mut self) {
                if !self.1 {
                    self.0.gone.send_modify(|gone| *gone += 1);
                }
            }
        }
        let mut departure = Departure(self, false);
        self.waiting.send_modify(|waiting| *waiting += 1);
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
        departure.1 = true;
    }
}

type Alteration = Arc<dyn Fn(&Recorded, &mut Answer) + Send + Sync>;

/// What is done to a request that a rule matches.
#[derive(Clone)]
pub enum Act {
    Alter(Alteration),
    Hold(Gate),
    Reset,
}

/// One scripted fault.
pub struct Rule {
    method: Option<String>,
    pattern: String,
    left: Option<usize>,
    act: Act,
}

impl Rule {
    /// The act for this request, if the rule is about it and not used up.
    pub fn claim(&mut self, request: &Recorded) -> Option<Act> {
        let wanted = self.method.as_ref().is_none_or(|method| *method == request.method);
        if !wanted || self.left == Some(0) || !glob(&self.pattern, &request.path) {
            return None;
        }
        self.left = self.left.map(|left| left - 1);
        Some(self.act.clone())
    }
}

/// `*` stands for any characters, slashes too.
pub fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|tail| {
            (0..=tail.len()).any(|start| tail.is_char_boundary(start) && glob(rest, &tail[start..]))
        }),
    }
}

/// A fault being written down: `upstream.when("GET", "/v2/app/blobs/*").times(1).reset()`.
#[must_use = "a fault does nothing until it is told what to do"]
pub struct When<'a> {
    rules: &'a Mutex<Vec<Rule>>,
    method: Option<String>,
    pattern: String,
    times: Option<usize>,
}

impl<'a> When<'a> {
    /// `method` may be `*`; `pattern` is matched against the path without the query.
    pub fn new(rules: &'a Mutex<Vec<Rule>>, method: &str, pattern: &str) -> Self {
        let method = (method != "*").then(|| method.to_owned());
        Self { rules, method, pattern: pattern.to_owned(), times: None }
    }

    /// Only the next `times` requests.
    pub fn times(mut self, times: usize) -> Self {
        self.times = Some(times);
        self
    }

    fn act(self, act: Act) {
        let rule = Rule { method: self.method, pattern: self.pattern, left: self.times, act };
        self.rules.lock().unwrap().push(rule);
    }

    /// Changes the honest answer.
    pub fn alter(self, change: impl Fn(&Recorded, &mut Answer) + Send + Sync + 'static) {
        self.act(Act::Alter(Arc::new(change)));
    }

    /// Gives this answer instead of the honest one.
    pub fn answer(self, instead: Answer) {
        self.alter(move |_, answer| *answer = instead.clone());
    }

    /// The honest answer without this header.
    pub fn without(self, header: &'static str) {
        self.alter(move |_, answer| {
            answer.headers.remove(header);
        });
    }

    /// The honest answer with this header replaced.
    pub fn with(self, header: &'static str, value: &str) {
        let value = HeaderValue::from_str(value).unwrap();
        self.alter(move |_, answer| {
            answer.headers.insert(header, value.clone());
        });
    }

    /// The honest answer's head with another body of its own true length.
    pub fn with_body(self, body: impl Into<Bytes>) {
        let body = body.into();
        self.alter(move |_, answer| {
            answer.headers.insert(CONTENT_LENGTH, body.len().into());
            answer.body = body.clone();
        });
    }

    /// The connection ends after `after` bytes of the body.
    pub fn cut(self, after: usize) {
        self.alter(move |_, answer| answer.delivery = Delivery::Cut { after });
    }

    /// The body pauses at the gate after `after` bytes.
    pub fn hold_body(self, after: usize) -> Gate {
        let gate = Gate::new();
        let held = gate.clone();
        self.alter(move |_, answer| answer.delivery = Delivery::Held { after, gate: held.clone() });
        gate
    }

    /// Nothing is answered until the gate opens.
    pub fn hold(self) -> Gate {
        let gate = Gate::new();
        self.act(Act::Hold(gate.clone()));
        gate
    }

    /// The connection is reset before anything is answered.
    pub fn reset(self) {
        self.act(Act::Reset);
    }

    /// Redirects with this status to this `Location`, as written.
    pub fn redirect(self, status: u16, location: &str) {
        self.answer(Answer::new(status).header(LOCATION.as_str(), location));
    }
}
