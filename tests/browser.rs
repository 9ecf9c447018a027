//! The pages of `trainer serve` in a real browser: Chromium, driven by chromedriver.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, future::Future, thread};

use fantoccini::actions::{InputSource, MOUSE_BUTTON_LEFT, MouseActions, PointerAction};
use fantoccini::key::Key;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Map, Value, json};

use crate::serve::Running;
use crate::support::{WorkDir, project};

/// chromedriver on a port of its own.
struct Driver {
    child: Child,
    port: u16,
}

impl Driver {
    fn start() -> Self {
        let mut child = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("chromedriver (Debian: chromium-driver): {error}"));
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut lines = stdout.lines().map_while(Result::ok);
        let line = lines
            .find(|line| line.contains("started successfully on port"))
            .unwrap();
        let port = line
            .trim_end_matches('.')
            .rsplit(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        // It stops where nobody reads what it says.
        thread::spawn(move || lines.for_each(drop));
        Self { child, port }
    }
}

impl Drop for Driver {
    /// Ends the browser with it.
    fn drop(&mut self) {
        if let Some(group) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// A process that ends with this.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `visit` in a browser of this size, which is closed whatever happens.
fn in_browser<F: Future<Output = ()>>(width: u32, height: u32, visit: impl FnOnce(Client) -> F) {
    let driver = Driver::start();
    let options = json!({
        "args": [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            format!("--window-size={width},{height}"),
        ],
    });
    let mut capabilities = Map::new();
    capabilities.insert("goog:chromeOptions".into(), options);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut builder = ClientBuilder::new(HttpConnector::new());
        let client = builder.capabilities(capabilities);
        let client = client
            .connect(&format!("http://127.0.0.1:{}", driver.port))
            .await
            .unwrap();
        visit(client.clone()).await;
        client.close().await.unwrap();
    });
}

/// Strokes of the digits, on paper of 1 by 1.
const DIGITS: [&[&[(f64, f64)]]; 10] = [
    &[&[
        (0.5, 0.15),
        (0.3, 0.3),
        (0.28, 0.6),
        (0.4, 0.85),
        (0.6, 0.85),
        (0.72, 0.6),
        (0.7, 0.3),
        (0.5, 0.15),
    ]],
    &[&[(0.5, 0.15), (0.5, 0.85)]],
    &[&[
        (0.3, 0.3),
        (0.4, 0.17),
        (0.6, 0.17),
        (0.7, 0.32),
        (0.6, 0.5),
        (0.3, 0.82),
        (0.72, 0.82),
    ]],
    &[&[
        (0.32, 0.2),
        (0.55, 0.15),
        (0.68, 0.28),
        (0.6, 0.45),
        (0.45, 0.48),
        (0.65, 0.55),
        (0.7, 0.72),
        (0.55, 0.86),
        (0.3, 0.8),
    ]],
    &[
        &[(0.6, 0.15), (0.3, 0.6), (0.75, 0.6)],
        &[(0.6, 0.4), (0.6, 0.88)],
    ],
    &[&[
        (0.7, 0.16),
        (0.38, 0.16),
        (0.35, 0.45),
        (0.55, 0.42),
        (0.7, 0.58),
        (0.65, 0.8),
        (0.45, 0.86),
        (0.3, 0.78),
    ]],
    &[&[
        (0.62, 0.15),
        (0.42, 0.35),
        (0.32, 0.62),
        (0.42, 0.85),
        (0.62, 0.82),
        (0.66, 0.64),
        (0.52, 0.54),
        (0.36, 0.66),
    ]],
    &[&[(0.28, 0.18), (0.72, 0.18), (0.55, 0.5), (0.45, 0.87)]],
    &[&[
        (0.62, 0.25),
        (0.48, 0.15),
        (0.36, 0.28),
        (0.5, 0.46),
        (0.66, 0.65),
        (0.52, 0.86),
        (0.36, 0.7),
        (0.5, 0.48),
        (0.64, 0.3),
    ]],
    &[&[
        (0.66, 0.35),
        (0.5, 0.5),
        (0.35, 0.4),
        (0.4, 0.2),
        (0.58, 0.16),
        (0.66, 0.32),
        (0.62, 0.6),
        (0.55, 0.87),
    ]],
];

/// Draws strokes on the paper with the mouse.
async fn draw(client: &Client, strokes: &[&[(f64, f64)]]) {
    let paper = client.find(Locator::Css("#paper")).await.unwrap();
    let (_, _, width, height) = paper.rectangle().await.unwrap();
    let mut mouse = MouseActions::new("mouse".into());
    for stroke in strokes {
        for (place, (x, y)) in stroke.iter().enumerate() {
            mouse = mouse.then(PointerAction::MoveToElement {
                element: paper.clone(),
                duration: Some(Duration::from_millis(20)),
                x: (x - 0.5) * width,
                y: (y - 0.5) * height,
            });
            if place == 0 {
                mouse = mouse.then(PointerAction::Down {
                    button: MOUSE_BUTTON_LEFT,
                });
            }
        }
        mouse = mouse.then(PointerAction::Up {
            button: MOUSE_BUTTON_LEFT,
        });
    }
    client.perform_actions(mouse).await.unwrap();
}

async fn text(client: &Client, selector: &str) -> String {
    client
        .find(Locator::Css(selector))
        .await
        .unwrap()
        .text()
        .await
        .unwrap()
}

async fn click(client: &Client, selector: &str) {
    client
        .find(Locator::Css(selector))
        .await
        .unwrap()
        .click()
        .await
        .unwrap();
}

