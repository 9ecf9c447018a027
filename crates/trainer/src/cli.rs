//! The command line.

use std::env;
use std::ffi::OsString;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand};

#[cfg(feature = "serve")]
use crate::commands::serve;
use crate::commands::{
    bench, compare, data, devices, ensemble, evaluate, explain, export, find_lr, import, inspect,
    predict, presets, report, summary, train, worker,
};
use crate::process::logging::Verbosity;
use crate::process::printable::printable;
use crate::process::thread_pool;

/// The layout of clap without the empty line above the usage, so that `-h` fits a screen.
const TEMPLATE: &str = "{about-with-newline}{usage-heading} {usage}\n\n{all-args}{after-help}";

const MORE: &str = "`trainer --help` lists all settings, with examples.";

const EXAMPLES: &str = "\
Examples:
  trainer                                  train the preset convnet on MNIST
  trainer --preset dropout --epochs 10     train another preset for 10 epochs
  trainer presets show convnet > my.toml   write all settings to a file
  trainer --config my.toml                 train with the settings of a file
  trainer --data my-pictures               train on pictures, one sub-folder per class
  trainer --resume latest                  resume the last run from its last checkpoint
  trainer evaluate latest                  evaluate the last run on its test split
  trainer predict latest digit.png         classify a picture
  trainer serve                            draw digits and follow runs in a browser

docs/commands.md has more. A run takes each setting from the first of these that has it: the flags, --config,
the preset, the defaults. Defaults above are those of the preset convnet.";

/// Train small image classifiers: convolutional networks on MNIST and similar data sets
#[derive(Debug, Parser)]
#[command(
    name = "trainer",
    version,
    help_template = TEMPLATE,
    after_help = MORE,
    after_long_help = EXAMPLES
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    train: train::Args,
    /// Print only errors and the result
    #[arg(
        short,
        long,
        global = true,
        conflicts_with = "verbose",
        hide_short_help = true,
        help_heading = "Run"
    )]
    quiet: bool,
    /// Log details, including messages of the libraries
    #[arg(
        short,
        long,
        global = true,
        hide_short_help = true,
        help_heading = "Run"
    )]
    verbose: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a network and evaluate it on the test split (the default command)
    Train(Box<train::Args>),
    /// Evaluate a run's network on the test split
    Evaluate(evaluate::Args),
    /// Evaluate several runs' networks as one, by the mean of their probabilities
    Ensemble(ensemble::Args),
    /// Classify pictures: files, folders or standard input
    Predict(predict::Args),
    /// Draw a run's filters, feature maps, predictions, mistakes and curves
    Inspect(inspect::Args),
    /// Write report.html: a run's settings, results and figures on one page
    Report(report::Args),
    /// Compare runs in a table and draw their curves in one figure
    Compare(compare::Args),
    /// Create a run from a network of PyTorch, Keras, ONNX or Burn
    Import(Box<import::Args>),
    /// Write a run's network in a format of PyTorch, ONNX or Burn
    Export(export::Args),
    /// Explain convolution, ReLU and max-pooling with numbers, step by step
    Explain(explain::Args),
    /// Serve web pages, to draw digits and follow runs, and an HTTP API
    #[cfg(feature = "serve")]
    Serve(serve::Args),
    /// Run a learning-rate range test, draw the loss and suggest a learning rate
    FindLr(Box<find_lr::Args>),
    /// Report what is in a data set: classes, sizes, copies, probable label errors
    Data(Box<data::Args>),
    /// Print a network's layers, output shapes and parameters
    Summary(Box<summary::Args>),
    /// List the presets, or print the settings of one as a file for --config
    Presets(presets::Args),
    /// Measure images per second in training and inference
    Bench(bench::Args),
    /// Serve this machine's devices to trainings on other machines
    Worker(worker::Args),
    /// List the devices, or compare their results with those of the CPU
    Devices(devices::Args),
}

/// Ids of the flags that may stand in front of a command.
const GLOBAL_FLAGS: [&str; 2] = ["quiet", "verbose"];

impl Cli {
    /// Parses the command line of this process. Prints the error, the help or the version and exits, if it asks
    /// for one of them.
    pub(crate) fn of_this_process() -> Self {
        Self::read(env::args_os()).unwrap_or_else(|error| {
            // Errors repeat the arguments.
            let escaped = env::args_os().map(|argument| printable(argument.display()).to_string());
            Self::read(escaped).err().unwrap_or(error).exit()
        })
    }

    /// Parses a command line. Flags of `trainer train` in front of another command are an error.
    ///
    /// # Errors
    /// Returns an error if the command line is not valid, and for `--help` and `--version`.
    pub(crate) fn read<T: Into<OsString> + Clone>(
        words: impl IntoIterator<Item = T>,
    ) -> Result<Self, clap::Error> {
        let mut cli = Self::command();
        let matches = cli.try_get_matches_from_mut(words)?;
        if let Some((command, _)) = matches.subcommand() {
            let is_stray = |flag: &&Arg| {
                matches.value_source(flag.get_id().as_str()) == Some(ValueSource::CommandLine)
                    && !GLOBAL_FLAGS.contains(&flag.get_id().as_str())
            };
            if let Some(stray) = cli.get_arguments().find(is_stray) {
                let message = format!(
                    "'{stray}' is a flag of `trainer train`: put flags of `{command}` after the command"
                );
                return Err(cli.clone().error(ErrorKind::ArgumentConflict, message));
            }
        }
        Self::from_arg_matches(&matches)
    }

    /// Returns the verbosity of the log on the terminal.
    pub(crate) fn verbosity(&self) -> Verbosity {
        let train = match &self.command {
            None => Some(&self.train),
            Some(Command::Train(args)) => Some(&**args),
            Some(_) => None,
        };
        if self.quiet || train.is_some_and(train::Args::is_silent) {
            Verbosity::Quiet
        } else if self.verbose {
            Verbosity::Verbose
        } else {
            Verbosity::Normal
        }
    }

