//! `trainer serve`, called over the network as programs and browsers call it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use serde_json::{Value, json};

use crate::support::{WorkDir, project};

/// A running server. It is killed when dropped.
pub(crate) struct Server {
    child: Child,
    /// Address and port.
    pub(crate) address: String,
}

/// A response, with its status line and headers in lower case.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    head: String,
    body: Vec<u8>,
}

impl Server {
    /// Starts `trainer serve` with these arguments on a free port.
    pub(crate) fn start(work: &WorkDir, arguments: &str) -> Self {
        Self::of(&mut work.command(&format!("serve {arguments} --listen 127.0.0.1:0 -q")))
    }

    fn of(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let address = line.trim_end().trim_end_matches('/').rsplit_once("//");
        let address = address.unwrap_or_else(|| panic!("{line:?}")).1.to_string();
        Self { child, address }
    }

    /// Sends bytes, and reads the response until the server closes the connection.
    fn send(&self, bytes: &[u8]) -> Response {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        // Fails if the server rejects the request before it has read all of it.
        let _ = stream.write_all(bytes);
        let mut response = Vec::new();
        let _ = stream.read_to_end(&mut response);
        Response::parse(&response)
    }

    fn request(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Response {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
            self.address,
            body.len()
        );
        self.send(&[head.as_bytes(), body].concat())
    }

    /// Sends bytes and closes the sending half of the connection, and reads the response.
    fn send_and_close(&self, bytes: &[u8]) -> Response {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut response = Vec::new();
        let _ = stream.read_to_end(&mut response);
        Response::parse(&response)
    }

    /// Returns the number of open connections, including that of this request.
    #[cfg(unix)]
    fn connections(&self) -> usize {
        let metrics = String::from_utf8(self.get("/metrics").body).unwrap();
        let count = metrics
            .lines()
            .find_map(|line| line.strip_prefix("trainer_connections "));
        count.unwrap().parse().unwrap()
    }

    /// Sends a request, and returns the connection without reading the response.
    #[cfg(unix)]
    pub(crate) fn open(&self, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        stream.write_all(head.as_bytes()).unwrap();
        stream
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.request("GET", path, "", b"")
    }

    fn post_json(&self, path: &str, body: &Value) -> Response {
        let body = body.to_string();
        self.request(
            "POST",
            path,
            "Content-Type: application/json\r\n",
            body.as_bytes(),
        )
    }

    fn post_picture(&self, path: &str, body: &[u8]) -> Response {
        self.request("POST", path, "Content-Type: image/png\r\n", body)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Response {
    #[track_caller]
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|part| part == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(bytes)));
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        Self {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head,
            body: bytes[end + 4..].to_vec(),
        }
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Asserts an error in the format of RFC 9457, and returns its message.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert!(
            self.head.contains("content-type: application/problem+json"),
            "{}",
            self.head
        );
        let problem: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["status"], status);
        problem["detail"].as_str().unwrap().into()
    }
}

fn digit() -> Vec<u8> {
    fs::read(project("tests/handwriting/7-marker.png")).unwrap()
}

#[test]
fn api_returns_the_predictions_of_the_predict_command() {
    let work = WorkDir::new();
    let server = Server::start(&work, "pretrained");
    let folder = project("tests/handwriting");
    let printed = work
        .trainer(&format!(
            "predict pretrained {} --json -q",
            folder.display()
        ))
        .success();
    for line in printed.stdout.lines().step_by(7) {
        let expected: Value = serde_json::from_str(line).unwrap();
        let path = expected["path"].as_str().unwrap();
        let name = path.rsplit('/').next().unwrap();
        let response = server.post_picture(
            &format!("/api/predict?name={name}"),
            &fs::read(path).unwrap(),
        );
        let mut prediction = response.json();
        assert_eq!(prediction["path"], name);
        prediction["path"] = expected["path"].clone();
        assert_eq!(prediction, expected);
    }
}

