//! Free ports for the process under test.
//!
//! They lie below the range from which the kernel takes the ports of outgoing connections: a client that knocks while
//! the server is down could otherwise be given the server's own port. Used by the harness.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 18_000;
const COUNT: u32 = 14_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

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
