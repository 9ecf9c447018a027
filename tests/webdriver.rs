//! A client of the [WebDriver protocol](https://www.w3.org/TR/webdriver2/), which controls a browser by
//! JSON over HTTP.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use ureq::Agent;

/// The key under which the protocol sends the identifier of an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

// Code points of keys, from the protocol's section "Keyboard actions".
pub(crate) const LEFT: &str = "\u{e012}";
pub(crate) const UP: &str = "\u{e013}";
pub(crate) const DOWN: &str = "\u{e015}";
pub(crate) const DELETE: &str = "\u{e017}";

/// The programs that the browser tests need, and how Debian and Ubuntu install them.
const INSTALL: &str = "apt-get install chromium chromium-driver";

/// A headless Chromium with one window, closed when dropped.
pub(crate) struct Browser {
    _chromedriver: ProcessGroup,
    agent: Agent,
    /// The address of the session: `http://127.0.0.1:PORT/session/ID`.
    session: String,
}

impl Browser {
    /// Opens a window of this size in pixels. Returns `None` where no browser is installed.
    pub(crate) fn open(width: u32, height: u32) -> Option<Self> {
        let Some((chromedriver, port)) = start_chromedriver() else {
            crate::support::skip_test("chromedriver is not installed", INSTALL);
            return None;
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(60)));
        let mut browser = Self {
            _chromedriver: chromedriver,
            agent: config.build().new_agent(),
            session: format!("http://127.0.0.1:{port}/session"),
        };
        let options = json!({
            "args": [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--no-first-run", "--disable-background-networking", "--disable-component-update",
                format!("--window-size={width},{height}"),
            ],
        });
        let capabilities = json!({
            "alwaysMatch": {
                "goog:chromeOptions": options,
                "goog:loggingPrefs": { "browser": "ALL" },
            },
        });
        match browser.try_post("", json!({ "capabilities": capabilities })) {
            Ok(session) => {
                let id = session["sessionId"].as_str().unwrap();
                browser.session = format!("{}/{id}", browser.session);
                Some(browser)
            }
            Err(error) if error.contains("cannot find Chrome binary") => {
                crate::support::skip_test("Chromium is not installed", INSTALL);
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Loads a page.
    pub(crate) fn navigate(&self, url: &str) {
        self.post("/url", json!({ "url": url }));
    }

    /// Finds the first element that matches a CSS selector.
    #[track_caller]
    pub(crate) fn find(&self, selector: &str) -> Element<'_> {
        let found = self.post(
            "/element",
            json!({ "using": "css selector", "value": selector }),
        );
        Element {
            browser: self,
            id: found[ELEMENT].as_str().unwrap().into(),
        }
    }

    /// Runs a script as the body of a function of `arguments`, and returns its result.
    #[track_caller]
    pub(crate) fn execute(&self, script: &str, arguments: &[Value]) -> Value {
        self.post(
            "/execute/sync",
            json!({ "script": script, "args": arguments }),
        )
    }

    /// Draws strokes on an element with the mouse. Points are in units of the element's width and height,
    /// from its upper left corner.
    pub(crate) fn draw(&self, element: &Element, strokes: &[&[(f64, f64)]]) {
        let rectangle = element.get("rect");
        let [width, height] = ["width", "height"].map(|side| rectangle[side].as_f64().unwrap());
        let mut actions = Vec::new();
        for stroke in strokes {
            for (index, (x, y)) in stroke.iter().enumerate() {
                // The protocol measures from the center of the element.
                actions.push(json!({
                    "type": "pointerMove",
                    "duration": 20,
                    "origin": { ELEMENT: element.id },
                    "x": (x - 0.5) * width,
                    "y": (y - 0.5) * height,
                }));
                if index == 0 {
                    actions.push(json!({ "type": "pointerDown", "button": 0 }));
                }
            }
            actions.push(json!({ "type": "pointerUp", "button": 0 }));
        }
        let mouse = json!({
            "type": "pointer",
            "id": "mouse",
            "parameters": { "pointerType": "mouse" },
            "actions": actions,
        });
        self.post("/actions", json!({ "actions": [mouse] }));
    }

    /// Moves the mouse onto an element, to a point in units of its width and height from its upper left corner.
    pub(crate) fn point_at(&self, element: &Element, (x, y): (f64, f64)) {
        let rectangle = element.get("rect");
        let [width, height] = ["width", "height"].map(|side| rectangle[side].as_f64().unwrap());
        let action = json!({
            "type": "pointerMove",
            "duration": 20,
            "origin": { ELEMENT: element.id },
            "x": (x - 0.5) * width,
            "y": (y - 0.5) * height,
        });
        let mouse = json!({
            "type": "pointer",
            "id": "mouse",
            "parameters": { "pointerType": "mouse" },
            "actions": [action],
        });
        self.post("/actions", json!({ "actions": [mouse] }));
    }

    /// Returns the messages of the console since the last call, with those about requests that failed.
    pub(crate) fn console(&self) -> Vec<Value> {
        let messages = self.post("/se/log", json!({ "type": "browser" }));
        messages.as_array().unwrap().clone()
    }

    /// Resizes the window, in pixels.
    pub(crate) fn resize(&self, width: u32, height: u32) {
        self.post("/window/rect", json!({ "width": width, "height": height }));
    }

    /// Returns the visible part of the page as a PNG file.
    pub(crate) fn screenshot(&self) -> Vec<u8> {
        let png = self.get("/screenshot");
        BASE64_STANDARD.decode(png.as_str().unwrap()).unwrap()
    }

    fn get(&self, path: &str) -> Value {
        let response = self.agent.get(format!("{}{path}", self.session)).call();
        value(response).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    #[track_caller]
    fn post(&self, path: &str, body: Value) -> Value {
        self.try_post(path, body)
            .unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    fn try_post(&self, path: &str, body: Value) -> Result<Value, String> {
        let request = self.agent.post(format!("{}{path}", self.session));
        value(request.send(body.to_string()))
    }
}

/// Reads the value of a response, or the message of an error.
fn value(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value, String> {
    let mut response = response.map_err(|error| error.to_string())?;
    // A screenshot has a few megabytes.
    let body = response.body_mut().with_config().limit(64 << 20);
    let text = body.read_to_string().map_err(|error| error.to_string())?;
    let mut body: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    if response.status().is_success() {
        Ok(body["value"].take())
    } else {
        Err(body["value"]["message"].as_str().unwrap_or(&text).into())
    }
}

/// An element of the page.
pub(crate) struct Element<'a> {
    browser: &'a Browser,
    id: String,
}

impl Element<'_> {
    #[track_caller]
    pub(crate) fn click(&self) {
        self.post("click", json!({}));
    }

    /// Returns the text that is visible.
    pub(crate) fn text(&self) -> String {
        self.get("text").as_str().unwrap().into()
    }

    /// Types text, or chooses a file in an `<input type="file">`.
    #[track_caller]
    pub(crate) fn type_text(&self, text: &str) {
        self.post("value", json!({ "text": text }));
    }

    fn get(&self, property: &str) -> Value {
        self.browser
            .get(&format!("/element/{}/{property}", self.id))
    }

    #[track_caller]
    fn post(&self, command: &str, body: Value) {
        let path = format!("/element/{}/{command}", self.id);
        self.browser.post(&path, body);
    }
}

/// A process and its descendants, killed when dropped: here chromedriver and Chromium.
struct ProcessGroup(Child);

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if let Some(group) = Pid::from_raw(self.0.id() as i32) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.0.wait();
    }
}

/// Starts chromedriver on a free port and returns the port, or `None` where it is not installed.
fn start_chromedriver() -> Option<(ProcessGroup, u16)> {
    let mut command = Command::new("chromedriver");
    command.arg("--port=0").stdout(Stdio::piped());
    let child = match command.process_group(0).spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("chromedriver: {error}"),
    };
    let mut group = ProcessGroup(child);
    let stdout = BufReader::new(group.0.stdout.take().unwrap());
    let mut lines = stdout.lines().map_while(Result::ok);
    let port = lines
        .find_map(|line| {
            let (_, port) = line.split_once("started successfully on port ")?;
            port.trim_end_matches('.').parse().ok()
        })
        .expect("chromedriver prints its port");
    // chromedriver stops when its output is not read.
    thread::spawn(move || lines.for_each(drop));
    Some((group, port))
}
