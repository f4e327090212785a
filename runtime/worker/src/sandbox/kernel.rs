//! Layers that are one call each: signal, privileges, limits, namespaces.
//!
//! Used by `sandbox`.

#![allow(unsafe_code, reason = "a namespace can only be left by a call that is unsafe when there are other threads")]

use std::io::Error;

use motet_models::child::wire::Rules;
use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};
use rustix::thread::{UnshareFlags, set_no_new_privs, unshare_unsafe};

/// Files that may be open at once.
const FILES: u64 = 256;

/// Longest file that it may write.
const FILE_BYTES: u64 = 256 << 20;

/// The kernel ends this process when the thread that started it ends. A node that ended before is noticed by its socket.
pub(super) fn die_with_parent() -> Result<(), String> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(told)
}

/// No program that it may start has more rights than it has.
pub(super) fn no_new_privileges() -> Result<(), String> {
    set_no_new_privs(true).map_err(told)
}

/// Bounds address space and open files, and leaves no image of its memory on disk.
pub(super) fn limits(rules: &Rules) -> Result<(), String> {
    for (resource, most) in [
        (Resource::As, rules.address_space),
        (Resource::Nofile, FILES),
        (Resource::Fsize, FILE_BYTES),
        (Resource::Core, 0),
    ] {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) }).map_err(told)?;
    }
    Ok(())
}

/// Leaves the network, the shared memory and the users of the machine.
pub(super) fn namespaces() -> Result<(), String> {
    let flags = UnshareFlags::NEWUSER | UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    // SAFETY: this process has one thread, and file descriptors stay shared with nobody.
    unsafe { unshare_unsafe(flags) }.map_err(told)
}

fn told(error: rustix::io::Errno) -> String {
    Error::from(error).to_string()
}
