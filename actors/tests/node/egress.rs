//! Calls to other services over real sockets: lines before hosts, what becomes of a call when its run does not want it
//! any more, and what stays the same from attempt to attempt.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use motet_engine::failure::FailureClass;
use motet_engine::run::{Phase, Run};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::world::{PATIENCE, World, apply, caller, finish, output, submit, until};

#[derive(Debug, Default)]
struct Books {
    heads: Vec<String>,
    open: usize,
    most_open: usize,
}

/// A server that answers `/hold` only while it is released, `/moody` well every third time, and all else at once.
struct Server {
    url: String,
    books: Arc<Mutex<Books>>,
    released: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (books, released) = (Arc::<Mutex<Books>>::default(), watch::Sender::new(false));
        let serving = tokio::spawn({
            let (books, released) = (Arc::clone(&books), released.clone());
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, Arc::clone(&books), released.subscribe()));
                }
            }
        });
        Self { url, books, released, serving }
    }

    fn books<T>(&self, read: impl FnOnce(&Books) -> T) -> T {
        read(&self.books.lock().unwrap())
    }

    fn open(&self) -> usize {
        self.books(|books| books.open)
    }

    /// The values of a header, request by request.
    fn all(&self, header: &str) -> Vec<String> {
        let value = |head: &String| {
            let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{header}:")));
            line.map(|line| line.split_once(':').unwrap().1.trim().to_owned()).unwrap_or_default()
        };
        self.books(|books| books.heads.iter().map(value).collect())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(mut stream: TcpStream, books: Arc<Mutex<Books>>, mut released: watch::Receiver<bool>) {
    let mut buffer = vec![];
    loop {
        while !buffer.ends_with(b"\r\n\r\n") {
            if !matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
                return;
            }
        }
        let head = String::from_utf8(std::mem::take(&mut buffer)).unwrap();
        let (is_held, is_moody) = (head.contains("/hold"), head.contains("/moody"));
        let count = {
            let mut books = books.lock().unwrap();
            books.heads.push(head);
            books.open += 1;
            books.most_open = books.most_open.max(books.open);
            books.heads.len()
        };
        let mut next = [0];
        let gone = tokio::select! {
            _ = released.wait_for(|released| *released), if is_held => false,
            // Nothing more comes before the answer: what comes is the end.
            _ = stream.peek(&mut next), if is_held => true,
            () = std::future::ready(()), if !is_held => false,
        };
        books.lock().unwrap().open -= 1;
        let status = if is_moody && !count.is_multiple_of(3) { "503 Not Now\r\nretry-after: 0" } else { "200 OK" };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok");
        if gone || stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

const GET: &str = "
kind: Workflow
name: get
steps:
  get: {call: http, timeout: '${ TIMEOUT }', with: {method: GET, url: '${ input.url }'}, retry: {max_attempts: 1}}
output: '${ steps.get.output.body }'
";

fn get(timeout: &str) -> String {
    GET.replace("'${ TIMEOUT }'", timeout)
}

fn failure(run: &Run) -> (FailureClass, String) {
    let failure = run.state().failure.clone().unwrap().failure;
    (failure.class, failure.message)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_slow_holds_up_only_its_own_line() {
    let (world, slow, other) = (World::new(), Server::start().await, Server::start().await);
    let node = world.node().await;
    apply(&node, &get("60s")).await;
    let mut runs = vec![];
    for _ in 0..10 {
        runs.push(submit(&node, "get", json!({"url": format!("{}/hold", slow.url)})).await);
    }
    until("the line to be full", async || slow.open() == 4).await;
    let quick = submit(&node, "get", json!({"url": other.url})).await;
    assert_eq!(output(&finish(&node, quick).await), json!("ok"));
    for _ in 0..5 {
        runs.push(submit(&node, "get", json!({"url": format!("{}/hold", other.url)})).await);
    }
    until("all calls that may be under way", async || slow.open() + other.open() == 6).await;
    other.released.send_replace(true);
    slow.released.send_replace(true);
    for run in runs {
        assert_eq!(output(&finish(&node, run).await), json!("ok"));
    }
    assert_eq!((slow.books(|books| books.most_open), slow.books(|books| books.heads.len())), (4, 10));
    assert!(other.books(|books| books.most_open) <= 4);
    node.stop(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_ends_with_the_run_that_made_it_and_makes_room() {
    let (world, server) = (World::new(), Server::start().await);
    let node = world.node().await;
    apply(&node, &get("60s")).await;
    let mut runs = vec![];
    for _ in 0..6 {
        runs.push(submit(&node, "get", json!({"url": format!("{}/hold", server.url)})).await);
    }
    until("the line to be full", async || server.open() == 4).await;
    for run in &runs {
        node.router().cancel(&caller(), *run, None).await.unwrap();
    }
    until("the connections to be closed", async || server.open() == 0).await;
    server.released.send_replace(true);
    let next = submit(&node, "get", json!({"url": format!("{}/hold", server.url)})).await;
    assert_eq!(output(&finish(&node, next).await), json!("ok"));
    node.stop(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_too_long_says_where_the_time_went() {
    let (world, server) = (World::new(), Server::start().await);
    let node = world.node().await;
    apply(&node, &get("300ms")).await;
    let mut runs = vec![];
    for _ in 0..5 {
        runs.push(submit(&node, "get", json!({"url": format!("{}/hold?key=hidden", server.url)})).await);
    }
    let mut words = BTreeSet::new();
    for run in runs {
        let (class, message) = failure(&finish(&node, run).await);
        assert_eq!(class, FailureClass::Timeout, "{message}");
        assert!(message.starts_with(&format!("GET {}/hold ", server.url)), "{message}");
        words.insert(message.split_once("/hold ").unwrap().1.split(';').next().unwrap().to_owned());
    }
    let expected = ["gave no answer within 300ms", "waited 300ms for its turn"];
    // The fifth gets its turn at the moment at which its time is over, or a little later.
    assert!(words.iter().all(|words| expected.contains(&words.as_str())) && words.contains(expected[0]), "{words:?}");
    node.stop(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_told_apart_by_nobody_and_items_by_everybody() {
    let (world, server) = (World::new(), Server::start().await);
    let node = world.node().await;
    let yaml = "
kind: Workflow
name: post
steps:
  pay:
    call: http
    with: {method: POST, url: '${ input.url }/moody'}
    retry: {max_attempts: 5, on: [unavailable], backoff: {initial: 1ms, max: 1ms}}
  each:
    needs: [pay]
    call: http
    for_each: '${ [1, 2, 3] }'
    with: {method: PUT, url: '${ input.url }/'}
output: '${ steps.pay.output.status }'
";
    apply(&node, yaml).await;
    let run = submit(&node, "post", json!({"url": server.url})).await;
    let ended = finish(&node, run).await;
    assert_eq!((output(&ended), ended.state().steps[0].attempts()), (json!(200), 3));
    let keys = server.all("idempotency-key");
    assert_eq!(keys[..3], std::array::from_fn::<_, 3, _>(|_| format!("{run}/pay/0")));
    let items: BTreeSet<_> = keys[3..].iter().cloned().collect();
    assert_eq!(items, (0..3).map(|item| format!("{run}/each/{item}")).collect());
    let traces = server.all("traceparent");
    let trace = format!("00-{:032x}-", caller().trace.trace_id);
    assert!(traces.iter().all(|found| found.starts_with(&trace)), "{traces:?}");
    assert_eq!(traces.iter().collect::<BTreeSet<_>>().len(), 6, "every request is a span of its own");
    node.stop(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_fails_the_step_with_the_place_of_the_mistake() {
    let world = World::new();
    let node = world.node().await;
    apply(&node, &get("5s")).await;
    for (url, class, words) in [
        (json!("nowhere"), FailureClass::Invalid, "with.url is no URL"),
        (json!(5), FailureClass::Invalid, "with.url must be a string"),
        (json!("http://169.254.169.254/"), FailureClass::Denied, "not allowed by egress.allow"),
    ] {
        let run = submit(&node, "get", json!({ "url": url })).await;
        let ended = finish(&node, run).await;
        assert_eq!(ended.phase(), Phase::Failed);
        let (found, message) = failure(&ended);
        assert!(found == class && message.contains(words), "{found} {message}");
    }
    node.stop(Duration::ZERO).await.unwrap();
}
