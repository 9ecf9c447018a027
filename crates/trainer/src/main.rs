//! The binary; see the library of the same name.

use std::process::ExitCode;

/// Each step allocates and frees its tensors. The system's allocator would return large ones to the
/// kernel each time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    trainer::run()
}
