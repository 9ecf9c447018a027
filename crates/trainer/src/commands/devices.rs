//! `trainer devices`: lists devices, with remedies for those that do not work, and compares their
//! results with the CPU's.

use std::io::Write;

use anyhow::{Context, Result, bail};
use model::Precision;
use tracing::info;

use crate::commands::flags::TokenFlags;
use crate::device::panics::catch_panic;
use crate::device::{self, Backend, OpenDevice, OpenDevices, Request, precision};
use crate::process::printable::printable;
use crate::training::device_check::{DeviceCheck, STAGES};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Train for ten steps on each device, and compare the results of each stage with the CPU's
    #[arg(long)]
    check: bool,
    /// Devices to check instead of all working ones; fails if one of them is missing
    #[arg(value_name = "DEVICE", requires = "check")]
    devices: Vec<Request>,
    #[command(flatten)]
    token: TokenFlags,
}

pub(crate) fn run(args: Args) -> Result<()> {
    match (args.check, args.devices.as_slice()) {
        (false, _) => list(),
        (true, []) => check(working_devices()),
        (true, devices) => check(OpenDevices::open(devices, args.token.token_file.as_deref())?.all),
    }
}

fn list() -> Result<()> {
    let mut out = std::io::stdout().lock();
    for backend in Backend::ALL {
        match device::candidates(backend) {
            Ok(candidates) => {
                for candidate in candidates {
                    match candidate.open() {
                        Ok(OpenDevice { name, hardware, .. }) => {
                            writeln!(out, "{name:9} works: {}", printable(hardware))?
                        }
                        Err(error) => writeln!(out, "{:9} {:#}", backend.name(), printable(error))?,
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
            Err(error) => writeln!(out, "{:9} {:#}", backend.name(), printable(error))?,
        }
    }
    match device::open(&Request::Auto, None) {
        Ok((device, reason)) => writeln!(out, "\nauto selects {}: {reason}", printable(device))?,
        Err(error) => writeln!(out, "\nauto: {:#}", printable(error))?,
    }
    Ok(())
}

/// Opens all devices that work.
fn working_devices() -> Vec<OpenDevice> {
    let candidates = Backend::ALL
        .into_iter()
        .filter_map(|backend| device::candidates(backend).ok());
    let opened = candidates.flatten().map(|candidate| candidate.open());
    opened.filter_map(Result::ok).collect()
}

/// Compares the results of devices with those of the reference: a CPU, in 32 bits.
fn check(devices: Vec<OpenDevice>) -> Result<()> {
    let (reference, _) = device::open(&Request::Cpu, None)
        .context("the reference device is a CPU; build with `--features flex`")?;
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
    for device in devices {
        // Queried before the first training, which a remote device may not survive.
        let precisions = catch_panic(|| precision::supported(&device));
        let precisions = precisions.unwrap_or_else(|_| vec![Precision::F32]);
        for precision in precisions {
            let name = match precision {
                Precision::F32 => device.name.clone(),
                precision => format!("{} in {precision}", device.name),
            };
            if name == reference.name {
                let hardware = printable(&device.hardware);
                writeln!(out, "{name:14} is the reference ({hardware})")?;
                continue;
            }
            let result = match device_check.compare(&device, precision) {
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
            writeln!(out, "{name:14} {}", printable(result))?;
        }
    }
    match failed.as_slice() {
        [] => Ok(()),
        failed => bail!(
            "results differ from those of {}, or failed: {}",
            reference.name,
            failed.join(", ")
        ),
    }
}
