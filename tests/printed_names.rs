//! Names with control characters: the printed text shows them escaped, JSON and CSV have them as they are.

use std::fs;

use serde_json::Value;

use crate::serve::Server;
use crate::support::{Output, WorkDir, project};

/// A name that clears the screen, reverses text, and starts a line of its own.
const NAME: &str = "n\nforged \x1b[2J\u{9b}\u{202e}";

/// [`NAME`] as it is printed.
const ESCAPED: &str = r"n\nforged \u{1b}[2J\u{9b}\u{202e}";

/// [`NAME`] in TOML.
const TOML: &str = r"n\nforged \u001b[2J\u009b\u202e";

/// Asserts that a text has no control characters, and that no line starts within a name.
#[track_caller]
fn assert_printable(text: &str) {
    let is_unprintable =
        |c: char| c != '\n' && (c.is_control() || matches!(c, '\u{202a}'..='\u{202e}'));
    assert!(!text.contains(is_unprintable), "{text:?}");
    assert!(!text.contains("\nforged"), "{text}");
}

/// Runs a command whose last argument is `argument`, and asserts that its output is printable.
#[track_caller]
fn output(dir: &WorkDir, arguments: &str, argument: &str) -> Output {
    let mut command = dir.command(arguments);
    if !argument.is_empty() {
        command.arg(argument);
    }
    let output = Output::of(&mut command);
    assert_printable(&output.stdout);
    assert_printable(&output.stderr);
    output
}

/// Copies the pretrained network to a run, with [`NAME`] in place of the class 7.
fn run_with_class_name(dir: &WorkDir) -> &'static str {
    let run = dir.shipped();
    let folder = dir.path("artifacts/runs").join(run);
    let config = fs::read_to_string(folder.join("config.toml")).unwrap();
    let renamed = config.replace("\"7\"", &format!("\"{TOML}\""));
    assert_ne!(config, renamed);
    fs::write(folder.join("config.toml"), renamed).unwrap();
    run
}

#[test]
fn predict_escapes_the_names_of_classes_and_files() {
    let dir = WorkDir::new();
    let run = run_with_class_name(&dir);
    let folder = dir.path(NAME);
    fs::create_dir(&folder).unwrap();
    let digit = project("tests/handwriting/7-marker.png");
    fs::copy(&digit, folder.join(format!("{NAME}.png"))).unwrap();
    fs::write(folder.join("broken.png"), "").unwrap();

    let text = output(&dir, &format!("predict {run} --top 2"), NAME);
    assert_eq!(text.code, Some(1));
    assert_eq!(text.stdout.lines().count(), 1, "{}", text.stdout);
    let expected = format!("{ESCAPED}/{ESCAPED}.png  {ESCAPED}  ");
    assert!(text.stdout.starts_with(&expected), "{}", text.stdout);
    let expected = format!("error: {ESCAPED}/broken.png: empty file\nerror: 1 of 2 failed\n");
    assert!(text.stderr.ends_with(&expected), "{}", text.stderr);
    let shown = output(
        &dir,
        &format!("predict {run} -q --show"),
        &format!("{NAME}/{NAME}.png"),
    );
    assert!(
        shown
            .stdout
            .contains(&format!("figures/seen/{ESCAPED}.png")),
        "{}",
        shown.stdout
    );

    let mut json = dir.command(&format!("predict {run} -q --json"));
    let json = Output::of(json.arg(folder.join(format!("{NAME}.png")))).success();
    let prediction: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(prediction["class"], NAME);
    assert!(
        prediction["path"]
            .as_str()
            .unwrap()
            .ends_with(&format!("{NAME}.png"))
    );
    let mut csv = dir.command(&format!("predict {run} -q --csv --top 1"));
    let csv = Output::of(csv.arg(&digit)).success();
    assert!(
        csv.stdout.contains(&format!(",\"{NAME}\",")),
        "{}",
        csv.stdout
    );
}

#[test]
fn tables_escape_the_names_of_classes_and_runs() {
    let dir = WorkDir::new();
    let run = run_with_class_name(&dir);
    let evaluated = output(&dir, "evaluate", run).success();
    let rows = evaluated
        .stdout
        .lines()
        .filter(|line| line.starts_with(ESCAPED));
    // Of the classes, and of the confusion matrix.
    assert_eq!(rows.count(), 2, "{}", evaluated.stdout);
    let json = dir.trainer(&format!("evaluate {run} --json -q")).success();
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["classes"][7]["class"], NAME);

    let runs = dir.path("artifacts/runs");
    fs::rename(runs.join(run), runs.join(NAME)).unwrap();
    let compared = output(&dir, "compare --baseline pretrained pretrained", NAME).success();
    assert!(
        compared.stdout.contains(&format!("\n{ESCAPED}  ")),
        "{}",
        compared.stdout
    );
    let compared = output(&dir, "compare pretrained pretrained-best --baseline", NAME).success();
    assert!(
        compared
            .stdout
            .contains(&format!("minus that of {ESCAPED}")),
        "{}",
        compared.stdout
    );
    let ensemble = output(&dir, "ensemble pretrained", NAME);
    assert!(ensemble.error().contains(ESCAPED));
    let report = output(&dir, "report", NAME).success();
    assert_eq!(
        report.stdout,
        format!("artifacts/runs/{ESCAPED}/report.html\n")
    );
    let drawn = output(&dir, "inspect", NAME).success();
    assert!(
        drawn.stdout.lines().all(|line| line.contains(ESCAPED)),
        "{}",
        drawn.stdout
    );
    let exported = output(&dir, "export --format onnx", NAME).success();
    assert!(exported.stdout.contains(ESCAPED), "{}", exported.stdout);
}

