//! Helpers of the tests: processes of the binary, working directories, and a small data set.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{env, io, thread};

#[cfg(unix)]
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The exit code and the output of a process.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    /// Runs a command and waits for its exit.
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Asserts exit code 0.
    #[track_caller]
    pub(crate) fn success(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// Asserts exit code 1, and returns the lines of standard error.
    #[track_caller]
    pub(crate) fn error_lines(self) -> Vec<String> {
        assert_eq!(self.code, Some(1), "{self:#?}");
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self.stderr.lines().map(String::from).collect()
    }

    /// Returns the exit code and the lines of standard output.
    pub(crate) fn code_and_lines(self) -> (Option<i32>, Vec<String>) {
        (self.code, self.stdout.lines().map(String::from).collect())
    }

    /// Asserts that the process failed with one error message and no results, and returns the message.
    #[track_caller]
    pub(crate) fn error(self) -> String {
        assert!(matches!(self.code, Some(1 | 2)), "{self:#?}");
        assert_eq!(self.stdout, "", "results despite an error");
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        let message = self.stderr.strip_prefix("error: ");
        let message = message.unwrap_or_else(|| panic!("{}", self.stderr));
        message.trim_end().into()
    }
}

/// A temporary working directory of the binary.
pub(crate) struct WorkDir {
    folder: TempDir,
}

impl WorkDir {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Copies the pretrained network to `artifacts/runs/shipped`, and returns the name of the run.
    pub(crate) fn shipped(&self) -> &'static str {
        let run = self.path("artifacts/runs/shipped");
        fs::create_dir_all(&run).unwrap();
        for file in [
            "config.toml",
            "model.safetensors",
            "metrics.jsonl",
            "evaluation.json",
            "images.json",
        ] {
            fs::copy(project("artifacts/pretrained").join(file), run.join(file)).unwrap();
        }
        "shipped"
    }

    /// Returns the command `trainer` with these arguments, separated by spaces.
    pub(crate) fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainer"));
        command
            .args(arguments.split_whitespace())
            .current_dir(self.folder.path());
        command
    }

    /// Runs `trainer` with these arguments, separated by spaces.
    pub(crate) fn trainer(&self, arguments: &str) -> Output {
        Output::of(&mut self.command(arguments))
    }

    /// Reads a file of a run.
    #[track_caller]
    pub(crate) fn run_file(&self, run: &str, file: &str) -> Vec<u8> {
        let path = self.path("artifacts/runs").join(run).join(file);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Reads a text file of a run.
    #[track_caller]
    pub(crate) fn run_text(&self, run: &str, file: &str) -> String {
        String::from_utf8(self.run_file(run, file)).unwrap()
    }

    /// Returns the paths of the checkpoints of a run, oldest first.
    pub(crate) fn checkpoints(&self, run: &str) -> Vec<PathBuf> {
        let folder = self.path("artifacts/runs").join(run).join("checkpoint");
        let entries = fs::read_dir(folder).into_iter().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    }

    /// Whether there is a run folder.
    pub(crate) fn has_runs(&self) -> bool {
        fs::read_dir(self.path("artifacts/runs")).is_ok_and(|mut runs| runs.next().is_some())
    }

    /// Writes the folder `data`: 60 training and 30 test images of 8x8 pixels in three classes. Images of
    /// class c have c white rows.
    pub(crate) fn images(&self) -> Images {
        let folder = self.path("data");
        fs::create_dir(&folder).unwrap();
        let images = Images { folder };
        for (prefix, count) in [("train", 60u8), ("t10k", 30)] {
            let labels: Vec<u8> = (0..count).map(|i| i % 3).collect();
            let pixels: Vec<u8> = labels
                .iter()
                .flat_map(|&label| (0..64).map(move |at| if at / 8 < label { 255 } else { 0 }))
                .collect();
            let count = u32::from(count);
            images.write(
                &format!("{prefix}-images-idx3-ubyte"),
                &idx(0x803, &[count, 8, 8], &pixels),
            );
            images.write(
                &format!("{prefix}-labels-idx1-ubyte"),
                &idx(0x801, &[count], &labels),
            );
        }
        images
    }
}

/// A running process of the binary. It is killed when dropped.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(dir: &WorkDir, arguments: &str) -> Self {
        Self::of(&mut dir.command(arguments))
    }

    /// Starts a command, and captures its output.
    pub(crate) fn of(command: &mut Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    /// Waits until `condition` holds. Panics if the process exits first, or after a minute.
    #[track_caller]
    pub(crate) fn wait_until(&mut self, event: &str, condition: impl Fn() -> bool) {
        let start = Instant::now();
        while !condition() {
            let status = self.0.try_wait().unwrap();
            assert!(status.is_none(), "exited before {event}");
            assert!(start.elapsed() < Duration::from_secs(60), "no {event}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.0.id()
    }

    #[cfg(unix)]
    pub(crate) fn signal(&self, signal: Signal) {
        send_signal(&self.0, signal);
    }

    /// Reads the first line of standard output.
    #[cfg(feature = "remote")]
    pub(crate) fn first_line(&mut self) -> String {
        use std::io::{BufRead, BufReader};

        let mut line = String::new();
        let stdout = self.0.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        line.trim_end().into()
    }

    /// Waits for the exit, and returns the status and standard error.
    pub(crate) fn wait_for_exit(mut self) -> (ExitStatus, String) {
        let mut text = String::new();
        let mut stderr = self.0.stderr.take().unwrap();
        stderr.read_to_string(&mut text).unwrap();
        (self.0.wait().unwrap(), text)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Killing a process that has exited fails, which does not matter.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal to a process.
#[cfg(unix)]
pub(crate) fn send_signal(process: &Child, signal: Signal) {
    kill_process(Pid::from_child(process), signal).unwrap();
}

/// Reports that the current test does not run because a program is missing, and how to install it.
/// Panics where the environment variable `CI` is set.
#[cfg(unix)]
pub(crate) fn skip_test(reason: &str, install: &str) {
    let test = thread::current();
    let test = test.name().unwrap_or_default();
    let message = format!("test {test} did not run: {reason}; install it with: {install}\n");
    assert!(env::var_os("CI").is_none(), "{message}");
    // Passing tests show what is written to standard error itself, but not what `eprint!` writes.
    io::stderr().write_all(message.as_bytes()).unwrap();
}

/// Returns the path of a file in the repository.
pub(crate) fn project(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(path)
}

/// A folder with the four IDX files of a data set.
pub(crate) struct Images {
    folder: PathBuf,
}

impl Images {
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.file(name), bytes).unwrap();
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Encodes an IDX file.
pub(crate) fn idx(magic: u32, sizes: &[u32], elements: &[u8]) -> Vec<u8> {
    let words = [magic].into_iter().chain(sizes.iter().copied());
    let header = words.flat_map(u32::to_be_bytes);
    header.chain(elements.iter().copied()).collect()
}
