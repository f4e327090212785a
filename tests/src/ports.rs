//! Free ports for the process under test.
//!
//! They lie below the range from which the kernel takes the ports of outgoing connections: a client that knocks while
//! the server is down could otherwise be given the server's own port. Brokers, which need several side by side and bind
//! them late, have a range of their own. Used by the harness.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 18_000;
const COUNT: u32 = 14_000;

/// Where brokers listen. The shared one of the services script takes its ports below.
const BROKERS_FIRST: u32 = 14_000;
const BROKERS: u32 = 500;

/// Ports that a broker listens on, side by side.
const EACH: u32 = 5;

static NEXT: AtomicU32 = AtomicU32::new(0);
static NEXT_BROKER: AtomicU32 = AtomicU32::new(0);

/// An address of the loopback interface on which nobody listens now.
///
/// # Panics
/// When every port is taken.
#[must_use]
pub fn free_address() -> SocketAddr {
    // Test binaries that run at the same time begin at different places.
    let start = std::process::id().wrapping_mul(97);
    for _ in 0..COUNT {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + offset).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port from {FIRST} on");
}

/// The first of some addresses side by side, for a broker, on which nobody listens now.
///
/// # Panics
/// When every port is taken.
#[must_use]
pub fn free_broker_address() -> SocketAddr {
    let start = std::process::id().wrapping_mul(97);
    let free = |port: u32| TcpListener::bind((Ipv4Addr::LOCALHOST, u16::try_from(port).unwrap())).is_ok();
    for _ in 0..BROKERS {
        let first = BROKERS_FIRST + EACH * (start.wrapping_add(NEXT_BROKER.fetch_add(1, Ordering::Relaxed)) % BROKERS);
        if (first..first + EACH).all(free) {
            return SocketAddr::from((Ipv4Addr::LOCALHOST, u16::try_from(first).unwrap()));
        }
    }
    panic!("no {EACH} free ports side by side from {BROKERS_FIRST} on");
}
