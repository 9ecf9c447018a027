//! `trainer report RUN`: writes a self-contained HTML page about a run.

use std::io::Write;

use anyhow::Result;

use crate::commands::flags::RunFlags;
use crate::figures::report::page;
use crate::process::printable::printable;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    run: RunFlags,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let (run, classifier) = args.run.open()?;
    let path = run.report_path();
    run.write(&path, page(&run, &classifier)?.as_bytes())?;
    writeln!(std::io::stdout().lock(), "{}", printable(path.display()))?;
    Ok(())
}
