//! Requests and answers over real sockets: what is sent, what an answer comes to, every class of failure.

mod server;

use std::time::{Duration, Instant};

use motet_engine::failure::{Failure, FailureClass};
use motet_engine::tensor::Tensor;
use motet_engine::trace::TraceContext;
use motet_engine::value::{Map, Value};
use serde_json::json;

use super::*;
use server::{Page, Server, page};

const LIMIT: u64 = 64 << 10;
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn terms(timeout: Duration) -> Terms<'static> {
    Terms { key: Some("run_x/step/0"), trace: TraceContext::parse(TRACE).unwrap(), timeout }
}

fn request(with: impl Into<Value>) -> Result<HttpRequest, Failure> {
    HttpRequest::read(&with.into(), terms(Duration::from_secs(20)))
}

fn caller(allow: &str) -> ReqwestCaller {
    ReqwestCaller::new(allow.parse().unwrap(), LIMIT)
}

async fn ask(caller: &ReqwestCaller, with: impl Into<Value>) -> Result<Value, Failure> {
    let request = request(with)?;
    let deadline = Instant::now() + request.timeout();
    caller.call(request, deadline).await
}

fn pages(path: &str) -> Page {
    const JSON: &str = "content-type: application/json\r\n";
    match path {
        "/json" => page(
            "200 OK",
            &format!("{JSON}x-a: 1\r\nX-A: 2\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n"),
            b"[1, {\"a\": null}]",
        ),
        "/text" => page("201 Created", "content-type: text/plain\r\n", "grüß".as_bytes()),
        "/bytes" => page("200 OK", "content-type: image/png\r\n", b"\x89PNG\r\n"),
        "/empty" => Page::Answer(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()),
        "/chunked" => Page::Answer(
            [
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: application/json\r\n\r\n".as_slice(),
                b"2\r\n[1\r\n3\r\n,2]\r\n0\r\n\r\n",
            ]
            .concat(),
        ),
        "/moved" => page("302 Found", "location: http://127.0.0.1:1/\r\n", b""),
        "/head" => Page::Answer(
            b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\ncontent-type: application/json\r\n\r\n".to_vec(),
        ),
        "/largest" => page("200 OK", "", &vec![b'x'; LIMIT as usize]),
        "/large" => page("200 OK", "", &vec![b'x'; LIMIT as usize + 1]),
        "/large-chunks" => {
            let mut bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
            for _ in 0..=LIMIT / 4096 {
                bytes.extend_from_slice(&[b"1000\r\n", [b'x'; 4096].as_slice(), b"\r\n"].concat());
            }
            Page::Answer([bytes.as_slice(), b"0\r\n\r\n"].concat())
        }
        "/no-json" => page("200 OK", JSON, b"<html>"),
        "/400" => page("400 Bad Request", "", b"field 'a' is missing"),
        "/401" => page("401 Unauthorized", "", b""),
        "/403" => page("403 Forbidden", "", b""),
        "/404" => page("404 Not Found", "", &vec![b'x'; 2000]),
        "/408" => page("408 Request Timeout", "", b""),
        "/409" => page("409 Conflict", "", b"\x00\x1b[2J busy"),
        "/410" => page("410 Gone", "", b""),
        "/429" => page("429 Too Many Requests", "retry-after: 7\r\n", b"slow down"),
        "/500" => page("500 Internal Server Error", "", b"oops"),
        "/503" => page("503 Service Unavailable", "retry-after: 1\r\n", b""),
        "/silence" => Page::Silence,
        "/cut" => Page::Broken(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf of".to_vec()),
        "/closed" => Page::Broken(vec![]),
        "/nonsense" => Page::Broken(b"SSH-2.0-OpenSSH\r\n\r\n".to_vec()),
        _ => page("200 OK", "", b""),
    }
}

#[tokio::test]
async fn answers_become_outputs() {
    let (server, caller) = (Server::start(pages).await, caller("*"));
    let text = "x".repeat(LIMIT as usize);
    for (method, path, status, body) in [
        ("GET", "/json", 200, Value::from(json!([1, {"a": null}]))),
        ("GET", "/text", 201, "grüß".into()),
        (
            "GET",
            "/bytes",
            200,
            Value::Tensor(
                Tensor::new(motet_engine::tensor::Datatype::Uint8, vec![6], bytes::Bytes::from_static(b"\x89PNG\r\n"))
                    .unwrap(),
            ),
        ),
        ("DELETE", "/empty", 204, Value::Null),
        ("GET", "/chunked", 200, json!([1, 2]).into()),
        ("POST", "/moved", 302, Value::Null),
        ("HEAD", "/head", 200, Value::Null),
        ("GET", "/largest", 200, text.into()),
    ] {
        let output = ask(&caller, json!({"method": method, "url": format!("{}{path}", server.url)})).await.unwrap();
        assert_eq!(output.get("status"), Some(&Value::Int(status)), "{path}");
        assert_eq!(output.get("body"), Some(&body), "{path}");
        let headers = output.get("headers").unwrap();
        match path {
            "/json" => assert_eq!(
                headers.to_json(),
                json!({"content-type": "application/json", "x-a": "1, 2", "set-cookie": "a=1\nb=2", "content-length": "16"})
            ),
            "/moved" => assert_eq!(headers.get("location").and_then(Value::as_str), Some("http://127.0.0.1:1/")),
            _ => {}
        }
    }
    assert_eq!((server.requests().len(), server.connections()), (8, 1), "one connection is used again and again");
}

#[tokio::test]
async fn every_failure_has_its_class_and_says_what_was_asked() {
    let (server, caller) = (Server::start(pages).await, caller("*, !127.1.0.0/16"));
    let base = server.url.as_str();
    let own = |path: &str| format!("{base}{path}?token=hidden");
    let with_password = own("/500").replace("http://", "http://ada:hidden@");
    for (url, class, words, retry_after_ms) in [
        (own("/400"), FailureClass::Invalid, "/400 was answered 400 Bad Request: field 'a' is missing", None),
        (own("/401"), FailureClass::Denied, "401 Unauthorized", None),
        (own("/403"), FailureClass::Denied, "403", None),
        (own("/404"), FailureClass::NotFound, "404 Not Found: xxx", None),
        (own("/408"), FailureClass::Timeout, "408", None),
        (own("/409"), FailureClass::Invalid, "409 Conflict: [2J busy", None),
        (own("/410"), FailureClass::NotFound, "410", None),
        (own("/429"), FailureClass::RateLimited, "429 Too Many Requests: slow down", Some(7_000)),
        (own("/500"), FailureClass::Unavailable, "500 Internal Server Error: oops", None),
        (with_password, FailureClass::Unavailable, "/500 was answered 500", None),
        (own("/503"), FailureClass::Unavailable, "503", Some(1_000)),
        (own("/large"), FailureClass::Invalid, "more than the 65536 bytes that egress.max_answer_bytes allows", None),
        (own("/large-chunks"), FailureClass::Invalid, "more than the 65536 bytes", None),
        (own("/no-json"), FailureClass::Invalid, "JSON that is none: ", None),
        (own("/cut"), FailureClass::Unavailable, "the connection broke: ", None),
        (own("/closed"), FailureClass::Unavailable, "the connection broke: ", None),
        (own("/nonsense"), FailureClass::Unavailable, "the connection broke: ", None),
        (
            "http://127.1.2.3:9/a?b=hidden".into(),
            FailureClass::Denied,
            "127.1.2.3 is not allowed by egress.allow",
            None,
        ),
        ("http://0x7f.1.2.3/".into(), FailureClass::Denied, "127.1.2.3 is not allowed", None),
        ("http://[::ffff:127.1.2.3]/".into(), FailureClass::Denied, "127.1.2.3 is not allowed", None),
        ("http://169.254.169.254/latest/".into(), FailureClass::Denied, "169.254.169.254 is not allowed", None),
        ("http://[fe80::1]/".into(), FailureClass::Denied, "fe80::1 is not allowed", None),
        ("http://no-such-host.invalid/".into(), FailureClass::Unavailable, "there is no connection: ", None),
        (base.replace("http:", "https:"), FailureClass::Unavailable, "there is no connection: ", None),
    ] {
        let failure = ask(&caller, json!({"method": "GET", "url": url})).await.unwrap_err();
        assert_eq!(failure.class, class, "{url}: {failure}");
        assert_eq!(failure.retry_after_ms, retry_after_ms, "{url}: {failure}");
        assert!(failure.message.starts_with("GET http") && failure.message.contains(words), "{url}: {failure}");
        assert!(!failure.message.contains("hidden") && failure.message.chars().count() < 700, "{url}: {failure}");
    }
}

#[tokio::test]
async fn a_name_that_leads_where_it_may_not_is_refused() {
    let server = Server::start(pages).await;
    let url = server.url.replace("127.0.0.1", "localhost");
    for (allow, reached) in [
        ("*", true),
        ("localhost", true),
        ("*, !127.0.0.0/8, !::1", false),
        ("example.org", false),
        ("127.0.0.1", true),
    ] {
        let asked = ask(&caller(allow), json!({"method": "GET", "url": format!("{url}/text")})).await;
        assert_eq!(asked.is_ok(), reached, "{allow}: {asked:?}");
        assert!(reached || asked.is_err_and(|failure| failure.class == FailureClass::Denied), "{allow}");
    }
    assert_eq!(server.requests().len(), 3, "what is refused is not even connected to");
}

#[tokio::test]
async fn who_does_not_answer_or_listen_in_time_is_told_apart() {
    let (server, caller) = (Server::start(pages).await, caller("*"));
    let slow = json!({"method": "GET", "url": format!("{}/silence", server.url), "timeout": "50ms"});
    let failure = ask(&caller, slow).await.unwrap_err();
    assert_eq!((failure.class, failure.message.contains("gave no answer within 50ms")), (FailureClass::Timeout, true));
    // A port that was free a moment ago: nobody listens there.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let failure = ask(&caller, json!({"method": "GET", "url": format!("http://{address}/")})).await.unwrap_err();
    assert_eq!(failure.class, FailureClass::Unavailable, "{failure}");
}

#[tokio::test]
async fn requests_are_sent_as_they_are_written() {
    let (server, caller) = (Server::start(pages).await, caller("*"));
    let tensor = |tensor: Tensor| Value::Tensor(tensor);
    let form = json!({"content-type": "application/x-www-form-urlencoded"});
    for (body, headers, kind, sent) in [
        (
            Value::from(json!({"b": [1, 2.5, null], "a": "ü"})),
            json!({}),
            "application/json",
            "{\"a\":\"ü\",\"b\":[1,2.5,null]}",
        ),
        (json!("as it is").into(), json!({}), "text/plain; charset=utf-8", "as it is"),
        (json!("{\"a\": 1}").into(), json!({"Content-Type": "application/json"}), "application/json", "{\"a\": 1}"),
        (json!(true).into(), json!({"content-type": "x/y"}), "x/y", "true"),
        (tensor(Tensor::from_strings(&["raw"])), json!({}), "application/octet-stream", "raw"),
        (json!({"a b": "c&d", "n": [1, 2]}).into(), form, "application/x-www-form-urlencoded", "a+b=c%26d&n=1&n=2"),
    ] {
        let mut with = Map::from([
            ("method".into(), "POST".into()),
            ("url".into(), format!("{}/any", server.url).into()),
            ("headers".into(), headers.into()),
        ]);
        with.insert("body".into(), body);
        ask(&caller, with).await.unwrap();
        let seen = server.requests().pop().unwrap();
        let text = String::from_utf8(seen.body.clone()).unwrap();
        assert_eq!((seen.all("content-type"), text.as_str()), (vec![kind], sent));
    }
    let url = format!("{}/p%20q/ü?a=1#part", server.url.replace("http://", "http://ada:secret@"));
    let query = json!({"z": ["x y", 2], "flag": true, "none": null});
    let headers = json!({"X-Number": 3, "x-list": ["a", "b"], "x-none": null});
    ask(&caller, json!({"method": "GET", "url": url, "query": query, "headers": headers})).await.unwrap();
    let seen = server.requests().pop().unwrap();
    assert_eq!(seen.line.trim(), "GET /p%20q/%C3%BC?a=1&flag=true&z=x+y&z=2 HTTP/1.1");
    assert_eq!((seen.all("x-number"), seen.all("x-list"), seen.all("x-none")), (vec!["3"], vec!["a", "b"], vec![]));
    assert_eq!(seen.all("authorization"), ["Basic YWRhOnNlY3JldA=="]);
    assert_eq!(seen.all("user-agent"), [concat!("motet/", env!("CARGO_PKG_VERSION"))]);
    assert!(seen.body.is_empty());
}

#[tokio::test]
async fn what_changes_something_carries_its_key_and_everything_its_trace() {
    let (server, caller) = (Server::start(pages).await, caller("*"));
    let own = json!({"Idempotency-Key": "mine", "traceparent": "00-1"});
    for (method, headers, key, trace) in [
        ("POST", json!({}), Some("run_x/step/0"), TRACE),
        ("DELETE", json!({}), Some("run_x/step/0"), TRACE),
        ("GET", json!({}), None, TRACE),
        ("PUT", own.clone(), Some("mine"), "00-1"),
        ("GET", own, Some("mine"), "00-1"),
    ] {
        ask(&caller, json!({"method": method, "url": server.url, "headers": headers})).await.unwrap();
        let seen = server.requests().pop().unwrap();
        assert_eq!(seen.all("idempotency-key"), key.into_iter().collect::<Vec<_>>(), "{method}");
        assert_eq!(seen.all("traceparent"), [trace], "{method}");
    }
}

#[test]
fn mistakes_say_where_they_are() {
    let with = |key: &str, value: serde_json::Value| {
        let mut with = json!({"method": "POST", "url": "https://h/"});
        with[key] = value;
        with
    };
    for (with, words) in [
        (json!([]), "with must be a map, got a list"),
        (json!({"url": "https://h/"}), "with.method is missing"),
        (with("method", json!("post")), "with.method must be one of GET, HEAD"),
        (with("method", json!(1)), "with.method must be a string, got an integer"),
        (with("url", json!(null)), "with.url is missing"),
        (with("url", json!("//ada:hidden@h")), "with.url is no URL: relative URL without a base"),
        (with("url", json!("file:///etc/passwd")), "with.url must begin with http:// or https://, not 'file:'"),
        (with("header", json!({})), "with has no key 'header'"),
        (with("headers", json!([])), "with.headers must be a map, got a list"),
        (with("headers", json!({"a b": "x"})), "with.headers.a b is no name for a header"),
        (with("headers", json!({"Host": "x"})), "with.headers.Host cannot be set"),
        (with("headers", json!({"x-a": "b\r\nx-c: d"})), "with.headers.x-a holds a line break"),
        (with("headers", json!({"x-a": {}})), "with.headers.x-a must be a string"),
        (with("headers", json!({"x-a": [[]]})), "with.headers.x-a must be a string"),
        (with("query", json!("a=b")), "with.query must be a map, got a string"),
        (with("query", json!({"q": {}})), "with.query.q must be a string"),
        (with("timeout", json!("5")), "with.timeout must be a duration such as 5s, not '5'"),
        (with("timeout", json!("0s")), "with.timeout must be a duration"),
        (with("timeout", json!(5)), "with.timeout must be a duration such as 5s, got an integer"),
    ] {
        let failure = request(with).unwrap_err();
        assert_eq!(failure.class, FailureClass::Invalid, "{failure}");
        assert!(failure.message.contains(words) && !failure.message.contains("hidden"), "{failure}");
    }
    let two = Map::from([
        ("method".into(), "POST".into()),
        ("url".into(), "https://h/".into()),
        ("body".into(), Value::Tensor(Tensor::from_strings(&["a", "b"]))),
    ]);
    assert!(request(two).unwrap_err().message.contains("with.body must be one byte string"));
}

#[test]
fn what_people_see_has_no_secrets() {
    for (with, shown) in [
        (json!({"method": "GET", "url": "https://a:b@h:8443/x?q=1#f"}), "GET https://h:8443/x"),
        (json!({"method": "PUT", "url": "http://h"}), "PUT http://h/"),
        (json!({"method": 1, "url": "a:b@h"}), "? ?"),
        (json!("text"), "? ?"),
    ] {
        assert_eq!(target(&with.into()), shown);
    }
    let headers = json!({"Authorization": "Bearer hidden", "x-api-key": "hidden", "cookie": "a=hidden"});
    let url = "http://ada:hidden@h/?key=hidden";
    let request = request(json!({"method": "POST", "url": url, "headers": headers, "body": "hidden"})).unwrap();
    let shown = format!("{request:?} {:?}", request.headers);
    assert!(!shown.contains("hidden") && shown.contains("POST http://h/"), "{shown}");
}

#[test]
fn the_shorter_time_counts_and_lines_are_by_host_and_port() {
    for (with, timeout, origin) in [
        (json!({"method": "GET", "url": "https://Example.org/"}), 20, "example.org:443"),
        (json!({"method": "GET", "url": "http://h:81/", "timeout": "5s"}), 5, "h:81"),
        (json!({"method": "GET", "url": "http://[::1]/", "timeout": "5m"}), 20, "[::1]:80"),
    ] {
        let request = request(with).unwrap();
        assert_eq!((request.timeout().as_secs(), request.origin().as_str()), (timeout, origin));
    }
}