#[test]
fn classifies_pixels_of_one_image_or_a_batch() {
    let work = WorkDir::new();
    let server = Server::start(&work, "pretrained");
    let inspection = server.post_picture("/api/inspect", &digit()).json();
    assert_eq!(inspection["prediction"]["class"], "7");
    assert_eq!(
        inspection["prediction"]["top"].as_array().unwrap().len(),
        10
    );
    assert_eq!(inspection["blocks"][1]["channels"], 64);
    let samples = server.get("/api/samples?count=3&seed=5").json();
    assert_eq!(samples.as_array().unwrap().len(), 3);
    let mistakes = server.get("/api/mistakes?count=2").json();
    assert_ne!(mistakes[0]["class"], mistakes[0]["predicted"]);

    let image: Vec<u8> = (0..784).map(|i| (i % 256) as u8).collect();
    let one = server.post_json("/api/predict", &json!(image)).json();
    let three = server
        .post_json("/api/predict", &json!([image, vec![0; 784], image]))
        .json();
    assert_eq!(three.as_array().unwrap().len(), 3);
    assert_eq!(three[0], one);
    assert_eq!(three[2], one);
    assert_ne!(three[1], one);
}

#[test]
fn invalid_requests_get_an_error_message() {
    let work = WorkDir::new();
    let server = Server::start(&work, "pretrained");
    let json = |body: &Value| server.post_json("/api/predict", body).problem(400);
    assert_eq!(
        json(&json!([1, 2, 3])),
        "3 pixels, expected 784: 1 x 28 x 28"
    );
    let element = "an integer from 0 to 255, or a list of integers";
    let list = "a list of integers from 0 to 255, or a list of such lists";
    for (body, found, expected) in [
        (json!([256]), "integer `256`", element),
        (json!(["a"]), "string \"a\"", element),
        (json!({"pixels": []}), "map", list),
        (json!([0.5]), "floating point `0.5`", element),
        (json!([-1]), "integer `-1`", element),
        (json!(null), "null", list),
        (json!([1, [2]]), "sequence", "u8"),
        (json!([[1, 300]]), "integer `300`", "u8"),
    ] {
        let message = json(&body);
        let ending = format!("{found}, expected {expected} at line 1 column ");
        assert!(message.contains(&ending), "{message}");
    }
    assert!(json(&json!([])).starts_with("no pixels"));
    assert_eq!(json(&json!([[]])), "0 pixels, expected 784: 1 x 28 x 28");
    assert!(json(&json!(vec![[0]; 1001])).starts_with("more than 1000 images"));
    let broken = server.request(
        "POST",
        "/api/predict",
        "Content-Type: application/json\r\n",
        b"[1,",
    );
    assert_eq!(
        broken.problem(400),
        "EOF while parsing a value at line 1 column 3"
    );
    assert!(
        server
            .post_picture("/api/predict", b"no picture")
            .problem(422)
            .contains("not a picture")
    );
    let half = &digit()[..200];
    server.post_picture("/api/predict", half).problem(422);
    // The default media type of curl.
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let text = server.request("POST", "/api/predict", form, b"7");
    assert!(text.problem(422).contains("not a picture"));
    let picture = server.request("POST", "/api/predict", form, &digit());
    assert_eq!(picture.json()["class"], "7");
    let few = server.request("POST", "/api/predict", form, b" [1,2,3]");
    assert!(few.problem(400).starts_with("3 pixels, "));
    let path = format!("/api/predict?name={}", "n".repeat(256));
    assert_eq!(
        server.post_picture(&path, &digit()).problem(400),
        "name: 256 bytes, expected at most 255"
    );
    assert!(
        server
            .post_picture("/api/inspect?top=3", &digit())
            .problem(400)
            .contains("top")
    );
    assert!(
        server
            .post_picture("/api/predict?tops=3", &digit())
            .problem(400)
            .contains("tops")
    );
    for probability in ["2", "-1", "NaN"] {
        let path = format!("/api/predict?min_probability={probability}");
        assert_eq!(
            server.post_picture(&path, &digit()).problem(400),
            format!("min_probability: {probability}, expected a number from 0 to 1")
        );
    }
    assert!(
        server
            .post_picture("/api/predict?split=sometimes", &digit())
            .problem(400)
            .contains("split")
    );
    assert_eq!(
        server.get("/api/predict").problem(405),
        "this page does not support the method"
    );
    assert_eq!(server.get("/nothing").problem(404), "no such page");
    assert_eq!(
        server
            .post_picture("/api/predict", &vec![0; 17 << 20])
            .problem(413),
        "a body of 17825792 bytes, expected at most 16777216"
    );
    // The body is shorter than its Content-Length.
    let host = &server.address;
    let truncated =
        format!("POST /api/predict HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000\r\n\r\nabc");
    let start = Instant::now();
    assert!(
        server
            .send(truncated.as_bytes())
            .problem(408)
            .starts_with("incomplete request body: ")
    );
    assert!(start.elapsed() < Duration::from_secs(15));
    assert_eq!(server.get("/healthz").json(), json!({ "status": "ok" }));
}

