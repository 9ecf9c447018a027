//! `trainer devices`: what can compute, whether it computes right, and what to do about what cannot.

use std::io::Write;

use anyhow::{Context, Result, bail};
use model::Precision;
use tracing::info;

use crate::device::{self, Backend, Devices, Found, Request};
use crate::flags::TokenFlags;
use crate::panics::quietly;
use crate::parity::{Parity, STAGES};
use crate::precision;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Train for ten steps on each device, and compare each stage with the CPU's
    #[arg(long)]
    check: bool,
    /// Check these devices instead of all that are there, and fail where one is not
    #[arg(value_name = "DEVICE", requires = "check")]
    devices: Vec<Request>,
    #[command(flatten)]
    token: TokenFlags,
}

pub(crate) fn run(args: Args) -> Result<()> {
    match (args.check, args.devices.as_slice()) {
        (false, _) => list(),
        (true, []) => check(found()),
        (true, devices) => check(Devices::open(devices, args.token.token_file.as_deref())?.found),
    }
}

fn list() -> Result<()> {
    let mut out = std::io::stdout().lock();
    for backend in Backend::ALL {
        match device::candidates(backend) {
            Ok(candidates) => {
                for candidate in candidates {
                    match candidate.try_out() {
                        Ok(found) => writeln!(out, "{:9} works: {}", found.name, found.part)?,
                        Err(error) => writeln!(out, "{:9} {error:#}", backend.name())?,
                    }
                }
            }
            Err(_) if !backend.is_compiled_in() => {
                let name = backend.name();
                writeln!(
                    out,
                    "{name:9} not compiled in: build with `--features {name}`"
                )?;
            }
            Err(error) => writeln!(out, "{:9} {error:#}", backend.name())?,
        }
    }
    match device::open(&Request::Auto, None) {
        Ok((found, reason)) => writeln!(out, "\nauto takes {found}: {reason}")?,
        Err(error) => writeln!(out, "\nauto: {error:#}")?,
    }
    Ok(())
}

/// All devices that work.
fn found() -> Vec<Found> {
    let candidates = Backend::ALL
        .into_iter()
        .filter_map(|backend| device::candidates(backend).ok());
    let found = candidates.flatten().map(|candidate| candidate.try_out());
    found.filter_map(Result::ok).collect()
}

/// Compares devices with the best CPU backend.
fn check(devices: Vec<Found>) -> Result<()> {
    let (reference, _) = device::open(&Request::Cpu, None)
        .context("devices are compared with a CPU: build with `--features flex`")?;
    let parity = Parity::with(&reference)?;
    for (precision, bits) in [(Precision::F32, "32"), (Precision::F16, "16")] {
        let tolerances = STAGES.map(|stage| {
            let tolerance = stage.tolerance(precision);
            format!("{} {tolerance:.0e}", stage.name)
        });
        info!("tolerances in {bits} bits: {}", tolerances.join(", "));
    }
    let mut failed = Vec::new();
    let mut out = std::io::stdout().lock();
    for found in devices {
        // Asked before the first training, after which a device may be gone.
        let precisions = quietly(|| precision::supported(&found));
        let precisions = precisions.unwrap_or_else(|_| vec![Precision::F32]);
        for precision in precisions {
            let name = match precision {
                Precision::F32 => found.name.clone(),
                precision => format!("{} in {precision}", found.name),
            };
            if name == reference.name {
                let part = &found.part;
                writeln!(out, "{name:14} is what others are compared with ({part})")?;
                continue;
            }
            let verdict = match parity.distances(&found, precision) {
                Ok(distances) => match distances.exceeded() {
                    None => format!("agrees: {distances}"),
                    Some(stage) => {
                        failed.push(name.clone());
                        format!("differs in {stage}: {distances}")
                    }
                },
                Err(error) => {
                    failed.push(name.clone());
                    format!("failed: {error:#}")
                }
            };
            writeln!(out, "{name:14} {verdict}")?;
        }
    }
    match failed.as_slice() {
        [] => Ok(()),
        failed => bail!("not as {} computes: {}", reference.name, failed.join(", ")),
    }
}
