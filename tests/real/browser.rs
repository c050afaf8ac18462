//! Headless Chromium, spoken to over pipes in its own protocol: what a person sees, asked by a program.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

/// No answer of a browser on this machine takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
];

/// How a reader looks at a page.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// `light` or `dark`.
    pub scheme: &'static str,
    /// How many pixels wide the window is.
    pub width: u32,
    /// And how many high.
    pub height: u32,
}

/// A running browser with one tab. Ended when dropped.
pub struct Browser {
    child: Child,
    input: ChildStdin,
    messages: Receiver<Value>,
    events: Vec<Value>,
    last_id: u64,
    session: Option<String>,
    log: PathBuf,
    _profile: TempDir,
}

impl Browser {
    /// Starts it and opens a tab that looks so.
    pub fn start(look: Look) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let log = profile.path().join("chromium.log");
        // It reads from the third and writes to the fourth.
        let mut command = Command::new("sh");
        command.args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 1>&2"#, "chromium"]).args(FLAGS);
        command.arg(format!("--user-data-dir={}", profile.path().join("profile").display()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&log).unwrap());
        let mut child = command.spawn().unwrap_or_else(|fault| panic!("cannot start chromium: {fault}"));
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, messages) = channel();
        thread::spawn(move || {
            for message in BufReader::new(output).split(0) {
                let Ok(message) = message else { return };
                if sender.send(serde_json::from_slice(&message).unwrap()).is_err() {
                    return;
                }
            }
        });
        let (events, last_id, session) = (Vec::new(), 0, None);
        let mut browser = Self { child, input, messages, events, last_id, session, log, _profile: profile };
        browser.open_tab(look);
        browser
    }

    fn open_tab(&mut self, look: Look) {
        let target = self.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let attached = self.call("Target.attachToTarget", &json!({ "targetId": target["targetId"], "flatten": true }));
        self.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Runtime.enable", "Log.enable", "Page.enable"] {
            self.call(domain, &json!({}));
        }
        let scheme = json!([{ "name": "prefers-color-scheme", "value": look.scheme }]);
        self.call("Emulation.setEmulatedMedia", &json!({ "features": scheme }));
        let size =
            json!({ "width": look.width, "height": look.height, "deviceScaleFactor": 1, "mobile": look.width < 600 });
        self.call("Emulation.setScrollbarsHidden", &json!({ "hidden": true }));
        self.call("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Goes to a page and waits until it is loaded.
    pub fn visit(&mut self, url: &str) {
        let gone = self.call("Page.navigate", &json!({ "url": url }));
        assert!(gone["errorText"].is_null(), "{url}: {gone}");
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let event = self.receive();
            self.events.push(event);
        }
    }

    /// What this expression is on the page, once it is settled.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let question = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let answer = self.call("Runtime.evaluate", &question);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer:#}");
        answer["result"]["value"].clone()
    }

    /// What the page complained of so far: its console, exceptions, and what its policy forbade.
    pub fn complaints(&self) -> Vec<&Value> {
        let of = ["Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"];
        self.events.iter().filter(|event| of.iter().any(|method| event["method"] == *method)).collect()
    }

    /// A picture of what is in the window.
    pub fn picture(&mut self, file: &Path) {
        let taken = self.call("Page.captureScreenshot", &json!({ "format": "png", "captureBeyondViewport": false }));
        let bytes = data_encoding::BASE64.decode(taken["data"].as_str().unwrap().as_bytes()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }

    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.last_id += 1;
        let mut message = json!({ "id": self.last_id, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        write!(self.input, "{message}\0").unwrap();
        self.input.flush().unwrap();
        loop {
            let mut answer = self.receive();
            if answer["id"] == self.last_id {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].take();
            }
            self.events.push(answer);
        }
    }

    fn receive(&self) -> Value {
        self.messages.recv_timeout(PATIENCE).unwrap_or_else(|fault| {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            panic!("chromium says nothing ({fault}):\n{log}")
        })
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends its own children when it is asked.
        let _ = write!(self.input, "{}\0", json!({ "id": self.last_id + 1, "method": "Browser.close" }));
        let _ = self.input.flush();
        while self.messages.recv_timeout(PATIENCE).is_ok() {}
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
