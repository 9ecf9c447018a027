//! `trainer serve`: a page to draw on, a page of all runs, and an HTTP API.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tracing::{info, warn};

use crate::commands::flags::DeviceFlags;
use crate::inference::classifier::Classifier;
use crate::process::interruption;
use crate::process::printable::printable;
use crate::run::run_dir::{DEFAULT_ROOT, RunDir};
use crate::serve::{AccessPolicy, Server, is_public};

const EXAMPLES: &str = "\
Pages: / to draw on, /runs with live curves, /openapi.json describes the API.

  trainer serve pretrained --open
  curl --data-binary @digit.png http://127.0.0.1:8080/api/predict

Other machines can connect only with --listen and an address of this machine, which requires --token.
Browsers open http://ADDRESS/?token=TOKEN, and programs send Authorization: Bearer TOKEN.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The run that predicts: a run folder, a name in --out, `latest`, or a network in the program
    /// (`pretrained`, `pretrained-best`, `pretrained-cifar`) [default: the latest run with weights, or else pretrained]
    run: Option<String>,
    /// Address and port to listen on; port 0 selects a free port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Open the page in a browser
    #[arg(long)]
    open: bool,
    /// Secret that clients must send
    #[arg(
        long,
        value_name = "TOKEN",
        env = "TRAINER_TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
    /// Accept requests without a token from other machines
    #[arg(long, conflicts_with = "token")]
    insecure: bool,
    /// Additional host name of this server
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    #[command(flatten)]
    device: DeviceFlags,
    /// Folder of the runs
    #[arg(long, value_name = "DIR", default_value = DEFAULT_ROOT)]
    out: PathBuf,
}

pub(crate) fn run(args: Args) -> Result<()> {
    ensure!(
        !is_public(args.listen) || args.token.is_some() || args.insecure,
        "--listen {}: other machines can connect; add --token, or --insecure to accept all requests",
        args.listen
    );
    if let Some(token) = &args.token {
        ensure!(
            token.len() >= 8
                && token
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)),
            "--token: expected at least 8 characters, which may be letters, digits, - _ . ~"
        );
    }
    interruption::listen("stopping")?;
    let run = match &args.run {
        Some(run) => RunDir::open(&args.out, run)?,
        None => newest_with_weights(&args.out)?,
    };
    let (device, reason) = args.device.open()?;
    let classifier = Classifier::open(&run, device.device.clone())?;
    info!("device: {device}, {reason}");
    let classifier = classifier.with_verdicts(&run);
    let query = args.token.as_ref().map(|token| format!("?token={token}"));
    let access = AccessPolicy {
        hosts: args.host,
        token: args.token,
    };
    let name = run.name();
    let server = Server::bind(
        args.listen,
        args.out,
        (run, classifier),
        device.to_string(),
        access,
    )?;
    let address = format!("http://{}/", server.address()?);
    let page = format!("{address}{}", query.unwrap_or_default());
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} on {address}", printable(name))?;
    out.flush()?;
    drop(out);
    if args.open
        && let Err(error) = open::that_detached(page)
    {
        warn!("cannot open a browser: {error}");
    }
    server.run()
}

/// Returns the run that predicts by default.
fn newest_with_weights(root: &Path) -> Result<RunDir> {
    let mut runs = RunDir::list(root)?.into_iter();
    let run = runs.find(RunDir::has_model).context("no run has weights")?;
    info!("the newest run with weights: {}", run.path().display());
    Ok(run)
}
