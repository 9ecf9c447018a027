//! The program; see the library of the same name.

use std::process::ExitCode;

/// Tensors of a step are allocated and freed each time; the system's allocator hands large ones
/// back to the kernel and asks for them again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    trainer::run()
}
