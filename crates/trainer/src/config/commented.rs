//! Configuration files with a comment for each setting.

use std::fmt::Write;

use toml::{Table, Value};

use crate::config::schema::{self, DefaultValue, SECTIONS, SETTINGS, Setting};

const HEADER: &str = "\
# All settings. Edit this file and train with `trainer --config FILE`; a setting that the file leaves out has the
# value of the preset.

";
/// Width of the file in characters.
const WIDTH: usize = 110;

/// Formats settings as TOML, each with its description. An unset setting is a commented example.
pub(crate) fn to_toml(settings: &Table) -> String {
    let mut text = HEADER.to_string();
    for section in SECTIONS {
        let rows = SETTINGS.iter().filter(|row| row.path().0 == section.name);
        let entries: String = rows.filter_map(|row| entry(settings, row)).collect();
        if entries.is_empty() {
            continue;
        }
        if !section.name.is_empty() {
            text.push('\n');
            comment(&mut text, "# ", section.summary);
            let _ = writeln!(text, "[{}]", section.name);
        }
        text.push_str(&entries);
    }
    text
}

/// Formats one setting; `None` for elements of arrays, which their array describes, and for measured
/// settings.
fn entry(settings: &Table, setting: &Setting) -> Option<String> {
    let (_, key) = setting.path();
    let value = schema::get(settings, setting);
    let line = match (value, setting.default) {
        (Some(value), _) => format!("{key} = {}", format_value(value)),
        (None, DefaultValue::Unset(example)) if !key.contains('[') => {
            format!("# {key} = {}", setting.constraint.parse(example))
        }
        _ => return None,
    };
    let mut text = String::new();
    comment(&mut text, "# ", &format!("{}.", setting.summary()));
    comment(&mut text, "# ", setting.details);
    let elements = format!("{}[].", setting.key);
    for element in SETTINGS {
        if let Some(name) = element.key.strip_prefix(&elements) {
            let description = format!("{name}: {}.", element.summary());
            comment(&mut text, "#   ", &description);
        }
    }
    let _ = writeln!(text, "{line}");
    Some(text)
}

/// Formats a value on one line, but an array of tables with a line for each.
fn format_value(value: &Value) -> String {
    match value {
        Value::Array(elements) if elements.iter().any(Value::is_table) => {
            let lines = elements.iter().map(|element| format!("    {element},\n"));
            format!("[\n{}]", lines.collect::<String>())
        }
        _ => value.to_string(),
    }
}

/// Appends text as comment lines.
fn comment(out: &mut String, prefix: &str, text: &str) {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && prefix.len() + line.len() + 1 + word.len() > WIDTH {
            let _ = writeln!(out, "{prefix}{line}");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        let _ = writeln!(out, "{prefix}{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::presets;
    use crate::config::run_config::merge;
    use crate::config::settings::Settings;

    #[test]
    fn comments_leave_the_values_as_they_are() {
        for name in presets::names() {
            let mut expected = schema::defaults();
            let preset = presets::table(name).unwrap();
            merge(&mut expected, preset);
            expected.insert("preset".into(), name.into());
            let text = Settings::preset(name).unwrap().to_toml();
            assert_eq!(text.parse::<Table>().unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn every_setting_is_described_and_unset_ones_are_examples() {
        let text = to_toml(&schema::defaults());
        for setting in SETTINGS {
            let is_measured = matches!(setting.default, DefaultValue::Measured);
            let (_, key) = setting.path();
            let key = key.rsplit("[].").next().unwrap_or(key);
            assert!(
                is_measured || key.ends_with("[]") || text.contains(key),
                "{key}"
            );
        }
        assert!(text.contains("\n# max_time = \"10m\"\n"), "{text}");
        let uncommented: String = text
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(rest) if rest.contains(" = ") => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            .collect();
        let table: Table = uncommented.parse().unwrap();
        schema::check(&table).unwrap();
        assert_eq!(table["training"]["max_time"], Value::String("10m".into()));
    }
}