#[test]
fn malformed_bodies_get_400() {
    let work = WorkDir::new();
    let server = Server::start(&work, "pretrained");
    let request = |framing: &str, body: &[u8]| {
        let host = &server.address;
        let head = format!("POST /api/predict HTTP/1.1\r\nHost: {host}\r\n{framing}\r\n\r\n");
        [head.as_bytes(), body].concat()
    };
    let chunked = "Transfer-Encoding: chunked";
    for body in [
        "xyz\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "\r\nabc\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "2\r\nabc\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
    ] {
        let response = server.send(&request(chunked, body.as_bytes()));
        let message = response.problem(400);
        let start = "malformed or truncated request body: ";
        assert!(
            message
                .to_lowercase()
                .starts_with(&format!("{start}invalid chunk")),
            "{message}"
        );
    }
    for (framing, body, end) in [
        (
            chunked,
            "3\r\nab",
            "end of file before message length reached",
        ),
        (
            chunked,
            "3\r\nabc\r\n",
            "unexpected EOF during chunk size line",
        ),
        (
            "Content-Length: 9",
            "abc",
            "end of file before message length reached",
        ),
    ] {
        let response = server.send_and_close(&request(framing, body.as_bytes()));
        let expected = format!("malformed or truncated request body: {end}");
        assert_eq!(response.problem(400), expected);
    }
    // The HTTP library refuses these without a message.
    for framing in [
        "Content-Length: 3\r\nContent-Length: 4",
        "Content-Length: 3, 4",
        "Content-Length: -3",
        "Content-Length: 3\r\nTransfer-Encoding: gzip",
        "Transfer-Encoding: gzip",
    ] {
        let response = server.send(&request(framing, b"abc"));
        assert_eq!(response.status, 400, "{framing}: {response:?}");
    }
    let digit = digit();
    let size = format!("{:x}\r\n", digit.len());
    let body = [size.as_bytes(), &digit, b"\r\n0\r\n\r\n"].concat();
    let response = server.send(&request(&format!("Connection: close\r\n{chunked}"), &body));
    assert_eq!(response.json()["class"], "7");
}

