//! A small HTTP server on this machine that serves files with ranges, breaks off, redirects and counts.
//!
//! Used by the tests of `source`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What the server does with a path.
#[derive(Clone)]
pub(super) enum Page {
    /// Serves these bytes, from a range where one is asked for.
    Bytes(Vec<u8>),
    /// Announces all bytes and closes after so many of those asked for.
    BrokenAfter(Vec<u8>, usize),
    /// Sends the caller elsewhere.
    Redirect(String),
    /// Answers with this status and nothing else.
    Status(u16),
}

type Pages = Arc<Mutex<BTreeMap<String, Page>>>;

/// The running server.
pub(super) struct Server {
    /// `http://127.0.0.1:PORT`
    pub(super) url: String,
    pages: Pages,
    requests: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Server {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let pages = Pages::default();
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let task = tokio::spawn({
            let (pages, requests) = (Arc::clone(&pages), Arc::clone(&requests));
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    // A client that goes away is no fault of the server.
                    let _ = answer(stream, &pages, &requests).await;
                }
            }
        });
        Self { url, pages, requests, task }
    }

    pub(super) fn put(&self, path: &str, page: Page) {
        self.pages.lock().unwrap().insert(path.to_owned(), page);
    }

    /// `PATH` or `PATH from BYTE` of every request so far.
    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(stream: TcpStream, pages: &Pages, requests: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut first = String::new();
    stream.read_line(&mut first).await?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut start = None;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        if let Some(range) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
            start = range.split('-').next().and_then(|start| start.parse::<usize>().ok());
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let request = start.map_or_else(|| path.clone(), |start| format!("{path} from {start}"));
    requests.lock().unwrap().push(request);
    let page = pages.lock().unwrap().get(&path).cloned().unwrap_or(Page::Status(404));
    let (head, body) = response(page, start);
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.shutdown().await
}

fn response(page: Page, start: Option<usize>) -> (String, Vec<u8>) {
    let end = "connection: close\r\n\r\n";
    match page {
        Page::Status(status) => (format!("HTTP/1.1 {status} -\r\ncontent-length: 0\r\n{end}"), vec![]),
        Page::Redirect(to) => (format!("HTTP/1.1 302 -\r\nlocation: {to}\r\ncontent-length: 0\r\n{end}"), vec![]),
        Page::Bytes(bytes) => file(&bytes, start, usize::MAX),
        Page::BrokenAfter(bytes, count) => file(&bytes, start, count),
    }
}

fn file(bytes: &[u8], start: Option<usize>, most: usize) -> (String, Vec<u8>) {
    let all = bytes.len();
    let end = "connection: close\r\n\r\n";
    let (status, range) = match start {
        Some(start) if start >= all => {
            return (format!("HTTP/1.1 416 -\r\ncontent-range: bytes */{all}\r\ncontent-length: 0\r\n{end}"), vec![]);
        }
        Some(start) => (206, format!("content-range: bytes {start}-{}/{all}\r\n", all - 1)),
        None => (200, String::new()),
    };
    let asked = &bytes[start.unwrap_or(0)..];
    let head = format!("HTTP/1.1 {status} -\r\n{range}content-length: {}\r\n{end}", asked.len());
    (head, asked[..asked.len().min(most)].to_vec())
}
