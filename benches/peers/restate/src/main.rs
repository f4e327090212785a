//! The Restate side of `make bench-peers`: a workflow of three steps in sequence, each returning 128 bytes.
//!
//! A step answers in this process, or asks the HTTP server that `STEP_URL` names. `NODELAY=1` sets TCP_NODELAY on the
//! sockets to the Restate server, which the SDK leaves unset. Used by the bench `peers` alone.

use std::net::SocketAddr;

use restate_sdk::prelude::*;
use tokio::net::TcpSocket;

/// What one step returns: 128 bytes.
const OUTPUT_BYTES: usize = 128;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

struct Three {
    http: reqwest::Client,
    step_url: Option<String>,
}

#[workflow]
impl Three {
    #[handler]
    async fn run(&self, context: WorkflowContext<'_>, text: String) -> Result<String, HandlerError> {
        let mut text = text;
        for name in ["one", "two", "three"] {
            text = context.run(|| self.step(text)).name(name).await?;
        }
        Ok(text)
    }
}

impl Three {
    async fn step(&self, text: String) -> Result<String, HandlerError> {
        match &self.step_url {
            None => Ok("x".repeat(OUTPUT_BYTES)),
            Some(url) => Ok(self.http.post(url).body(text).send().await?.error_for_status()?.text().await?),
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listen: SocketAddr = std::env::var("LISTEN")?.parse()?;
    let three = Three { http: reqwest::Client::new(), step_url: std::env::var("STEP_URL").ok() };
    let server = HttpServer::new(Endpoint::builder().bind(three).build());
    if std::env::var("NODELAY").is_ok_and(|value| value == "1") {
        // Accepted sockets inherit the option of the one that listens.
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.set_nodelay(true)?;
        socket.bind(listen)?;
        server.serve(socket.listen(BACKLOG)?).await;
    } else {
        server.listen_and_serve(listen).await;
    }
    Ok(())
}