    /// Returns whether the command computes on the main thread. Others print tables, or compute on threads for requests.
    fn computes_on_main_thread(&self) -> bool {
        match self.command {
            #[cfg(feature = "serve")]
            Some(Command::Serve(_)) => false,
            Some(
                Command::Worker(_)
                | Command::Compare(_)
                | Command::Export(_)
                | Command::Summary(_)
                | Command::Presets(_),
            ) => false,
            _ => true,
        }
    }

    /// Whether the command waits for requests, after which memory should return to the system soon.
    fn serves(&self) -> bool {
        #[cfg(feature = "serve")]
        return matches!(self.command, Some(Command::Serve(_)));
        #[cfg(not(feature = "serve"))]
        false
    }

    /// Runs the command.
    ///
    /// # Errors
    /// Returns the command's error.
    pub(crate) fn run(self) -> Result<()> {
        if !self.serves() {
            kernels::keep_freed_memory();
        }
        if self.computes_on_main_thread() {
            thread_pool::start();
        }
        match self.command {
            None => train::run(self.train, self.quiet),
            Some(Command::Train(args)) => train::run(*args, self.quiet),
            Some(Command::Evaluate(args)) => evaluate::run(args),
            Some(Command::Ensemble(args)) => ensemble::run(args),
            Some(Command::Predict(args)) => predict::run(args),
            Some(Command::Inspect(args)) => inspect::run(args),
            Some(Command::Report(args)) => report::run(args),
            Some(Command::Compare(args)) => compare::run(args),
            Some(Command::Import(args)) => import::run(*args),
            Some(Command::Export(args)) => export::run(args),
            Some(Command::Explain(args)) => explain::run(args),
            #[cfg(feature = "serve")]
            Some(Command::Serve(args)) => serve::run(args),
            Some(Command::FindLr(args)) => find_lr::run(*args),
            Some(Command::Data(args)) => data::run(*args),
            Some(Command::Summary(args)) => summary::run(*args),
            Some(Command::Presets(args)) => presets::run(args),
            Some(Command::Bench(args)) => bench::run(args),
            Some(Command::Worker(args)) => worker::run(args),
            Some(Command::Devices(args)) => devices::run(args),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema::SETTINGS;

    #[test]
    fn arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn short_help_fits_a_screen() {
        let help = Cli::command().term_width(100).render_help().to_string();
        assert!(help.lines().count() <= 40, "{help}");
        assert!(help.contains("--preset <NAME>") && help.contains("trainer --help"));
    }

    #[test]
    fn long_help_has_every_setting_with_range_and_default() {
        let mut command = Cli::command().term_width(0);
        let help = command.render_long_help().to_string();
        for setting in SETTINGS {
            let Some(flag) = setting.flag else { continue };
            let name = format!("--{}", flag.name);
            // An optional value follows in brackets.
            let word =
                |line: &str| line.split([' ', '[']).find(|word| !word.is_empty()) == Some(&name);
            let is_other = |line: &&str| !word(line);
            let line = help.lines().skip_while(is_other).nth(1);
            let default = setting.default_text();
            let default = default.map(|default| format!(" [default: {default}]"));
            let expected = setting.summary() + &default.unwrap_or_default();
            assert_eq!(line.map(str::trim), Some(expected.as_str()), "{name}");
        }
        for heading in ["Run", "Data", "Network", "Training", "Augmentation"] {
            assert!(help.contains(&format!("\n{heading}:\n")), "{help}");
        }
    }

    #[test]
    fn training_flags_in_front_of_another_command_are_an_error() {
        let read = |line: &str| Cli::read(line.split_whitespace());
        for line in [
            "trainer -q devices",
            "trainer --verbose evaluate latest",
            "trainer devices -q",
            "trainer -q train --epochs 3",
            "trainer -q --epochs 3",
        ] {
            assert!(read(line).is_ok(), "{line}");
        }
        let is_quiet = |line: &str| read(line).unwrap().verbosity() == Verbosity::Quiet;
        assert!(is_quiet("trainer -q devices") && is_quiet("trainer devices -q"));
        for line in [
            "trainer --epochs 3 devices",
            "trainer --flip evaluate latest",
        ] {
            let error = read(line).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ArgumentConflict, "{error}");
        }
    }

    /// Parses each command of a text up to its comment, pipe or redirection, and returns their number.
    fn parse_commands(text: &str) -> usize {
        // Only a build with the feature `remote` accepts the devices of workers.
        let is_valid = |line: &&str| cfg!(feature = "remote") || !line.contains(" remote:");
        let commands = text.lines().filter(is_valid).filter_map(|line| {
            let line = line.split(['#', '>', '|']).next().unwrap_or_default();
            let flags = match line.strip_prefix("cargo run ") {
                Some(cargo) => cargo.split_once(" -- ").map_or("", |(_, flags)| flags),
                None => line.strip_prefix("trainer ")?,
            };
            Some((line, flags))
        });
        let parse = |(line, flags): (&str, &str)| {
            let words = ["trainer"].into_iter().chain(flags.split_whitespace());
            if let Err(error) = Cli::read(words) {
                panic!("{line}: {error}");
            }
        };
        commands.map(parse).count()
    }

    #[test]
    fn documented_commands_are_valid() {
        assert!(parse_commands(include_str!("../../../README.md")) > 3);
        assert!(parse_commands(include_str!("../../../docs/commands.md")) > 30);
        assert!(parse_commands(include_str!("../../../docs/embedding.md")) > 2);
    }
}
