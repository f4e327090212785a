//! Answers one batch after the other, as long as the node asks.
//!
//! Never holds a batch back. Used by `lib`.

use std::os::unix::net::UnixStream;

use motet_engine::failure::{Failure, FailureClass};
use motet_models::child::wire::{self, Command, Report};

use crate::tensorflow::SavedModel;

pub(crate) fn serve(socket: &UnixStream, model: &SavedModel) -> std::io::Result<()> {
    while let Some((command, payload)) = wire::read::<Command>(socket)? {
        let Command::Infer { id, rows, inputs } = command else {
            return Err(std::io::Error::other("a model that runs cannot be started"));
        };
        let computed = wire::unpack(inputs, payload).and_then(|inputs| model.run(&inputs, rows));
        let answered = computed.and_then(|outputs| {
            let bytes: u64 = outputs.values().map(|output| output.data().len() as u64).sum();
            if bytes > wire::MAX_PAYLOAD {
                let words = format!("the outputs have {bytes} bytes, which is more than a frame may hold");
                return Err(Failure::new(FailureClass::Invalid, words));
            }
            Ok(wire::pack(&outputs))
        });
        match answered {
            Ok((outputs, payload)) => wire::write(socket, &Report::Done { id, outputs }, &payload)?,
            Err(failure) => wire::write(socket, &Report::Failed { id, refusal: failure.into() }, &[])?,
        }
    }
    Ok(())
}
