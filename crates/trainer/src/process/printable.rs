//! Text of unknown origin, escaped for the terminal and for log files. The names of files, classes and runs may
//! contain escape sequences that change the terminal, and line breaks that look like further output.

use std::error::Error;
use std::fmt;

/// Text whose control characters are escaped, so that it is one line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printable<T>(T);

/// Escapes a text to one line without control characters.
pub(crate) fn printable<T: fmt::Display>(text: T) -> Printable<T> {
    Printable(text)
}

/// Escapes a text without control characters, except for its line breaks and tabs.
pub(crate) fn printable_lines(text: &str) -> String {
    escape(text, |c| is_unprintable(c) && !matches!(c, '\n' | '\t'))
}

impl<T: fmt::Display> fmt::Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match f.alternate() {
            true => format!("{:#}", self.0),
            false => self.0.to_string(),
        };
        f.pad(&escape(&text, is_unprintable))
    }
}

fn escape(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match is_escaped(c) {
            true => escaped.extend(c.escape_default()),
            false => escaped.push(c),
        }
    }
    escaped
}

/// Whether a character controls a terminal, breaks a line, changes the order of the characters around it, or is
/// no character at all.
pub(crate) fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Line and paragraph separator.
            '\u{2028}' | '\u{2029}'
            // Embeddings, overrides and isolates of bidirectional text.
            | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // Not allowed in XML.
            | '\u{fffe}' | '\u{ffff}')
}

/// An error whose message has several lines, each of which is printable.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct LinesError(pub(crate) String);

/// Returns the messages of an error and its causes, joined by colons. Line breaks are escaped, except for those of
/// messages that consist of lines.
pub(crate) fn error_text(error: &anyhow::Error) -> String {
    let messages = error.chain().map(|cause| match has_lines(cause) {
        true => printable_lines(&cause.to_string()),
        false => printable(cause).to_string(),
    });
    messages.collect::<Vec<_>>().join(": ")
}

/// Whether the message of an error consists of lines. Errors of TOML show the line of the file.
fn has_lines(error: &(dyn Error + 'static)) -> bool {
    error.is::<LinesError>() || error.is::<toml::de::Error>() || error.is::<Box<toml::de::Error>>()
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn escapes_what_a_terminal_does_not_print() {
        for (text, expected) in [
            ("größer 数 🙂 \\ עברית", "größer 数 🙂 \\ עברית"),
            ("\x1b[31mred\x07", r"\u{1b}[31mred\u{7}"),
            ("a\nerror: b\r\tc", r"a\nerror: b\r\tc"),
            ("\u{9b}2J\u{7f}", r"\u{9b}2J\u{7f}"),
            ("\u{202e}gnp.exe\u{2066}", r"\u{202e}gnp.exe\u{2066}"),
            ("\u{2028}\u{2029}\u{ffff}", r"\u{2028}\u{2029}\u{ffff}"),
        ] {
            assert_eq!(printable(text).to_string(), expected);
            // Escaping twice changes nothing.
            assert_eq!(printable(printable(text)).to_string(), expected);
        }
        assert_eq!(printable_lines("a\n\tb\x1b"), "a\n\tb\\u{1b}");
        assert_eq!(format!("[{:4}]", printable("\n")), r"[\n  ]");
    }

    #[test]
    fn errors_keep_the_lines_of_their_own() {
        let error = Err::<(), _>(LinesError("one\ntwo\x1b".into())).context("a\nb");
        assert_eq!(error_text(&error.unwrap_err()), "a\\nb: one\ntwo\\u{1b}");
        let error = "[training".parse::<toml::Table>().unwrap_err();
        let lines = error.to_string();
        assert!(lines.lines().count() > 1);
        assert_eq!(error_text(&error.into()), lines);
        let error = anyhow::anyhow!("{}: no\nfile", "name\u{202e}");
        assert_eq!(error_text(&error), r"name\u{202e}: no\nfile");
    }
}
