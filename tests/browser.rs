//! The pages of `trainer serve` and `trainer inspect --embedding` in a real browser.

use std::process::{Child, Stdio};
use std::time::Duration;
use std::{fs, thread};

use serde_json::{Value, json};

use crate::serve::Server;
use crate::support::{WorkDir, project};
use crate::webdriver::{Browser, DELETE, DOWN, LEFT, UP};

/// A process that is killed when dropped.
struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Strokes of the ten digits, in units of the canvas.
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

/// Waits until a JavaScript expression is true.
#[track_caller]
fn until(browser: &Browser, expression: &str) {
    // A minute, because other tests run at the same time.
    for _ in 0..1200 {
        if browser.execute(&format!("return {expression}"), &[]) == true {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("never true: {expression}");
}

/// Waits until the page has no request pending, and returns the prediction it shows.
fn answer(browser: &Browser) -> String {
    until(browser, "document.body.dataset.asking === undefined");
    browser.find("#answer").text()
}

/// Saves a screenshot in `target/tmp`.
fn save_screenshot(browser: &Browser, name: &str) {
    let path = format!("{}/{name}.png", env!("CARGO_TARGET_TMPDIR"));
    fs::write(path, browser.screenshot()).unwrap();
}

#[track_caller]
fn assert_fits_window(browser: &Browser) {
    until(
        browser,
        "document.documentElement.scrollWidth <= innerWidth",
    );
}

#[test]
fn recognizes_drawn_digits_and_pictures() {
    let Some(browser) = Browser::open(1200, 900) else {
        return;
    };
    let work = WorkDir::new();
    let server = Server::start(&work, "pretrained");
    browser.navigate(&format!("http://{}/", server.address));
    until(
        &browser,
        "document.querySelectorAll('#mistakes button').length === 12",
    );
    let canvas = browser.find("#paper");
    let clear = browser.find("#clear");
    let answers: Vec<String> = DIGITS
        .iter()
        .map(|strokes| {
            clear.click();
            browser.draw(&canvas, strokes);
            answer(&browser)
        })
        .collect();
    let is_correct = |(digit, answer): &(usize, &String)| answer.starts_with(&digit.to_string());
    let correct = answers.iter().enumerate().filter(is_correct).count();
    assert!(correct >= 9, "{answers:?}");

    save_screenshot(&browser, "draw");
    until(
        &browser,
        "document.querySelectorAll('#blocks canvas').length === 96",
    );

    // Without its last stroke, a four has another prediction.
    clear.click();
    assert_eq!(browser.find("#answer").text(), "–");
    assert_eq!(browser.find("#verdict").text(), "");
    browser.draw(&canvas, DIGITS[4]);
    let four = answer(&browser);
    assert_eq!(browser.find("#verdict").text(), "Sure");
    browser.find("#undo").click();
    assert_ne!(answer(&browser), four);
    clear.click();

    // A cross with a bar is no digit.
    let lines = [
        [(0.2, 0.2), (0.8, 0.8)],
        [(0.8, 0.2), (0.2, 0.8)],
        [(0.1, 0.5), (0.9, 0.5)],
    ];
    browser.draw(&canvas, &[&lines[0], &lines[1], &lines[2]]);
    let digit = answer(&browser).chars().next().unwrap();
    let verdict = format!("Unlike the training images of {digit}");
    assert_eq!(browser.find("#verdict").text(), verdict);
    save_screenshot(&browser, "unlike");
    clear.click();

    // A number, written with a thinner brush.
    browser.execute("document.querySelector('#size').value = 16", &[]);
    let number = [2, 7, 3].map(|digit| DIGITS[digit]).into_iter().enumerate();
    let number: Vec<Vec<(f64, f64)>> = number
        .flat_map(|(place, strokes)| {
            let moved = move |&(x, y): &(f64, f64)| (0.33 * (place as f64 + x), 0.3 + 0.33 * y);
            let moved = strokes
                .iter()
                .map(move |stroke| stroke.iter().map(moved).collect());
            moved.collect::<Vec<_>>()
        })
        .collect();
    let number: Vec<&[(f64, f64)]> = number.iter().map(Vec::as_slice).collect();
    browser.draw(&canvas, &number);
    let found = answer(&browser);
    save_screenshot(&browser, "number");
    assert!(found.starts_with("273,"), "{found}");
    browser.execute("document.querySelector('#size').value = 40", &[]);
    clear.click();

    // The keyboard draws a one; Delete clears the canvas even while the pen is down.
    let [up, down] = [UP, DOWN].map(|key| key.repeat(10));
    canvas.type_text(&format!("{up} {down}{down} "));
    assert!(answer(&browser).starts_with('1'));
    canvas.type_text(&format!(" {DELETE}{down}"));
    assert_eq!(answer(&browser), "–");

    // A picture from a file, and one that is dropped on the canvas.
    let file = project("tests/handwriting/3-marker.png");
    let file = file.canonicalize().unwrap();
    browser.find("#file").type_text(&file.display().to_string());
    until(
        &browser,
        "document.querySelector('#answer').textContent.startsWith('3,')",
    );
    let bytes = fs::read(project("tests/handwriting/7-marker.png")).unwrap();
    let drop = "const transfer = new DataTransfer(); \
                transfer.items.add(new File([new Uint8Array(arguments[0])], 'a.png', { type: 'image/png' })); \
                document.querySelector('#paper').dispatchEvent( \
                    new DragEvent('drop', { dataTransfer: transfer, bubbles: true, cancelable: true }))";
    browser.execute(drop, &[json!(bytes)]);
    until(
        &browser,
        "document.querySelector('#answer').textContent.startsWith('7,')",
    );

    browser.resize(390, 844);
    assert_fits_window(&browser);
    clear.click();
    browser.draw(&canvas, DIGITS[1]);
    assert!(answer(&browser).starts_with('1'));
    save_screenshot(&browser, "draw-phone");
}

#[test]
fn updates_curves_during_training() {
    let Some(browser) = Browser::open(1200, 900) else {
        return;
    };
    let work = WorkDir::new();
    let server = Server::start(&work, "pretrained");
    let mut training = work.command("--preset tiny --limit-train 20000 --epochs 20 -q");
    let _training = KilledOnDrop(training.stdout(Stdio::null()).spawn().unwrap());
    while !work.path("artifacts/runs/tiny-1/metrics.jsonl").exists() {
        thread::sleep(Duration::from_millis(20));
    }
    browser.navigate(&format!("http://{}/runs", server.address));
    until(&browser, "document.querySelector('.running') !== null");
    let points =
        "(document.querySelector('#loss polyline')?.getAttribute('points').split(' ').length ?? 0)";
    until(&browser, &format!("{points} >= 3"));
    let before: Value = browser.execute(&format!("return {points}"), &[]);
    until(&browser, &format!("{points} > {before}"));
    // A click on its name shows the details of a run.
    browser.find("[data-run=tiny-1] button").click();
    until(
        &browser,
        "document.querySelector('#layers tbody').textContent.includes('conv1')",
    );
    save_screenshot(&browser, "runs");
    browser.resize(390, 844);
    assert_fits_window(&browser);
    save_screenshot(&browser, "runs-phone");
}

#[test]
fn a_point_of_the_map_shows_its_picture() {
    let Some(browser) = Browser::open(1200, 900) else {
        return;
    };
    let work = WorkDir::new();
    let run = work.shipped();
    work.trainer(&format!("inspect {run} --embedding --points 500"))
        .success();
    let page = work.path("artifacts/runs").join(run).join("embedding.html");
    browser.navigate(&format!("file://{}", page.display()));
    until(&browser, "document.querySelector('#pictures').complete");
    let caption = browser.find("#caption");
    assert_eq!(caption.text(), "No point selected");

    // The first point without another one nearby.
    let place = browser.execute(
        "const { x, y } = JSON.parse(document.querySelector('#data').textContent); \
         const isAlone = (_, at) => x.every((other, index) => \
             index === at || Math.hypot(other - x[at], y[index] - y[at]) > 0.02); \
         const at = x.findIndex(isAlone); \
         return [at, x[at], y[at]]",
        &[],
    );
    // The map has a margin of 2% on each side.
    let share = |axis: usize| 0.02 + 0.96 * place[axis].as_f64().unwrap();
    let canvas = browser.find("#map");
    browser.point_at(&canvas, (share(1), share(2)));
    let expected = browser.execute(
        "const data = JSON.parse(document.querySelector('#data').textContent); \
         const at = arguments[0]; \
         const percent = (100 * data.probability[at]).toFixed(2); \
         return `${data.name[at]}\\nclass ${data.label[at]}\\npredicted ${data.predicted[at]}, ${percent}%`",
        &[place[0].clone()],
    );
    assert_eq!(caption.text(), expected.as_str().unwrap());
    // The picture is that of the test image: its pixels, not blank.
    let sum = "(() => { const canvas = document.querySelector('#picture'); \
               const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height); \
               return data.reduce((sum, value, at) => sum + (at % 4 === 0 ? value : 0), 0) })()";
    let light = browser.execute(&format!("return {sum}"), &[]);
    assert!(light.as_u64().unwrap() > 1000, "{light}");
    save_screenshot(&browser, "embedding");

    // The keyboard goes to another point; without classes there is none.
    canvas.type_text(LEFT);
    let next = caption.text();
    assert_ne!(next, expected.as_str().unwrap());
    browser.find("#none").click();
    canvas.type_text(LEFT);
    browser.point_at(&canvas, (share(1), share(2)));
    assert_eq!(caption.text(), next);
    browser.find("#all").click();
    browser.find("#legend button").click();
    let pressed = "document.querySelector('#legend button').getAttribute('aria-pressed')";
    until(&browser, &format!("{pressed} === 'false'"));

    browser.resize(390, 844);
    assert_fits_window(&browser);
    save_screenshot(&browser, "embedding-phone");
    assert_eq!(browser.console(), Vec::<Value>::new());
}
