//! `trainer devices`: what can compute, whether it computes right, and what to do about what cannot.

use std::io::Write;

use anyhow::{Context, Result, bail};
use model::Precision;
use tracing::info;

use crate::commands::flags::TokenFlags;
use crate::device::panics::catch_panic;
use crate::device::{self, Backend, OpenDevice, OpenDevices, Request, precision};
use crate::training::device_check::{DeviceCheck, STAGES};

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
        (true, devices) => check(OpenDevices::open(devices, args.token.token_file.as_deref())?.all),
    }
}

fn list() -> Result<()> {
    let mut out = std::io::stdout().lock();
    for backend in Backend::ALL {
        match device::candidates(backend) {
            Ok(candidates) => {
                for candidate in candidates {
                    match candidate.probe() {
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
fn found() -> Vec<OpenDevice> {
    let candidates = Backend::ALL
        .into_iter()
        .filter_map(|backend| device::candidates(backend).ok());
    let found = candidates.flatten().map(|candidate| candidate.probe());
    found.filter_map(Result::ok).collect()
}

/// Compares devices with the best CPU backend.
fn check(devices: Vec<OpenDevice>) -> Result<()> {
    let (reference, _) = device::open(&Request::Cpu, None)
        .context("devices are compared with a CPU: build with `--features flex`")?;
    let device_check = DeviceCheck::new(&reference)?;
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
        let precisions = catch_panic(|| precision::supported(&found));
        let precisions = precisions.unwrap_or_else(|_| vec![Precision::F32]);
        for precision in precisions {
            let name = match precision {
                Precision::F32 => found.name.clone(),
                precision => format!("{} in {precision}", found.name),
            };
            if name == reference.name {
                let part = &found.part;
                writeln!(out, "{name:14} is the reference ({part})")?;
                continue;
            }
            let verdict = match device_check.compare(&found, precision) {
                Ok(errors) => match errors.exceeded() {
                    None => format!("agrees: {errors}"),
                    Some(stage) => {
                        failed.push(name.clone());
                        format!("differs in {stage}: {errors}")
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