#[test]
fn host_names_and_schemes_are_case_insensitive() {
    let work = WorkDir::new();
    let server = Server::start(&work, "pretrained --token Open-Sesame --host my.host");
    let get = |headers: &str| {
        let head = "GET /api/model HTTP/1.1\r\nConnection: close\r\n";
        server.send(format!("{head}{headers}\r\n\r\n").as_bytes())
    };
    let token = "Authorization: Bearer Open-Sesame";
    for headers in [
        "Host: LOCALHOST\r\nAuthorization: Bearer Open-Sesame",
        "Host: LocalHost:8080\r\nAuthorization: bearer Open-Sesame",
        "Host: MY.host\r\nAuthorization: BEARER  Open-Sesame",
        "Host: localhost:80\r\nOrigin: HTTP://LocalHost:80\r\nAuthorization: Bearer Open-Sesame",
        "Host: My.Host\r\nOrigin: https://my.host\r\nAuthorization: Bearer Open-Sesame",
        "Host: localhost\r\nCookie: trainer-token=other; trainer-token=Open-Sesame",
        "Host: localhost\r\nCookie: trainer-token=Open-Sesame;trainer-token=other",
        "Host: localhost\r\nCookie: trainer-token=other\r\nCookie: a=b; trainer-token=Open-Sesame",
        "Host: localhost\r\nAuthorization: Basic abc\r\nCookie: trainer-token=Open-Sesame",
    ] {
        assert_eq!(get(headers).status, 200, "{headers}");
    }
    // Tokens are case-sensitive.
    for headers in [
        "Authorization: Bearer open-sesame",
        "Authorization: BearerOpen-Sesame",
        "Authorization: Basic Open-Sesame",
        "Cookie: trainer-token=open-sesame; trainer-token=Open-Sesam; Trainer-Token=Open-Sesame",
    ] {
        get(&format!("Host: localhost\r\n{headers}")).problem(401);
    }
    for origin in [
        "http://localhost:81",
        "ftp://localhost",
        "localhost",
        "null",
    ] {
        get(&format!("Host: localhost\r\nOrigin: {origin}\r\n{token}")).problem(403);
    }
    let twice = "Origin: http://localhost\r\nOrigin: http://evil.example";
    get(&format!("Host: localhost\r\n{twice}\r\n{token}")).problem(403);

    let bad_request = |headers: &str| get(&format!("{headers}{token}")).problem(400);
    for second in ["localhost", "evil.example"] {
        assert_eq!(
            bad_request(&format!("Host: localhost\r\nHost: {second}\r\n")),
            "more than one Host header"
        );
    }
    assert_eq!(bad_request(""), "no Host header");
    assert_eq!(
        bad_request("Host: my host\r\n"),
        "the Host header is not a host name"
    );
}

#[test]
fn runs_are_found_by_name_only() {
    let work = WorkDir::new();
    work.shipped();
    let server = Server::start(&work, "shipped");
    let runs = server.get("/api/runs").json();
    let ids: Vec<&str> = runs
        .as_array()
        .unwrap()
        .iter()
        .map(|run| run["id"].as_str().unwrap())
        .collect();
    let embedded = ["pretrained", "pretrained-best", "pretrained-cifar"];
    assert_eq!(ids[0], "shipped");
    assert_eq!(ids[1..], embedded);
    assert_eq!(
        server.get("/api/runs/shipped").json()["evaluation"]["examples"],
        10_000
    );
    for id in [
        "..",
        "..%2Fruns%2Fshipped",
        "%2e%2e%2f%2e%2e",
        "artifacts%2Fruns%2Fshipped",
        "latest",
        ".",
        "shipped%00",
    ] {
        for path in ["", "/metrics", "/events"] {
            let response = server.get(&format!("/api/runs/{id}{path}"));
            assert_eq!(response.status, 404, "{id}{path}: {response:?}");
        }
    }
    assert_eq!(server.get("/web/..%2Findex.html").status, 404);
    let report = server.get("/runs/shipped/report");
    assert!(
        report
            .head
            .contains("content-security-policy: default-src 'none'; style-src 'unsafe-inline'")
    );
    // The run is removed while it is served.
    fs::remove_dir_all(work.path("artifacts/runs/shipped")).unwrap();
    assert_eq!(
        server.get("/api/runs/shipped").problem(404),
        "shipped: no such run"
    );
    assert_eq!(server.get("/api/runs").json().as_array().unwrap().len(), 3);
    assert_eq!(
        server.post_picture("/api/predict", &digit()).json()["class"],
        "7"
    );
}

