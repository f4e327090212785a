//! What holds the process of a model: layers that each hold without the others.
//!
//! Every layer is tried; which of them do not hold is told, and why. Never undone. Enter before the first thread is
//! started. Used by `lib`.

#[cfg(target_os = "linux")]
mod files;
#[cfg(target_os = "linux")]
mod kernel;
#[cfg(target_os = "linux")]
mod system_calls;

use motet_models::child::wire::{Layer, Rules};

/// Holds this process. `executes` leaves it the right to replace itself once more, and to start processes.
#[cfg(target_os = "linux")]
pub(crate) fn enter(rules: &Rules, executes: bool) -> Vec<Layer> {
    vec![
        layer("dies_with_node", kernel::die_with_parent()),
        layer("no_new_privileges", kernel::no_new_privileges()),
        layer("limits", kernel::limits(rules)),
        layer("namespaces", kernel::namespaces()),
        layer("landlock", files::hold(rules)),
        layer("seccomp", system_calls::filter(executes)),
    ]
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn enter(_: &Rules, _: bool) -> Vec<Layer> {
    let names = ["dies_with_node", "no_new_privileges", "limits", "namespaces", "landlock", "seccomp"];
    names.map(|name| layer(name, Err("this system is not Linux".to_owned()))).into()
}

fn layer(name: &str, outcome: Result<(), String>) -> Layer {
    Layer { name: name.to_owned(), missing: outcome.err() }
}
