//! The load generator: clients that submit a run, wait for its end in the same request, and submit the next.
//!
//! Plain HTTP/1.1 over kept connections and nothing more, because it shares the machine's cores with what it measures.
//! Used by `durable_runs`.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// What a closed loop reached.
#[derive(Debug)]
pub struct Reached {
    /// Clients at one time.
    pub clients: usize,
    /// Runs per second.
    pub runs_per_second: f64,
    /// Times from submission to answer, in microseconds.
    pub times: Histogram<u64>,
}

impl Reached {
    /// A quantile of the times.
    #[must_use]
    pub fn at(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.times.value_at_quantile(quantile))
    }
}

/// Keeps `clients` requests under way for `time`; each must be answered with 200 and a succeeded run.
///
/// # Errors
/// When a request fails.
pub async fn closed_loop(to: SocketAddr, path: &str, body: &str, clients: usize, time: Duration) -> Result<Reached> {
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {to}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let begun = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..clients {
        workers.spawn(client(to, request.clone(), begun + time));
    }
    let mut times = Histogram::<u64>::new(3)?;
    while let Some(worker) = workers.join_next().await {
        times.add(worker??)?;
    }
    let runs_per_second = times.len() as f64 / begun.elapsed().as_secs_f64();
    Ok(Reached { clients, runs_per_second, times })
}

async fn client(to: SocketAddr, request: String, end: Instant) -> Result<Histogram<u64>> {
    let mut times = Histogram::<u64>::new(3)?;
    let mut stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(16 << 10);
    while Instant::now() < end {
        let begun = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        let body = answer(&mut stream, &mut buffer).await?;
        ensure!(contains(body, b"\"succeeded\""), "no succeeded run: {}", String::from_utf8_lossy(body));
        times.record(u64::try_from(begun.elapsed().as_micros())?)?;
    }
    Ok(times)
}

/// Reads one answer and gives its body.
async fn answer<'b>(stream: &mut TcpStream, buffer: &'b mut Vec<u8>) -> Result<&'b [u8]> {
    buffer.clear();
    let body_at = loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        ensure!(stream.read_buf(buffer).await? > 0, "the server closed the connection");
    };
    let head = std::str::from_utf8(&buffer[..body_at])?.to_ascii_lowercase();
    ensure!(head.starts_with("http/1.1 200"), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).context("no content-length")?;
    let end = body_at + length.trim().parse::<usize>()?;
    while buffer.len() < end {
        ensure!(stream.read_buf(buffer).await? > 0, "the server closed the connection");
    }
    Ok(&buffer[body_at..end])
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