#[test]
fn rejects_cross_site_and_unauthorized_requests() {
    let work = WorkDir::new();
    let server = Server::start(&work, "pretrained --token open-sesame --host my.host");
    let get = |host: &str, headers: &str| {
        let request = format!(
            "GET /api/model HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n"
        );
        server.send(request.as_bytes())
    };
    let token = "Authorization: Bearer open-sesame\r\n";
    let address = server.address.as_str();
    assert_eq!(get(address, token).status, 200);
    assert_eq!(get("my.host", token).status, 200);
    assert_eq!(
        get(address, "Cookie: a=b; trainer-token=open-sesame\r\n").status,
        200
    );
    assert_eq!(
        get(address, &format!("{token}Origin: http://{address}\r\n")).status,
        200
    );
    assert!(
        get("evil.example", token)
            .problem(421)
            .starts_with("unknown host evil.example;")
    );
    assert_eq!(
        get(address, &format!("{token}Origin: http://evil.example\r\n")).problem(403),
        "request from a page of another site"
    );
    for (site, mode, status) in [
        ("cross-site", "no-cors", 403),
        ("same-site", "cors", 403),
        ("cross-site", "navigate", 200),
        ("same-origin", "cors", 200),
        ("none", "navigate", 200),
    ] {
        let headers = format!("{token}Sec-Fetch-Site: {site}\r\nSec-Fetch-Mode: {mode}\r\n");
        assert_eq!(get(address, &headers).status, status, "{site} {mode}");
    }
    let unauthorized = server.get("/api/model?token=open-sesame");
    unauthorized.problem(401);
    assert!(unauthorized.head.contains("www-authenticate: bearer"));
    for headers in [
        "",
        "Authorization: Bearer open-sesam\r\n",
        "Authorization: Bearer open-sesame1\r\n",
        "Cookie: trainer-token=x\r\n",
    ] {
        assert_eq!(
            get(address, headers).problem(401),
            "the token is missing or wrong"
        );
    }
    let page = server.get("/?token=open-sesame");
    assert!(
        page.head
            .contains("set-cookie: trainer-token=open-sesame; path=/; httponly; samesite=strict")
    );
    assert!(
        page.head
            .contains("content-security-policy: default-src 'none'; script-src 'self'")
    );
    assert_eq!(server.get("/healthz").status, 200);

    let message = work.trainer("serve pretrained --listen 0.0.0.0:0").error();
    assert_eq!(
        message,
        "--listen 0.0.0.0:0: other machines can connect; add --token, or --insecure to accept all requests"
    );
}

#[test]
fn responses_match_the_openapi_description() {
    let work = WorkDir::new();
    work.shipped();
    let server = Server::start(&work, "shipped");
    let spec = server.get("/openapi.json").json();
    let image = json!(vec![0; 784]);
    let mut checked = 0;
    for (path, methods) in spec["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if path.ends_with("/events") {
                continue;
            }
            let address = path.replace("{id}", "shipped");
            let response = match method.as_str() {
                "post" => server.post_json(&address, &image),
                _ => server.get(&address),
            };
            assert_eq!(response.status, 200, "{path}: {response:?}");
            let content = operation["responses"]["200"]["content"]
                .as_object()
                .unwrap();
            let (kind, schema) = content.iter().next().unwrap();
            assert!(
                response.head.contains(&format!("content-type: {kind}")),
                "{path}: {}",
                response.head
            );
            if kind == "application/json" {
                assert_matches(&spec, &schema["schema"], &response.json(), path);
                checked += 1;
            }
        }
    }
    assert!(checked >= 9, "{checked}");
}

/// Asserts that a value matches a schema.
#[track_caller]
fn assert_matches(spec: &Value, schema: &Value, value: &Value, place: &str) {
    assert!(
        matches_schema(spec, schema, value, true),
        "{place}: {value} does not match {schema}"
    );
}

