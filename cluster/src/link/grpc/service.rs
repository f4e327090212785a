//! The accepting end of a stream: hears the hello, has it checked, and leads the stream to its seat.
//!
//! Carries no envelopes itself. Used by `listen`.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::connection::Origin;
use super::tls::Certificates;
use crate::link::carrier::{DialError, PIPE_FRAMES, Pipe};
use crate::link::node::Front;
use crate::wire::Frame;
use crate::wire::carrier_server::Carrier;

/// What a status says when the node is shutting down.
pub(super) const LEAVING: &str = "leaving";

/// The service.
pub(super) struct LinkService {
    front: Arc<Front>,
    certificates: Option<Arc<Certificates>>,
    hello_within: Duration,
}

impl LinkService {
    pub(super) fn new(front: Arc<Front>, certificates: Option<Arc<Certificates>>, hello_within: Duration) -> Self {
        Self { front, certificates, hello_within }
    }
}

fn status(error: DialError) -> Status {
    match error {
        DialError::Refused(reason) => Status::failed_precondition(reason),
        DialError::Failed(reason) => Status::resource_exhausted(reason),
        DialError::Leaving => Status::unavailable(LEAVING),
    }
}

/// Words for what ended a stream.
pub(super) fn words(status: &Status) -> String {
    if status.message().is_empty() { status.code().to_string() } else { status.message().to_owned() }
}

#[async_trait]
impl Carrier for LinkService {
    type CarryStream = BoxStream<'static, Result<Frame, Status>>;

    async fn carry(&self, request: Request<Streaming<Frame>>) -> Result<Response<Self::CarryStream>, Status> {
        let shown = request.extensions().get::<Origin>().and_then(|origin| origin.0.clone());
        let mut incoming = request.into_inner();
        let first = timeout(self.hello_within, incoming.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no hello came in time"))??;
        let theirs = first
            .and_then(|frame| frame.hello)
            .ok_or_else(|| Status::failed_precondition("the first frame must be a hello"))?;
        let prove = |node: &_| match &self.certificates {
            Some(certificates) => certificates.prove(node, shown.as_deref()),
            None => Ok(()),
        };
        let (hello, seat) = self.front.accept(&theirs, prove).map_err(status)?;
        let (out, frames) = mpsc::channel(PIPE_FRAMES);
        let first = Frame { hello: Some(hello), ..Frame::default() };
        let incoming = incoming.map(|found| found.map_err(|status| words(&status))).boxed();
        seat.take(Pipe { out, incoming });
        let answers = futures::stream::iter([first]).chain(ReceiverStream::new(frames));
        Ok(Response::new(answers.map(Ok).boxed()))
    }
}
