//! The harmful proxy does what it says: a test of the tests.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests may fail loudly")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use motet_tests::faults::proxy::{Direction, Proxy, Rule};
use motet_tests::waiting::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(5);

/// A service that sends everything back, and ends when its client does.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.into_split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

async fn connected() -> (Proxy, TcpStream) {
    let proxy = Proxy::start(echo().await).await.unwrap();
    let stream = TcpStream::connect(proxy.address()).await.unwrap();
    (proxy, stream)
}

/// Sends bytes and reads what comes back until the end, or until as many came.
async fn exchange(stream: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
    let _ = stream.write_all(bytes).await;
    let mut back = vec![];
    let mut chunk = [0; 1024];
    while back.len() < bytes.len() {
        match timeout(SOON, stream.read(&mut chunk)).await.unwrap() {
            Ok(0) | Err(_) => break,
            Ok(read) => back.extend_from_slice(&chunk[..read]),
        }
    }
    back
}

#[tokio::test]
async fn without_rules_it_only_carries() {
    let (proxy, mut stream) = connected().await;
    let bytes: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
    let (mut from, mut to) = stream.split();
    let mut back = vec![0; bytes.len()];
    let (sent, read) = tokio::join!(to.write_all(&bytes), timeout(SOON, from.read_exact(&mut back)));
    sent.unwrap();
    read.unwrap().unwrap();
    assert_eq!(back, bytes);
    assert_eq!((proxy.carried(Direction::There), proxy.carried(Direction::Back)), (100_000, 100_000));
}

#[tokio::test]
async fn it_cuts_after_exactly_so_many_bytes_and_only_once() {
    for direction in [Direction::There, Direction::Back] {
        for bytes in [0, 1, 5, 9, 10] {
            let (proxy, mut stream) = connected().await;
            assert_eq!(exchange(&mut stream, b"before").await, b"before");
            proxy.cut_after(direction, bytes);
            let back = exchange(&mut stream, b"0123456789").await;
            until(SOON, "the cut", async || (!proxy.is_armed(direction)).then_some(())).await.unwrap();
            assert_eq!(proxy.carried(direction), 6 + u64::from(bytes), "{direction:?} {bytes}");
            assert!(back.len() <= bytes as usize, "{direction:?} {bytes}: {back:?}");
            assert_eq!(timeout(SOON, stream.read(&mut [0; 64])).await.unwrap().unwrap_or(0), 0, "it is not cut");
            let mut later = TcpStream::connect(proxy.address()).await.unwrap();
            assert_eq!(exchange(&mut later, b"after").await, b"after");
        }
    }
}

#[tokio::test]
async fn a_stalled_direction_goes_on_where_it_stopped() {
    let (proxy, mut stream) = connected().await;
    for direction in [Direction::There, Direction::Back] {
        proxy.set(direction, Rule { stalled: true, ..Rule::default() });
        stream.write_all(b"held").await.unwrap();
        let mut back = [0; 4];
        let early = timeout(Duration::from_millis(100), stream.read_exact(&mut back)).await;
        assert!(early.is_err(), "{direction:?} let something pass");
        proxy.set(direction, Rule::default());
        timeout(SOON, stream.read_exact(&mut back)).await.unwrap().unwrap();
        assert_eq!(&back, b"held");
    }
}

#[tokio::test]
async fn what_is_swallowed_never_comes_and_nobody_is_told() {
    let (proxy, mut stream) = connected().await;
    proxy.set(Direction::There, Rule { swallowed: true, ..Rule::default() });
    stream.write_all(b"lost").await.unwrap();
    assert!(timeout(Duration::from_millis(100), stream.read(&mut [0; 8])).await.is_err());
    proxy.set(Direction::There, Rule::default());
    assert_eq!(exchange(&mut stream, b"kept").await, b"kept");
}

#[tokio::test]
async fn latency_bandwidth_and_slow_closing_take_their_time() {
    let (proxy, mut stream) = connected().await;
    let cases = [
        (Rule { latency: Duration::from_millis(120), ..Rule::default() }, 10),
        (Rule { bytes_per_second: 8_000, ..Rule::default() }, 1_000),
    ];
    for (rule, bytes) in cases {
        proxy.set(Direction::There, rule);
        let begun = Instant::now();
        assert_eq!(exchange(&mut stream, &vec![7; bytes]).await.len(), bytes);
        assert!(begun.elapsed() >= Duration::from_millis(110), "{rule:?} took {:?}", begun.elapsed());
    }
    proxy.set(Direction::There, Rule { slow_close: Duration::from_millis(120), ..Rule::default() });
    let begun = Instant::now();
    stream.shutdown().await.unwrap();
    assert_eq!(timeout(SOON, stream.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
    assert!(begun.elapsed() >= Duration::from_millis(110));
}

#[tokio::test]
async fn a_cut_ends_every_connection_and_a_service_that_is_down_ends_the_next() {
    let (proxy, mut one) = connected().await;
    let mut other = TcpStream::connect(proxy.address()).await.unwrap();
    for stream in [&mut one, &mut other] {
        assert_eq!(exchange(stream, b"x").await, b"x");
    }
    proxy.cut();
    for stream in [&mut one, &mut other] {
        assert_eq!(timeout(SOON, stream.read(&mut [0; 8])).await.unwrap().unwrap_or(0), 0);
    }
    assert_eq!(proxy.connections(), 2);
    let nobody = Proxy::start((Ipv4Addr::LOCALHOST, 1).into()).await.unwrap();
    let mut refused = TcpStream::connect(nobody.address()).await.unwrap();
    assert_eq!(timeout(SOON, refused.read(&mut [0; 8])).await.unwrap().unwrap_or(0), 0);
}

#[tokio::test]
async fn it_leads_elsewhere_when_it_is_told() {
    let (proxy, mut before) = connected().await;
    assert_eq!(exchange(&mut before, b"x").await, b"x");
    proxy.lead_to((Ipv4Addr::LOCALHOST, 1).into());
    assert_eq!(timeout(SOON, before.read(&mut [0; 8])).await.unwrap().unwrap_or(0), 0);
    let mut nobody = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(timeout(SOON, nobody.read(&mut [0; 8])).await.unwrap().unwrap_or(0), 0);
    proxy.lead_to(echo().await);
    let mut after = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(exchange(&mut after, b"y").await, b"y");
}
