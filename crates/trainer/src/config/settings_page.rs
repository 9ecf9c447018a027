//! docs/settings.md, generated from the schema.

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

use crate::config::constraint::Constraint;
use crate::config::schema::{DefaultValue, SECTIONS, SETTINGS, Setting};

const INTRODUCTION: &str = "\
# Settings

<!-- Generated from crates/trainer/src/config/schema.rs: UPDATE=1 cargo test -p trainer settings_page -->

A run takes each setting from the first of these that has it: the flags, the file of `--config`, the preset, the
defaults, which are the preset `convnet`. `trainer presets show NAME` prints all settings of a preset with their
descriptions, as a file for `--config`. `[]` in a key stands for the elements of an array.
";

fn page() -> String {
    let mut page = INTRODUCTION.to_string();
    for section in SECTIONS {
        let title = match section.name {
            "" => "Top level".into(),
            name => format!("{}: `[{name}]`", section.heading),
        };
        let _ = write!(page, "\n## {title}\n\n");
        if !section.summary.is_empty() {
            let _ = write!(page, "{}\n\n", section.summary);
        }
        page.push_str("| key | flag | values | default | description |\n|---|---|---|---|---|\n");
        for setting in SETTINGS {
            if setting.path().0 == section.name {
                let _ = writeln!(page, "{}", row(setting));
            }
        }
    }
    page
}

fn row(setting: &Setting) -> String {
    let (_, key) = setting.path();
    let flag = setting.flag.map_or_else(String::new, |flag| {
        let value = match (flag.value_name, setting.constraint) {
            ("", _) => String::new(),
            (name, Constraint::BooleanOr(_)) => format!("[={name}]"),
            (name, _) => format!(" {name}"),
        };
        format!("`--{}{value}`", flag.name)
    });
    let default = match setting.default {
        DefaultValue::Value("") | DefaultValue::Unset("") => String::new(),
        DefaultValue::Value(text) => format!("`{text}`"),
        DefaultValue::Unset(_) => "unset".into(),
        DefaultValue::Measured => "measured".into(),
    };
    let description = format!("{}. {}", setting.help, setting.details);
    // A bar would end the cell.
    let cells = [
        format!("`{key}`"),
        flag,
        setting.values(),
        default,
        description.trim_end().to_string(),
    ];
    format!(
        "| {} |",
        cells.map(|cell| cell.replace('|', "\\|")).join(" | ")
    )
}

#[test]
fn settings_page_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/settings.md");
    let page = page();
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap() == page,
        "docs/settings.md differs from the schema; regenerate it: \
         UPDATE=1 cargo test -p trainer settings_page"
    );
}
