//! The load generator: clients that submit a run, wait for its end in the same request, and submit the next.
//!
//! Plain HTTP/1.1 over kept connections and nothing more, because it shares the machine's cores with what it measures.
//! Used by `durable_runs` and by `peers`, for Motet and for every other engine alike.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::wire;

/// What stands in a path or a body for a key of 16 digits that no other request of this process has.
pub const KEY: &str = "{key}";

/// How long the last answers may take after the time is over.
const PATIENCE: Duration = Duration::from_secs(60);

static NEXT_KEY: AtomicU64 = AtomicU64::new(0);

/// What every client sends, and what a good answer looks like.
#[derive(Debug, Clone)]
pub struct Work {
    /// Where to.
    pub to: SocketAddr,
    /// The path of a POST; may hold [`KEY`].
    pub path: String,
    /// The body, which is JSON; may hold [`KEY`].
    pub body: String,
    /// What the body of a good answer holds; its status is 200.
    pub good: String,
}

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

/// Keeps `clients` requests under way for `warm_up` and then for `time`; each must get a good answer. What counts is
/// answered within `time`, whenever it was asked: else slow engines would be charged for what they began before.
///
/// # Errors
/// When a request fails, or an answer is still missing a minute after the time.
pub async fn closed_loop(work: &Work, clients: usize, warm_up: Duration, time: Duration) -> Result<Reached> {
    let counted_from = Instant::now() + warm_up;
    let mut workers = JoinSet::new();
    for _ in 0..clients {
        workers.spawn(client(work.clone(), counted_from, counted_from + time));
    }
    let mut times = Histogram::<u64>::new(3)?;
    let all = async {
        while let Some(worker) = workers.join_next().await {
            times.add(worker??)?;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(warm_up + time + PATIENCE, all).await.context("answers are missing")??;
    let runs_per_second = times.len() as f64 / time.as_secs_f64();
    Ok(Reached { clients, runs_per_second, times })
}

async fn client(work: Work, counted_from: Instant, end: Instant) -> Result<Histogram<u64>> {
    let mut times = Histogram::<u64>::new(3)?;
    let mut stream = TcpStream::connect(work.to).await?;
    stream.set_nodelay(true)?;
    let mut request = Request::new(&work);
    let mut buffer = Vec::with_capacity(16 << 10);
    while Instant::now() < end {
        let begun = Instant::now();
        stream.write_all(request.next()).await?;
        let answer = wire::read(&mut stream, &mut buffer).await?.context("the server closed the connection")?;
        let (head, body) = (&buffer[answer.head], &buffer[answer.body]);
        ensure!(
            head.starts_with(b"HTTP/1.1 200") && contains(body, work.good.as_bytes()),
            "no good answer: {}{}",
            String::from_utf8_lossy(head),
            String::from_utf8_lossy(body)
        );
        if (counted_from..end).contains(&Instant::now()) {
            times.record(u64::try_from(begun.elapsed().as_micros())?)?;
        }
    }
    Ok(times)
}

/// The bytes of a request, whose keys are written in place.
struct Request {
    bytes: Vec<u8>,
    keys: Vec<usize>,
}

impl Request {
    fn new(work: &Work) -> Self {
        let zeros = format!("{:016}", 0);
        let length = work.body.replace(KEY, &zeros).len();
        let text = format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{}",
            work.path, work.to, work.body
        );
        let (mut bytes, mut keys) = (vec![], vec![]);
        for (place, part) in text.split(KEY).enumerate() {
            if place > 0 {
                keys.push(bytes.len());
                bytes.extend_from_slice(zeros.as_bytes());
            }
            bytes.extend_from_slice(part.as_bytes());
        }
        Self { bytes, keys }
    }

    fn next(&mut self) -> &[u8] {
        if !self.keys.is_empty() {
            let key = format!("{:016}", NEXT_KEY.fetch_add(1, Ordering::Relaxed));
            for &place in &self.keys {
                self.bytes[place..place + key.len()].copy_from_slice(key.as_bytes());
            }
        }
        &self.bytes
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::echo::{BODY_BYTES, Echo};

    #[test]
    fn a_request_tells_its_length_and_takes_a_fresh_key() {
        let check = |path: &str, body: &str, keys: usize| {
            let to = SocketAddr::from(([127, 0, 0, 1], 1));
            let work = Work { to, path: path.to_owned(), body: body.to_owned(), good: String::new() };
            let mut request = Request::new(&work);
            let texts = [0, 1].map(|_| String::from_utf8(request.next().to_vec()).unwrap());
            for text in &texts {
                let (head, sent) = text.split_once("\r\n\r\n").unwrap();
                assert!(head.ends_with(&format!("content-length: {}", sent.len())), "{text}");
                assert!(!text.contains(KEY), "{text}");
            }
            assert_eq!(request.keys.len(), keys, "{path} {body}");
            assert_eq!(texts.iter().collect::<BTreeSet<_>>().len(), if keys > 0 { 2 } else { 1 }, "{path} {body}");
        };
        check("/", "{}", 0);
        check("/{key}/run", "", 1);
        check("/", r#"{"id":"{key}"}"#, 1);
        check("/{key}/run", r#"{"id":"{key}","again":"{key}"}"#, 3);
    }

    #[tokio::test]
    async fn only_good_answers_count() {
        let echo = Echo::start().unwrap();
        let time = Duration::from_millis(20);
        for (good, counts) in [("x".repeat(BODY_BYTES - 2), true), ("y".to_owned(), false)] {
            let work = Work { to: echo.address(), path: "/{key}".to_owned(), body: "\"{key}\"".to_owned(), good };
            let reached = closed_loop(&work, 4, Duration::ZERO, time).await;
            assert_eq!(reached.is_ok_and(|reached| !reached.times.is_empty()), counts, "{work:?}");
        }
    }
}