/// Returns the property names of a schema, including those of the schemas it is composed of.
fn property_names(spec: &Value, schema: &Value) -> Vec<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = spec.pointer(reference.trim_start_matches('#')).unwrap();
        return property_names(spec, target);
    }
    let own = schema["properties"].as_object().into_iter().flatten();
    let parts = schema["allOf"].as_array().into_iter().flatten();
    own.map(|(name, _)| name.clone())
        .chain(parts.flat_map(|part| property_names(spec, part)))
        .collect()
}

/// Whether a value matches a schema. Supports only the keywords that these schemas use. A whole schema permits
/// no other properties than its own, but a part of an `allOf` does.
fn matches_schema(spec: &Value, schema: &Value, value: &Value, is_whole: bool) -> bool {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = spec.pointer(reference.trim_start_matches('#')).unwrap();
        return matches_schema(spec, target, value, is_whole);
    }
    let all = |key: &str| schema[key].as_array().into_iter().flatten();
    let is_kind = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("{other}"),
    };
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        kinds => kinds
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect(),
    };
    let known = schema["properties"].as_object();
    let object = value.as_object();
    let names = property_names(spec, schema);
    let is_open = names.is_empty() || schema["additionalProperties"] == true;
    let is_described = |key: &String| is_open || names.contains(key);
    (kinds.is_empty() || kinds.iter().any(|kind| is_kind(kind)))
        && (schema["oneOf"].is_null()
            || all("oneOf").any(|one| matches_schema(spec, one, value, true)))
        && all("allOf").all(|part| matches_schema(spec, part, value, false))
        && (schema["enum"].is_null() || all("enum").any(|known| known == value))
        && all("required").all(|key| value.get(key.as_str().unwrap()).is_some())
        && object.is_none_or(|object| !is_whole || object.keys().all(is_described))
        && known.into_iter().flatten().all(|(key, schema)| {
            object
                .and_then(|object| object.get(key))
                .is_none_or(|value| matches_schema(spec, schema, value, true))
        })
        && (schema["items"].is_null()
            || value
                .as_array()
                .into_iter()
                .flatten()
                .all(|item| matches_schema(spec, &schema["items"], item, true)))
}

#[test]
fn streams_the_events_of_a_running_training() {
    let work = WorkDir::new();
    let server = Server::start(&work, "pretrained");
    let mut training = work
        .command("--preset tiny --limit-train 12000 --epochs 3 -q")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let path = work.path("artifacts/runs/tiny-1/metrics.jsonl");
    while !path.exists() {
        thread::sleep(Duration::from_millis(20));
    }
    let mut stream = TcpStream::connect(&server.address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let request = format!(
        "GET /api/runs/tiny-1/events HTTP/1.1\r\nHost: {}\r\n\r\n",
        server.address
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut events = Vec::new();
    for line in BufReader::new(stream).lines() {
        let line = line.unwrap();
        if let Some(data) = line.strip_prefix("data: ") {
            let entry: Value = serde_json::from_str(data).unwrap();
            // The process has locked its run before.
            if entry["event"] == "process" {
                assert_eq!(server.get("/api/runs").json()[0]["state"], "running");
            }
            let event = entry["event"].as_str().unwrap().to_string();
            events.push(event.clone());
            if event == "end" {
                break;
            }
        }
    }
    assert_eq!(events[..2], ["creation", "process"]);
    assert_eq!(events.iter().filter(|event| *event == "epoch").count(), 3);
    assert!(training.wait().unwrap().success());
    let run = &server.get("/api/runs").json()[0];
    assert_eq!(
        (run["state"].as_str(), run["epochs"].as_u64()),
        (Some("finished"), Some(3))
    );
    let metrics = server.get("/api/runs/tiny-1/metrics").json();
    assert_eq!(metrics.as_array().unwrap().len(), events.len());
}

/// Waits until `condition` holds. Panics after the given time.
#[cfg(unix)]
#[track_caller]
fn until(seconds: u64, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(seconds), "timeout");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
#[cfg(unix)]
fn idle_connections_block_no_requests_and_are_closed() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let work = WorkDir::new();
    // The server raises its limit of open files, because each connection needs one.
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            "ulimit -Sn 256; exec \"$0\" serve pretrained --listen 127.0.0.1:0 -q",
        ])
        .arg(env!("CARGO_BIN_EXE_trainer"))
        .current_dir(work.path(""));
    let server = Server::of(&mut command);
    let files = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: files.maximum,
        ..files
    };
    setrlimit(Resource::Nofile, raised).unwrap();

    let idle: Vec<TcpStream> = (0..1000)
        .map(|at| {
            let mut stream = TcpStream::connect(&server.address).unwrap();
            if at % 2 == 0 {
                stream.write_all(b"POST /api/predict HTT").unwrap();
            }
            stream
        })
        .collect();
    until(30, || server.connections() > 1000);
    let start = Instant::now();
    let response = server.post_picture("/api/predict", &digit());
    assert_eq!(response.json()["class"], "7");
    assert!(start.elapsed() < Duration::from_secs(5));
    until(60, || server.connections() == 1);
    drop(idle);
}

