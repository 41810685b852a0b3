//! The command `fthost` with longer tables, as a later minor would have them: for tests alone, which run plugins of 1.0 in it.

mod cli;

use std::process::ExitCode;
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main(Instant::now())
}
