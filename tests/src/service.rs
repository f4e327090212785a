//! Another service, as steps call it: answers over real sockets, holds an answer back while a test wants it, keeps what
//! it was sent.
//!
//! Answers every request with what it says: `{"method", "path", "body"}`; below `/hold` only once it is released. Used
//! by the behaviour tests.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Method, path and version, then the headers.
    head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Seen {
    /// The value of a header by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        headers.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The method and the path.
    #[must_use]
    pub fn line(&self) -> (&str, &str) {
        let mut words = self.head.split(' ');
        (words.next().unwrap_or_default(), words.next().unwrap_or_default())
    }
}

/// A service that listens until it is dropped.
#[derive(Debug)]
pub struct Service {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    released: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Service {
    /// Listens on a free port of the loopback interface.
    ///
    /// # Errors
    /// When there is none.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (seen, released) = (Arc::<Mutex<Vec<Seen>>>::default(), watch::Sender::new(false));
        let serving = tokio::spawn({
            let (seen, released) = (Arc::clone(&seen), released.clone());
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    // A client that goes away, or is killed, is the client's affair.
                    tokio::spawn(serve(stream, Arc::clone(&seen), released.subscribe()));
                }
            }
        });
        Ok(Self { address, seen, released, serving })
    }

    /// `http://127.0.0.1:PORT`
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far.
    ///
    /// # Panics
    /// When a part of the service has panicked.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Gives the answers that were held back, and holds none back any more.
    pub fn release(&self) {
        self.released.send_replace(true);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(mut stream: TcpStream, seen: Arc<Mutex<Vec<Seen>>>, mut released: watch::Receiver<bool>) -> Result<()> {
    let mut buffer = vec![];
    while let Some(request) = read(&mut stream, &mut buffer).await? {
        seen.lock().unwrap().push(request.clone());
        let (method, path) = request.line();
        if path.starts_with("/hold") {
            released.wait_for(|released| *released).await?;
        }
        let text = String::from_utf8_lossy(&request.body);
        let body = serde_json::from_str(&text).unwrap_or(Value::from(&*text));
        let answer = json!({"method": method, "path": path, "body": body}).to_string();
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", answer.len());
        stream.write_all([head, answer].concat().as_bytes()).await?;
    }
    Ok(())
}

/// Reads one request; none when the connection was closed before one began.
async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<Option<Seen>> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8(buffer.drain(..end).collect())?;
    let mut request = Seen { head, body: vec![] };
    let length = request.header("content-length").map_or(Ok(0), str::parse::<usize>)?;
    while buffer.len() < length {
        let more = stream.read_buf(buffer).await?;
        (more > 0).then_some(()).context("the connection was closed within a body")?;
    }
    request.body = buffer.drain(..length).collect();
    Ok(Some(request))
}
