//! The command line.

use std::ffi::OsString;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand};

#[cfg(feature = "serve")]
use crate::commands::serve;
use crate::commands::{
    bench, compare, devices, ensemble, evaluate, explain, export, find_lr, import, inspect,
    predict, presets, report, summary, train, worker,
};
use crate::process::logging::Verbosity;

const EXAMPLES: &str = "\
Examples:
  trainer                                      train the default network on MNIST
  trainer --preset dropout --epochs 10         train another one, longer
  trainer --data /usr/share/datasets/fashion-mnist
  trainer presets show convnet > my.toml       every setting, to edit ...
  trainer --config my.toml                     ... and to train with
  trainer --resume latest                      go on with the last run, where it stopped
  trainer evaluate latest                      judge it again
  trainer ensemble best-1 best-2 best-3        judge several as one
  trainer predict latest digit.png             what is written on a picture
  trainer inspect latest                       draw what it learned
  trainer report latest                        all about it on a page
  trainer serve                                draw digits and follow runs in a browser
  trainer --data my-pictures                   your own: a sub-folder per class
  trainer import simple_cnn.pth                weights of PyTorch or Keras, as a run
  trainer export latest --format onnx          a run's network for other programs
  trainer find-lr --preset tiny                a learning rate to begin with
  trainer bench                                how fast this machine is

Settings that no flag names come from --config, then from the preset.";

/// Train small image classifiers: convolutional networks on MNIST and its family.
///
/// Without a command, `trainer` trains the preset `convnet` on the embedded MNIST.
#[derive(Debug, Parser)]
#[command(
    name = "trainer",
    version,
    after_help = EXAMPLES
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    train: train::Args,
    /// Say nothing but errors and the result
    #[arg(
        short,
        long,
        global = true,
        conflicts_with = "verbose",
        help_heading = "How to run"
    )]
    quiet: bool,
    /// Say more: details, and what the libraries have to say
    #[arg(short, long, global = true, help_heading = "How to run")]
    verbose: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a network and judge it on the test split (also without a command)
    Train(Box<train::Args>),
    /// Judge a run's network on the test split, from its folder alone
    Evaluate(evaluate::Args),
    /// Judge several runs' networks as one, by the mean of their probabilities
    Ensemble(ensemble::Args),
    /// Say what a run's network takes pictures for: files, folders, standard input
    Predict(predict::Args),
    /// Draw a run: filters, feature maps, predictions, mistakes, curves
    Inspect(inspect::Args),
    /// Write all about a run on one page, report.html in its folder
    Report(report::Args),
    /// Compare runs: a table, and their curves in one figure
    Compare(compare::Args),
    /// Take weights of PyTorch, Keras or Burn for a run
    Import(Box<import::Args>),
    /// Write a run's network for PyTorch, ONNX Runtime or Burn
    Export(export::Args),
    /// Walk through convolution, ReLU and max-pooling by hand
    Explain(explain::Args),
    /// A page to draw on, all runs with live curves, and an API
    #[cfg(feature = "serve")]
    Serve(serve::Args),
    /// Try learning rates from low to high, draw the loss, and suggest one
    FindLr(Box<find_lr::Args>),
    /// Print the layers of a network, their shapes and sizes
    Summary(Box<summary::Args>),
    /// List the presets, or print one as a file for --config
    Presets(presets::Args),
    /// Measure images per second, trained and predicted
    Bench(bench::Args),
    /// Serve this machine's devices to trainings on others
    Worker(worker::Args),
    /// List the devices: compiled in, found, and what to do about the others; check what they compute
    Devices(devices::Args),
}

/// What may stand before a command as well as after it.
const BEFORE_COMMANDS: [&str; 2] = ["quiet", "verbose"];

impl Cli {
    /// Reads a command line. Flags of a training go with no other command.
    ///
    /// # Errors
    /// When it is not understood, or only asks for help.
    pub(crate) fn read<T: Into<OsString> + Clone>(
        words: impl IntoIterator<Item = T>,
    ) -> Result<Self, clap::Error> {
        let mut cli = Self::command();
        let matches = cli.try_get_matches_from_mut(words)?;
        if let Some((command, _)) = matches.subcommand() {
            let is_stray = |flag: &&Arg| {
                matches.value_source(flag.get_id().as_str()) == Some(ValueSource::CommandLine)
                    && !BEFORE_COMMANDS.contains(&flag.get_id().as_str())
            };
            if let Some(stray) = cli.get_arguments().find(is_stray) {
                let message = format!(
                    "'{stray}' is no flag of the program, but of a command: put it after `{command}` if it has it"
                );
                return Err(cli.clone().error(ErrorKind::ArgumentConflict, message));
            }
        }
        Self::from_arg_matches(&matches)
    }

    /// How much shall be said.
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

    /// Does what was asked for.
    ///
    /// # Errors
    /// With a message for the user.
    pub(crate) fn run(self) -> Result<()> {
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

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_of_a_training_go_with_no_other_command() {
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

    #[test]
    fn every_command_of_the_readme_is_one() {
        let readme = include_str!("../../../README.md");
        let commands: Vec<&str> = readme
            .lines()
            .filter(|line| line.starts_with("cargo run "))
            .map(|line| line.split(['#', '>']).next().unwrap_or_default())
            .collect();
        assert!(commands.len() > 10, "{commands:?}");
        for command in commands {
            let flags = command.split_once(" -- ").map_or("", |(_, flags)| flags);
            let words = ["trainer"].into_iter().chain(flags.split_whitespace());
            if let Err(error) = Cli::read(words) {
                panic!("{command}: {error}");
            }
        }
    }
}
