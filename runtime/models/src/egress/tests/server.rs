//! A small HTTP server on this machine that answers by path, byte by byte as a test wants it, and keeps what it was
//! sent.
//!
//! Used by the tests of `egress`.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What the server does with a request, by its path.
pub(super) type Pages = fn(path: &str) -> Page;

pub(super) enum Page {
    /// These bytes, after which the connection is kept.
    Answer(Vec<u8>),
    /// These bytes, after which the connection is closed.
    Broken(Vec<u8>),
    /// Nothing, until the other side has had enough.
    Silence,
}

/// A whole answer with a body.
pub(super) fn page(status: &str, headers: &str, body: &[u8]) -> Page {
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n", body.len());
    Page::Answer([head.as_bytes(), body].concat())
}

/// A request as it came.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    pub(super) line: String,
    /// In the order in which they came, with names in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Seen {
    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str()).collect()
    }
}

#[derive(Debug, Default)]
struct Books {
    requests: Vec<Seen>,
    connections: usize,
}

/// The running server.
pub(super) struct Server {
    /// `http://127.0.0.1:PORT`
    pub(super) url: String,
    books: Arc<Mutex<Books>>,
    serving: JoinHandle<()>,
}

impl Server {
    pub(super) async fn start(pages: Pages) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let books = Arc::<Mutex<Books>>::default();
        let serving = tokio::spawn({
            let books = Arc::clone(&books);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    books.lock().unwrap().connections += 1;
                    // A client that goes away is no fault of the server.
                    tokio::spawn(serve(stream, pages, Arc::clone(&books)));
                }
            }
        });
        Self { url, books, serving }
    }

    pub(super) fn requests(&self) -> Vec<Seen> {
        self.books.lock().unwrap().requests.clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.books.lock().unwrap().connections
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(stream: TcpStream, pages: Pages, books: Arc<Mutex<Books>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(seen) = read(&mut stream).await? {
        let path = seen.line.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default().to_owned();
        books.lock().unwrap().requests.push(seen);
        match pages(&path) {
            Page::Answer(bytes) => stream.write_all(&bytes).await?,
            Page::Broken(bytes) => {
                stream.write_all(&bytes).await?;
                return stream.shutdown().await;
            }
            Page::Silence => return stream.read_to_end(&mut vec![]).await.map(drop),
        }
    }
    Ok(())
}

async fn read(stream: &mut BufReader<TcpStream>) -> std::io::Result<Option<Seen>> {
    let mut seen = Seen::default();
    if stream.read_line(&mut seen.line).await? == 0 {
        return Ok(None);
    }
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        seen.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = seen.all("content-length").first().map_or(0, |length| length.parse().unwrap());
    seen.body = vec![0; length];
    stream.read_exact(&mut seen.body).await?;
    Ok(Some(seen))
}