#[test]
fn concurrent_requests_are_all_answered() {
    let work = WorkDir::new();
    let server = Server::start(&work, "pretrained");
    let digit = digit();
    let head = format!(
        "POST /api/predict HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        server.address,
        digit.len()
    );
    let mut clients: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut stream = TcpStream::connect(&server.address).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    for client in &mut clients {
        client.write_all(&digit).unwrap();
    }
    for mut client in clients {
        let mut response = Vec::new();
        client.read_to_end(&mut response).unwrap();
        assert_eq!(Response::parse(&response).json()["class"], "7");
    }
}

#[test]
#[cfg(unix)]
fn connections_that_do_not_read_responses_are_closed() {
    let work = WorkDir::new();
    let server = Server::start(&work, "pretrained");
    let mut stream = TcpStream::connect(&server.address).unwrap();
    let request = format!(
        "GET /api/samples?count=100 HTTP/1.1\r\nHost: {}\r\n\r\n",
        server.address
    );
    // More responses than fit into the buffers of the connection.
    stream.write_all(request.repeat(200).as_bytes()).unwrap();
    until(30, || server.connections() == 2);
    until(60, || server.connections() == 1);
}

#[test]
#[cfg(unix)]
fn ctrl_c_completes_pending_requests_and_stops_the_server() {
    use rustix::process::Signal;

    use crate::support::send_signal;

    let work = WorkDir::new();
    work.shipped();
    let mut server = Server::start(&work, "shipped");
    // A stream of events, which has no end of its own.
    let mut stream = TcpStream::connect(&server.address).unwrap();
    let request = format!(
        "GET /api/runs/shipped/events HTTP/1.1\r\nHost: {}\r\n\r\n",
        server.address
    );
    stream.write_all(request.as_bytes()).unwrap();
    stream.read_exact(&mut [0; 15]).unwrap();
    let images = json!(vec![vec![0; 784]; 1000]).to_string();
    let mut pending = TcpStream::connect(&server.address).unwrap();
    let head = format!(
        "POST /api/predict HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        server.address,
        images.len()
    );
    pending
        .write_all(&[head.as_bytes(), images.as_bytes()].concat())
        .unwrap();
    thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    send_signal(&server.child, Signal::INT);
    let mut response = Vec::new();
    pending.read_to_end(&mut response).unwrap();
    assert_eq!(
        Response::parse(&response).json().as_array().unwrap().len(),
        1000
    );
    let status = server.child.wait().unwrap();
    assert_eq!(status.code(), Some(0));
    // No connection reached the time limit of the shutdown.
    assert!(start.elapsed() < Duration::from_secs(4));
}
