//! `trainer worker`: this machine's devices, for trainings on others.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;

use crate::device::{self, Request};

const USE: &str = "\
On this machine, and on the one that trains, with a copy of the token:

  trainer worker --listen 10.0.0.2:7000 --token-file worker.token
  trainer --device remote:10.0.0.2:7000,cpu --token-file worker.token

Who knows the token can use the devices; all that crosses the network is encrypted. Ports are of TCP and
UDP.";

#[derive(Debug, clap::Args)]
#[command(after_help = USE)]
pub(crate) struct Args {
    /// Address and port to listen on; port 0 takes any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7000")]
    listen: SocketAddr,
    /// File with the token; made if it is not there
    #[arg(long, value_name = "FILE", env = "TRAINER_TOKEN_FILE")]
    token_file: PathBuf,
    /// What to serve, all of one kind: auto, cpu, or what `trainer devices` lists
    #[arg(long, env = device::VARIABLE, value_name = "DEVICE,...", value_delimiter = ',', default_value = "auto")]
    device: Vec<Request>,
}

#[cfg(feature = "remote")]
pub(crate) fn run(args: Args) -> Result<()> {
    use anyhow::ensure;
    use tracing::info;

    use crate::device::OpenDevices;
    use crate::device::remote;
    use crate::process::interruption;

    let is_remote = |device: &Request| matches!(device, Request::Remote(_));
    ensure!(
        !args.device.iter().any(is_remote),
        "--device: a worker serves devices of its own machine"
    );
    let token = remote::Token::read_or_make(&args.token_file)?;
    let devices = OpenDevices::open(&args.device, None)?;
    info!("device: {devices}, {}", devices.reason);
    interruption::listen("stopping")?;
    let devices = devices.all.into_iter().map(|found| found.device);
    remote::serve(devices.collect(), args.listen, token)
}

#[cfg(not(feature = "remote"))]
pub(crate) fn run(_: Args) -> Result<()> {
    anyhow::bail!("devices of other machines are not compiled in; build with `--features remote`")
}
