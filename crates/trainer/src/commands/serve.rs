//! `trainer serve`: a page to draw on, all runs, and an API.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use tracing::{info, warn};

use crate::commands::flags::DeviceFlags;
use crate::inference::classifier::Classifier;
use crate::process::interruption;
use crate::run::run_dir::{DEFAULT_ROOT, RunDir};
use crate::serve::{Guard, Server, is_public};

const PAGES: &str = "\
Pages: / to draw on, /runs with live curves, /openapi.json for the API.

  trainer serve pretrained --open
  curl --data-binary @digit.png http://127.0.0.1:8080/api/predict

Others can reach it only with --listen on an address of this machine, and then need --token, which
browsers take as http://ADDRESS/?token=TOKEN and programs send as Authorization: Bearer TOKEN.";

#[derive(Debug, clap::Args)]
#[command(after_help = PAGES)]
pub(crate) struct Args {
    /// Whose network is asked: a run's folder, its name in --out, `latest`, `pretrained`, or
    /// `pretrained-best` [default: the latest with weights, or else pretrained]
    run: Option<String>,
    /// Address and port to listen on; port 0 takes any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Open the page in a browser
    #[arg(long)]
    open: bool,
    /// What clients must know
    #[arg(
        long,
        value_name = "TOKEN",
        env = "TRAINER_TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
    /// Let everybody in who can reach the address
    #[arg(long, conflicts_with = "token")]
    insecure: bool,
    /// Another name of this machine that browsers use
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
        "--listen {}: others can reach it; add --token, or --insecure to let everybody in",
        args.listen
    );
    if let Some(token) = &args.token {
        ensure!(
            token.len() >= 8
                && token
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte)),
            "--token: expected 8 or more letters, digits, or - _ . ~"
        );
    }
    interruption::listen("stopping")?;
    let run = match &args.run {
        Some(run) => RunDir::open(&args.out, run)?,
        None => RunDir::list(&args.out)?
            .into_iter()
            .find(RunDir::has_model)
            .context("no run with weights")?,
    };
    let (found, reason) = args.device.open()?;
    let classifier = Classifier::open(&run, found.device.clone())?;
    info!("device: {found}, {reason}");
    let query = args.token.as_ref().map(|token| format!("?token={token}"));
    let guard = Guard {
        hosts: args.host,
        token: args.token,
    };
    let name = run.name();
    let server = Server::bind(
        args.listen,
        args.out,
        (run, classifier),
        found.to_string(),
        guard,
    )?;
    let address = format!("http://{}/", server.address()?);
    let page = format!("{address}{}", query.unwrap_or_default());
    let mut out = std::io::stdout().lock();
    writeln!(out, "{name} on {address}")?;
    out.flush()?;
    drop(out);
    if args.open
        && let Err(error) = open::that_detached(page)
    {
        warn!("no browser: {error}");
    }
    server.run()
}
