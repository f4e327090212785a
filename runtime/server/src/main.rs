//! The `motet` binary: reads its arguments, does what they say, ends with an exit code that scripts can use.
//!
//! Holds no rules of its own: the process is `motet_server::bootstrap`, the commands are in `cli`. Used by people,
//! scripts and service managers.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly"))]

mod cli;
mod demo;

use std::process::ExitCode;

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    // Before anything else, so that the process of a model has no thread when it is held.
    if std::env::args_os().nth(1).is_some_and(|first| first == motet_models::child::SUBCOMMAND) {
        return motet_worker::main();
    }
    cli::main()
}
