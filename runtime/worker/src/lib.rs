//! The process of one model: what holds it, the engine that it runs, and its side of the talk with its node.
//!
//! Never talks to anything but its node, and ends when that is gone. Has no threads before it is held. Used by the
//! binary `motet`, which becomes such a process when it is told to.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly"))]

mod python;
mod sandbox;
mod serve;
mod tensorflow;

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use motet_engine::failure::{Failure, FailureClass};
use motet_models::child::wire::{self, Command, Engine, Layer, Ready, Report, Start};

/// Ends well when the node closes the socket.
#[must_use]
pub fn main() -> ExitCode {
    match live() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn live() -> std::io::Result<()> {
    let socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let Some((Command::Start(start), _)) = wire::read::<Command>(&socket)? else {
        return Err(std::io::Error::other("the process of a model is started by a node, not by hand"));
    };
    let layers = sandbox::enter(&start.rules, matches!(start.engine, Engine::Python { .. }));
    match begin(&start, layers) {
        Ok((model, ready)) => {
            wire::write(&socket, &Report::Ready(ready), &[])?;
            serve::serve(&socket, &model)
        }
        Err(failure) => wire::write(&socket, &Report::Refused(failure.into()), &[]),
    }
}

fn begin(start: &Start, layers: Vec<Layer>) -> Result<(tensorflow::SavedModel, Ready), Failure> {
    if let Some(Layer { name, missing: Some(why) }) = layers.iter().find(|layer| layer.missing.is_some())
        && start.rules.required
    {
        let words = format!("isolation is required, and this machine does not give {name}: {why}");
        return Err(Failure::new(FailureClass::Unavailable, words));
    }
    match &start.engine {
        Engine::Tensorflow { library, folder, signature, threads } => {
            let model = tensorflow::SavedModel::load(library, folder, signature.as_deref(), *threads)?;
            let (inputs, outputs) = model.declared();
            let ready = Ready { inputs, outputs, facts: model.facts(), isolation: layers };
            Ok((model, ready))
        }
        Engine::Python { interpreter, script, settings, threads, scratch } => {
            Err(python::turn_into(interpreter, script, settings, *threads, scratch, &layers))
        }
    }
}
