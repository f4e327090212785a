//! The other process: this bench again, asked to serve every way at once.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server as TonicServer;
use tonic::{Request, Response, Status, Streaming};

use self::bare::Message;
use self::bare::bare_server::{Bare, BareServer};
use crate::{ours, tcp};

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated from proto/bare.proto"
)]
pub(crate) mod bare {
    tonic::include_proto!("motet.bench.v1");
}

/// One-way messages of the bare ways that are acknowledged together.
pub(crate) const ACKNOWLEDGED_EACH: usize = 512;

const ASKED: &str = "MOTET_BENCH_LINK_SERVER";

/// Whether this process is the other one.
pub(crate) fn is_asked_for() -> bool {
    std::env::var_os(ASKED).is_some()
}

/// The other process; ends with its value.
pub(crate) struct Server {
    child: Child,
    pub(crate) link: SocketAddr,
    pub(crate) tonic: SocketAddr,
    pub(crate) tcp: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    pub(crate) fn start() -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .env(ASKED, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let mut address = || -> Result<SocketAddr> { Ok(lines.next().context("the server ended")??.parse()?) };
        Ok(Self { link: address()?, tonic: address()?, tcp: address()?, child })
    }
}

/// Serves until standard input ends.
pub(crate) async fn serve() -> Result<()> {
    let link = ours::serve().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}\n{}\n{}", link.address().context("no address")?, listener.local_addr()?, tcp::serve().await?);
    let connections = TcpListenerStream::new(listener).map(|stream| {
        stream.and_then(|stream| {
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    });
    tokio::spawn(
        TonicServer::builder()
            .initial_stream_window_size(2 << 20)
            .initial_connection_window_size(4 << 20)
            .serve_with_incoming(BareServer::new(Echo), connections),
    );
    tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0])).await??;
    Ok(())
}

struct Echo;

#[async_trait]
impl Bare for Echo {
    type StreamStream = ReceiverStream<Result<Message, Status>>;

    async fn stream(&self, request: Request<Streaming<Message>>) -> Result<Response<Self::StreamStream>, Status> {
        let mut incoming = request.into_inner();
        let (out, answers) = mpsc::channel(1_024);
        tokio::spawn(async move {
            let mut taken = 0_usize;
            while let Ok(Some(message)) = incoming.message().await {
                taken += usize::from(message.one_way);
                let answer = if !message.one_way {
                    message
                } else if taken.is_multiple_of(ACKNOWLEDGED_EACH) {
                    Message { payload: Bytes::new(), ..message }
                } else {
                    continue;
                };
                if out.send(Ok(answer)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn unary(&self, request: Request<Message>) -> Result<Response<Message>, Status> {
        Ok(Response::new(request.into_inner()))
    }
}