/// Waits until a script returns true.
async fn until(client: &Client, script: &str) {
    // A minute: other tests run beside this one.
    for _ in 0..1200 {
        let found = client
            .execute(&format!("return {script}"), Vec::new())
            .await
            .unwrap();
        if found == Value::Bool(true) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never: {script}");
}

/// What the page says once it has nothing more to ask.
async fn answer(client: &Client) -> String {
    until(client, "document.body.dataset.asking === undefined").await;
    text(client, "#answer").await
}

/// Keeps what is seen in `target/tmp`, for people to look at.
async fn picture(client: &Client, name: &str) {
    let png = client.screenshot().await.unwrap();
    let path = format!("{}/{name}.png", env!("CARGO_TARGET_TMPDIR"));
    fs::write(path, png).unwrap();
}

async fn page_fits(client: &Client) {
    until(client, "document.documentElement.scrollWidth <= innerWidth").await;
}

#[test]
fn digits_that_are_drawn_are_read() {
    let work = WorkDir::new();
    let server = Running::start(&work, "pretrained");
    in_browser(1200, 900, async |client| {
        client
            .goto(&format!("http://{}/", server.address))
            .await
            .unwrap();
        until(
            &client,
            "document.querySelectorAll('#mistakes button').length === 12",
        )
        .await;
        let mut read = Vec::new();
        for strokes in DIGITS {
            click(&client, "#clear").await;
            draw(&client, strokes).await;
            read.push(answer(&client).await);
        }
        let is_right = |(digit, answer): &(usize, &String)| answer.starts_with(&digit.to_string());
        let right = read.iter().enumerate().filter(is_right).count();
        assert!(right >= 9, "{read:?}");

        picture(&client, "draw").await;
        until(
            &client,
            "document.querySelectorAll('#blocks canvas').length === 96",
        )
        .await;

        // A four, and without its last stroke something else.
        click(&client, "#clear").await;
        assert_eq!(text(&client, "#answer").await, "–");
        draw(&client, DIGITS[4]).await;
        let four = answer(&client).await;
        click(&client, "#undo").await;
        assert_ne!(answer(&client).await, four);
        click(&client, "#clear").await;

        // A one, by the keyboard; Delete clears, also while the pen is down.
        let paper = client.find(Locator::Css("#paper")).await.unwrap();
        let keys = |keys: &[Key]| keys.iter().copied().map(char::from).collect::<String>();
        let [up, down] = [Key::Up, Key::Down].map(|key| keys(&[key; 10]));
        paper
            .send_keys(&format!("{up} {down}{down} "))
            .await
            .unwrap();
        assert!(answer(&client).await.starts_with('1'));
        let delete = keys(&[Key::Delete]);
        paper.send_keys(&format!(" {delete}{down}")).await.unwrap();
        assert_eq!(answer(&client).await, "–");

        // A picture, chosen and dropped.
        let file = project("tests/handwriting/3-marker.png")
            .canonicalize()
            .unwrap();
        let input = client.find(Locator::Css("#file")).await.unwrap();
        input.send_keys(&file.display().to_string()).await.unwrap();
        until(
            &client,
            "document.querySelector('#answer').textContent.startsWith('3,')",
        )
        .await;
        let bytes = fs::read(project("tests/handwriting/7-marker.png")).unwrap();
        let drop = "const transfer = new DataTransfer(); \
                    transfer.items.add(new File([new Uint8Array(arguments[0])], 'a.png', { type: 'image/png' })); \
                    document.querySelector('#paper').dispatchEvent( \
                        new DragEvent('drop', { dataTransfer: transfer, bubbles: true, cancelable: true }))";
        client.execute(drop, vec![json!(bytes)]).await.unwrap();
        until(
            &client,
            "document.querySelector('#answer').textContent.startsWith('7,')",
        )
        .await;

        client.set_window_size(390, 844).await.unwrap();
        page_fits(&client).await;
        click(&client, "#clear").await;
        draw(&client, DIGITS[1]).await;
        assert!(answer(&client).await.starts_with('1'));
        picture(&client, "draw-phone").await;
    });
}

#[test]
fn a_curve_grows_while_a_run_trains() {
    let work = WorkDir::new();
    let server = Running::start(&work, "pretrained");
    let mut training = work.command("--preset tiny --limit-train 20000 --epochs 20 -q");
    let _training = Ending(training.stdout(Stdio::null()).spawn().unwrap());
    while !work.path("artifacts/runs/tiny-1/metrics.jsonl").exists() {
        thread::sleep(Duration::from_millis(20));
    }
    in_browser(1200, 900, async |client| {
        client
            .goto(&format!("http://{}/runs", server.address))
            .await
            .unwrap();
        until(&client, "document.querySelector('.running') !== null").await;
        let points = "(document.querySelector('#loss polyline')?.getAttribute('points').split(' ').length ?? 0)";
        until(&client, &format!("{points} >= 3")).await;
        let before = client
            .execute(&format!("return {points}"), Vec::new())
            .await
            .unwrap();
        until(&client, &format!("{points} > {before}")).await;
        // All about it: click on its name.
        click(&client, "[data-run=tiny-1] button").await;
        until(
            &client,
            "document.querySelector('#layers tbody').textContent.includes('conv1')",
        )
        .await;
        picture(&client, "runs").await;
        client.set_window_size(390, 844).await.unwrap();
        page_fits(&client).await;
        picture(&client, "runs-phone").await;
    });
}
