//! `trainer devices`: what can compute, and what to do about what cannot.

use std::io::Write;

use anyhow::Result;

use crate::device::{self, Backend, Request};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: Args) -> Result<()> {
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
    match device::open(Request::Auto) {
        Ok((found, reason)) => writeln!(out, "\nauto takes {found}: {reason}")?,
        Err(error) => writeln!(out, "\nauto: {error:#}")?,
    }
    Ok(())
}
