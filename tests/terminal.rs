//! The dashboard, on a terminal.

use std::io::{ErrorKind, Read, Write};
use std::num::NonZeroU16;
use std::process::Child;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use pty_process::Size;
use pty_process::blocking::{Command, Pty, open};
use rustix::termios::{Termios, tcgetattr};

use crate::support::WorkDir;

/// Longer than anything here takes on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

const ROWS: u16 = 40;
const COLUMNS: u16 = 120;

/// `trainer` on a terminal, and what is seen on it.
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
                    // The other end was closed.
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

    /// Reads until the screen is as expected.
    #[track_caller]
    fn wait(&mut self, what: &str, is_there: impl Fn(&vt100::Screen) -> bool) {
        let start = Instant::now();
        while !is_there(self.screen.screen()) {
            let left = PATIENCE.saturating_sub(start.elapsed());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.screen.process(&bytes),
                Err(error) => panic!("no {what} ({error}):\n{}", self.text()),
            }
        }
    }

    fn press(&mut self, keys: &str) {
        self.pty.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for the end: the exit code and the last screen, on a terminal as it was before.
    #[track_caller]
    fn end(mut self) -> (Option<i32>, String) {
        let start = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(start.elapsed());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.screen.process(&bytes),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("still there:\n{}", self.text()),
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
        // Lines are as long as the terminal allows.
        (status.code(), text.replace('\n', ""))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Nothing to do where it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Hours of training.
const LONG: &str = "--preset tiny --epochs 10000 --run-name r";

fn has_figures(screen: &vt100::Screen) -> bool {
    let text = screen.contents();
    let is_there = |name: &str| text.contains(name);
    screen.alternate_screen()
        && ["Loss", "Accuracy", "Learning Rate", "Speed", "images/s"]
            .into_iter()
            .all(is_there)
}

#[test]
fn figures_are_shown_and_the_result_stays() {
    let dir = WorkDir::new();
    let mut terminal = Terminal::start(&dir, "--preset tiny --limit-train 20000 --epochs 3");
    terminal.wait("figures", has_figures);
    terminal.wait("validation", |screen| screen.contents().contains("Valid"));
    let (code, text) = terminal.end();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(" of 3, by validation"), "{text}");
}

#[test]
fn ctrl_c_saves_and_says_how_to_go_on() {
    let dir = WorkDir::new();
    let mut terminal = Terminal::start(&dir, LONG);
    terminal.wait("figures", has_figures);
    terminal.press("\x03");
    let (code, text) = terminal.end();
    assert_eq!(code, Some(130), "{text}");
    assert!(
        text.contains("resume with: trainer --resume artifacts/runs/r"),
        "{text}"
    );
    assert!(!dir.checkpoints("r").is_empty());
}

#[test]
fn the_dashboards_own_keys_save_too() {
    for key in ["s", "k"] {
        let dir = WorkDir::new();
        let mut terminal = Terminal::start(&dir, LONG);
        terminal.wait("figures", has_figures);
        terminal.press("q");
        terminal.wait("question", |screen| screen.contents().contains("[k]"));
        terminal.press(key);
        let (code, text) = terminal.end();
        assert_eq!(code, Some(130), "{key}: {text}");
        assert!(
            text.contains("resume with: trainer --resume"),
            "{key}: {text}"
        );
        assert!(!dir.checkpoints("r").is_empty(), "{key}");
    }
}

#[test]
fn a_second_ctrl_c_does_not_wait_for_the_step() {
    let dir = WorkDir::new();
    // Its one step takes an epoch.
    let slow = "--preset three-block --batch-size 100 --accumulate 540 --run-name r";
    let mut terminal = Terminal::start(&dir, slow);
    terminal.wait("figures", has_figures);
    terminal.press("\x03");
    // The system makes one signal of two that come together.
    std::thread::sleep(Duration::from_millis(200));
    terminal.press("\x03");
    let (code, text) = terminal.end();
    assert_eq!(code, Some(130), "{text}");
    assert!(!text.contains("resume with"), "{text}");
}

#[test]
fn an_error_is_shown_when_the_dashboard_has_closed() {
    let dir = WorkDir::new();
    let arguments = "--preset dense --optimizer sgd --learning-rate 100";
    let mut terminal = Terminal::start(&dir, arguments);
    terminal.wait("dashboard", vt100::Screen::alternate_screen);
    let (code, text) = terminal.end();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("error: run artifacts/runs/dense-1"), "{text}");
    assert!(text.contains("the loss is "), "{text}");
}
