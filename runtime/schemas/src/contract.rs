//! A schema registry for tests: a real server on this machine that speaks the protocol, and can be made to fail.
//!
//! Keeps what it was sent, and never shares anything between tests. Used by the tests of this room and of the actors.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "only tests use it, which may fail loudly")]

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Path and query.
    pub path: String,
    /// What the client proves itself by.
    pub authorization: Option<String>,
}

#[derive(Debug, Default)]
struct Books {
    /// `{"ids": {"1": schema}, "guids": {"..": schema}, "subjects": {"name/1": schema}}`
    schemas: Value,
    /// What every request is answered with instead: a status and a body; status 0 breaks the connection.
    fault: Option<(u16, String)>,
    requests: Vec<Request>,
}

/// The running registry; it ends when it is dropped.
#[derive(Debug)]
pub struct RegistryServer {
    url: String,
    books: Arc<Mutex<Books>>,
    serving: JoinHandle<()>,
}

impl RegistryServer {
    /// A registry that holds these schemas: `{"ids": {"1": schema}, "guids": {..}, "subjects": {"name/1": schema}}`, each
    /// one as the protocol gives it.
    pub async fn start(schemas: Value) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let books = Arc::new(Mutex::new(Books { schemas, ..Books::default() }));
        let serving = tokio::spawn({
            let books = Arc::clone(&books);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    // A client that goes away is no fault of the server.
                    tokio::spawn(serve(stream, Arc::clone(&books)));
                }
            }
        });
        Self { url, books, serving }
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Answers every request with a status and a body from now on, or breaks the connection for status 0; as it should
    /// where there is none.
    pub fn fail(&self, fault: Option<(u16, &str)>) {
        self.books.lock().unwrap().fault = fault.map(|(status, body)| (status, body.to_owned()));
    }

    /// Holds one more schema under a number.
    pub fn register(&self, id: u32, schema: Value) {
        self.books.lock().unwrap().schemas["ids"][id.to_string()] = schema;
    }

    /// What it was asked.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.books.lock().unwrap().requests.clone()
    }
}

impl Drop for RegistryServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(stream: TcpStream, books: Arc<Mutex<Books>>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let request = receive(&mut stream).await?;
        let (status, body) = {
            let mut books = books.lock().unwrap();
            let answer = books.fault.clone().unwrap_or_else(|| answer(&books.schemas, &request.path));
            books.requests.push(request);
            answer
        };
        if status == 0 {
            return None;
        }
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/vnd.schemaregistry.v1+json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.write_all(body.as_bytes()).await.ok()?;
        stream.flush().await.ok()?;
    }
}

/// One request without a body, as all of the protocol's are that only read.
async fn receive(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut authorization = None;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => authorization = Some(value.to_owned()),
            Some(_) => {}
            None => return Some(Request { path, authorization }),
        }
    }
}

fn answer(schemas: &Value, path: &str) -> (u16, String) {
    let path = path.split('?').next().unwrap_or_default();
    let parts: Vec<String> = path.split('/').skip(1).map(|part| part.replace("%2F", "/").replace("%20", " ")).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let (found, code) = match parts[..] {
        ["schemas", "ids", id] => (&schemas["ids"][id], 40_403),
        ["schemas", "guids", guid] => (&schemas["guids"][guid], 40_403),
        ["subjects", subject, "versions", version] => (&schemas["subjects"][format!("{subject}/{version}")], 40_401),
        _ => return (404, json!({"error_code": 404, "message": "HTTP 404 Not Found"}).to_string()),
    };
    match found {
        Value::Null => (404, json!({"error_code": code, "message": "not found"}).to_string()),
        found => (200, found.to_string()),
    }
}
