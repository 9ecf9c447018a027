//! `trainer worker`: serves the devices of this machine to other machines.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Result;

use crate::device::{self, Request};

const EXAMPLES: &str = "\
On this machine, and on the machine that trains, with a copy of the token file:

  trainer worker --listen 10.0.0.2:7000 --token-file worker.token
  trainer --device remote:10.0.0.2:7000,cpu --token-file worker.token

Anyone with the token can use the devices. Connections are encrypted. The port is used for TCP and UDP.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Address and port to listen on; port 0 selects a free port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7000")]
    listen: SocketAddr,
    /// File with the token; created with a random token if it does not exist
    #[arg(long, value_name = "FILE", env = "TRAINER_TOKEN_FILE")]
    token_file: PathBuf,
    /// Devices to serve, all of one backend: auto, cpu, or names from `trainer devices`
    #[arg(long, env = device::VARIABLE, value_name = "DEVICE,...", value_delimiter = ',', default_value = "auto")]
    device: Vec<Request>,
}

#[cfg(feature = "remote")]
pub(crate) fn run(args: Args) -> Result<()> {
    use anyhow::ensure;
    use tracing::info;

    use crate::device::OpenDevices;
    use crate::device::remote::{token::Token, worker};
    use crate::process::interruption;

    let is_remote = |device: &Request| matches!(device, Request::Remote(_));
    ensure!(
        !args.device.iter().any(is_remote),
        "--device: a worker serves only devices of its own machine"
    );
    let token = Token::read_or_create(&args.token_file)?;
    let devices = OpenDevices::open(&args.device, None)?;
    info!("device: {devices}, {}", devices.reason);
    interruption::listen("stopping")?;
    let devices = devices.all.into_iter().map(|device| device.device);
    worker::serve(devices.collect(), args.listen, token)
}

#[cfg(not(feature = "remote"))]
pub(crate) fn run(_: Args) -> Result<()> {
    anyhow::bail!("remote devices are not compiled in; build with `--features remote`")
}
