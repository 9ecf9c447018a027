//! The dashboard, in a pseudo-terminal.

use std::io::{ErrorKind, Read, Write};
use std::num::NonZeroU16;
use std::process::Child;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use pty_process::Size;
use pty_process::blocking::{Command, Pty, open};
use rustix::termios::{Termios, tcgetattr};

use crate::support::WorkDir;

/// Limit of each wait, generous for slow machines.
const TIMEOUT: Duration = Duration::from_secs(60);

const ROWS: u16 = 40;
const COLUMNS: u16 = 120;

/// A running `trainer` in a pseudo-terminal, and the contents of its screen.
struct Terminal {
    pty: Pty,
    child: Child,
    screen: vt100::Parser,
    output: Receiver<Vec<u8>>,
    modes: Termios,
}

impl Terminal {
    fn start(dir: &WorkDir, arguments: &str) -> Self {
        let (pty, pts) = open().unwrap();
        pty.resize(Size::new(ROWS, COLUMNS)).unwrap();
        let modes = tcgetattr(&pty).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_trainer"))
            .args(arguments.split_whitespace())
            .env("TERM", "xterm-256color")
            .current_dir(dir.path(""))
            .spawn(pts)
            .unwrap();
        let size = |size| NonZeroU16::new(size).unwrap();
        let (sender, output) = mpsc::channel();
        let reader: std::os::fd::OwnedFd = rustix::io::dup(&pty).unwrap();
        std::thread::spawn(move || {
            let mut reader = std::fs::File::from(reader);
            let mut bytes = [0; 4096];
            loop {
                match reader.read(&mut bytes) {
                    Ok(0) => break,
                    Ok(count) => {
                        if sender.send(bytes[..count].to_vec()).is_err() {
                            break;
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    // The process has closed its end.
                    Err(_) => break,
                }
            }
        });
        Self {
            pty,
            child,
            screen: vt100::Parser::new(size(ROWS), size(COLUMNS), 0),
            output,
            modes,
        }
    }

    fn text(&self) -> String {
        self.screen.screen().contents()
    }

    /// Waits until `condition` holds for the screen.
    #[track_caller]
    fn wait_until(&mut self, event: &str, condition: impl Fn(&vt100::Screen) -> bool) {
        let start = Instant::now();
        while !condition(self.screen.screen()) {
            let left = TIMEOUT.saturating_sub(start.elapsed());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.screen.process(&bytes),
                Err(error) => panic!("no {event} ({error}):\n{}", self.text()),
            }
        }
    }

    fn press(&mut self, keys: &str) {
        self.pty.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for the exit, asserts that the modes of the terminal are restored, and returns the exit code and
    /// the text on the screen.
    #[track_caller]
    fn wait_for_exit(mut self) -> (Option<i32>, String) {
        let start = Instant::now();
        loop {
            let left = TIMEOUT.saturating_sub(start.elapsed());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.screen.process(&bytes),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("still running:\n{}", self.text()),
            }
        }
        let status = self.child.wait().unwrap();
        let screen = self.screen.screen();
        let text = self.text();
        assert!(!screen.alternate_screen(), "{text}");
        assert!(!screen.hide_cursor(), "{text}");
        assert_eq!(screen.mouse_protocol_mode(), vt100::MouseProtocolMode::None);
        let now = tcgetattr(&self.pty).unwrap();
        assert_eq!(now.local_modes, self.modes.local_modes);
        assert_eq!(now.input_modes, self.modes.input_modes);
        assert_eq!(now.output_modes, self.modes.output_modes);
        assert!(!text.contains("panicked"), "{text}");
        // Joins wrapped lines.
        (status.code(), text.replace('\n', ""))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Killing a process that has exited fails, which does not matter.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A training of several hours.
const LONG: &str = "--preset tiny --epochs 10000 --run-name r";

fn shows_metrics(screen: &vt100::Screen) -> bool {
    let text = screen.contents();
    let is_shown = |name: &str| text.contains(name);
    screen.alternate_screen()
        && ["Loss", "Accuracy", "Learning Rate", "Speed", "images/s"]
            .into_iter()
            .all(is_shown)
}

#[test]
fn dashboard_shows_metrics_and_leaves_the_results() {
    let dir = WorkDir::new();
    let mut terminal = Terminal::start(&dir, "--preset tiny --limit-train 20000 --epochs 3");
    terminal.wait_until("metrics", shows_metrics);
    terminal.wait_until("validation", |screen| screen.contents().contains("Valid"));
    let (code, text) = terminal.wait_for_exit();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(" of 3, by validation"), "{text}");
}

#[test]
fn ctrl_c_saves_a_checkpoint_and_prints_the_resume_command() {
    let dir = WorkDir::new();
    let mut terminal = Terminal::start(&dir, LONG);
    terminal.wait_until("metrics", shows_metrics);
    terminal.press("\x03");
    let (code, text) = terminal.wait_for_exit();
    assert_eq!(code, Some(130), "{text}");
    assert!(
        text.contains("resume with: trainer --resume artifacts/runs/r"),
        "{text}"
    );
    assert!(!dir.checkpoints("r").is_empty());
}

#[test]
fn keys_of_the_dashboard_save_a_checkpoint() {
    for key in ["s", "k"] {
        let dir = WorkDir::new();
        let mut terminal = Terminal::start(&dir, LONG);
        terminal.wait_until("metrics", shows_metrics);
        terminal.press("q");
        terminal.wait_until("question", |screen| screen.contents().contains("[k]"));
        terminal.press(key);
        let (code, text) = terminal.wait_for_exit();
        assert_eq!(code, Some(130), "{key}: {text}");
        assert!(
            text.contains("resume with: trainer --resume"),
            "{key}: {text}"
        );
        assert!(!dir.checkpoints("r").is_empty(), "{key}");
    }
}

#[test]
fn second_ctrl_c_exits_within_a_step() {
    let dir = WorkDir::new();
    // One step takes a whole epoch.
    let slow = "--preset three-block --batch-size 100 --accumulate 540 --run-name r";
    let mut terminal = Terminal::start(&dir, slow);
    terminal.wait_until("metrics", shows_metrics);
    terminal.press("\x03");
    // Two signals at the same time may be merged into one.
    std::thread::sleep(Duration::from_millis(200));
    terminal.press("\x03");
    let (code, text) = terminal.wait_for_exit();
    assert_eq!(code, Some(130), "{text}");
    assert!(!text.contains("resume with"), "{text}");
}

#[test]
fn error_is_printed_after_the_dashboard_closes() {
    let dir = WorkDir::new();
    let arguments = "--preset dense --optimizer sgd --learning-rate 100";
    let mut terminal = Terminal::start(&dir, arguments);
    terminal.wait_until("dashboard", vt100::Screen::alternate_screen);
    let (code, text) = terminal.wait_for_exit();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("error: run artifacts/runs/dense-1"), "{text}");
    assert!(text.contains("the loss is "), "{text}");
}