#[test]
fn a_training_escapes_the_names_of_its_data() {
    let dir = WorkDir::new();
    let settings = format!("about = \"{TOML}\"\npreset = \"tiny\"");
    fs::write(dir.path("my.toml"), settings).unwrap();
    let summary = output(&dir, "summary --config", "my.toml").success();
    assert!(
        summary.stdout.starts_with(&format!("tiny: {ESCAPED}\n")),
        "{}",
        summary.stdout
    );

    dir.images();
    fs::rename(dir.path("data"), dir.path(NAME)).unwrap();
    let arguments = "--preset dense --max-steps 1 --data";
    let trained = output(&dir, arguments, NAME).success();
    assert!(
        trained
            .stderr
            .contains(&format!("\n{ESCAPED}: 54 training, ")),
        "{}",
        trained.stderr
    );
    let runs = dir.path("artifacts/runs");
    assert_printable(&dir.run_text("dense-1", "train.log"));
    fs::rename(runs.join("dense-1"), runs.join(NAME)).unwrap();
    let resumed = output(&dir, "--max-steps 2 --resume", NAME).success();
    assert!(
        resumed
            .stderr
            .contains(&format!("run: artifacts/runs/{ESCAPED}\n")),
        "{}",
        resumed.stderr
    );
    assert!(
        resumed
            .stdout
            .ends_with(&format!("saved in    artifacts/runs/{ESCAPED}\n"))
    );
    let events = dir.run_text(NAME, "metrics.jsonl");
    assert!(events.contains(r"n\nforged \u001b[2J"), "{events}");
}

#[test]
fn errors_escape_names() {
    let dir = WorkDir::new();
    let error = |arguments: &str, argument: &str| output(&dir, arguments, argument).error();
    assert_eq!(
        error("--data", NAME),
        format!("{ESCAPED}: cannot open the data: No such file or directory (os error 2)")
    );
    // The parser of the command line repeats its arguments.
    assert!(error("", NAME).contains(ESCAPED));
    assert!(error("evaluate", NAME).starts_with(&format!("{ESCAPED}: no run folder")));
    assert!(error("evaluate pretrained", NAME).contains(ESCAPED));
    assert!(error("--preset", NAME).starts_with(&format!("unknown preset {ESCAPED}; ")));
    assert!(error("--run-name", NAME).starts_with("run name \"n\\nforged "));
    // The parser of TOML shows the line with the error.
    fs::write(dir.path("my.toml"), "a = 1\nb = \x1b[2J\n").unwrap();
    let message = error("summary --config", "my.toml");
    assert!(message.contains("\n2 | b = \\u{1b}[2J\n"), "{message}");
    assert!(!dir.has_runs());
}

#[test]
fn figures_and_pages_show_any_class_name() {
    let dir = WorkDir::new();
    let run = dir.shipped();
    let folder = dir.path("artifacts/runs").join(run);
    let controls = |range: std::ops::RangeInclusive<u8>| -> String {
        range.map(|code| format!("\\u{code:04x}")).collect()
    };
    let names = [
        controls(0..=15),
        controls(16..=31),
        controls(127..=159),
        r#"\"'`<>&"#.into(),
        "</text></svg><script>alert(1)</script>&amp;]]>".into(),
        "x".repeat(10_000),
        String::new(),
        "עברית العربية".into(),
        r"\u202eabc\u2066\u2028\ufffe\uffff".into(),
        "数字 🙂 é".into(),
    ];
    let classes = names.map(|name| format!("\"{name}\"")).join(", ");
    let config = fs::read_to_string(folder.join("config.toml")).unwrap();
    let digits: Vec<String> = (0..10).map(|digit| format!("\"{digit}\"")).collect();
    let renamed = config.replace(&digits.join(", "), &classes);
    assert_ne!(config, renamed);
    fs::write(folder.join("config.toml"), renamed).unwrap();

    let drawn = output(&dir, "inspect", run).success();
    assert_eq!(drawn.stdout.lines().count(), 16, "{}", drawn.stdout);
    let svg = dir.run_text(run, "figures/classes.svg");
    assert_printable(&svg);
    for part in [
        r"\u{0}\u{1}",
        r"\u{7f}\u{80}",
        "\n\"'`&lt;&gt;&amp;\n",
        "\n&lt;/text&gt;",
        "\nxxx",
        "…\n",
        "\nעברית العربية\n",
        "\n数字 🙂 é\n",
    ] {
        assert!(svg.contains(part), "{part}: {svg}");
    }
    output(&dir, "report", run).success();
    let report = dir.run_text(run, "report.html");
    assert_printable(&report);
    assert!(!report.contains("<script") && !report.contains("\u{ffff}"));
    assert!(report.contains(r"<td>\u{0}\u{1}\u{2}"), "{report}");
    assert!(report.contains(&format!("<td>{}</td>", "x".repeat(10_000))));

    let server = Server::start(&dir, run);
    let detail = server.get(&format!("/api/runs/{run}")).json();
    assert_eq!(detail["id"], run);
    assert_eq!(server.get(&format!("/runs/{run}/report")).status, 200);
    let model = server.get("/api/model").json();
    assert_eq!(
        model["classes"][8],
        "\u{202e}abc\u{2066}\u{2028}\u{fffe}\u{ffff}"
    );
}
