//! Frames with their length before them over one TCP connection: a number, a flag and the payload. A writer at each end
//! puts what is there into few system calls.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context, Result};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

use crate::calls::Caller;
use crate::server::ACKNOWLEDGED_EACH;
use crate::{MESSAGES, WINDOW};

struct Frame {
    id: u64,
    one_way: bool,
    payload: Bytes,
}

fn read(mut bytes: BytesMut) -> Frame {
    Frame { id: bytes.get_u64(), one_way: bytes.get_u8() == 1, payload: bytes.freeze() }
}

async fn write(half: OwnedWriteHalf, mut frames: mpsc::Receiver<Frame>) -> Result<()> {
    let mut framed = FramedWrite::new(half, LengthDelimitedCodec::new());
    framed.set_backpressure_boundary(128 << 10);
    let mut some = vec![];
    while frames.recv_many(&mut some, 256).await > 0 {
        for frame in some.drain(..) {
            let mut bytes = BytesMut::with_capacity(9 + frame.payload.len());
            bytes.put_u64(frame.id);
            bytes.put_u8(u8::from(frame.one_way));
            bytes.put(frame.payload);
            framed.feed(bytes.freeze()).await?;
        }
        SinkExt::<Bytes>::flush(&mut framed).await?;
    }
    Ok(())
}

fn open(stream: TcpStream) -> Result<(FramedRead<OwnedReadHalf, LengthDelimitedCodec>, mpsc::Sender<Frame>)> {
    stream.set_nodelay(true)?;
    let (reading, writing) = stream.into_split();
    let (out, frames) = mpsc::channel(1_024);
    tokio::spawn(write(writing, frames));
    Ok((FramedRead::new(reading, LengthDelimitedCodec::new()), out))
}

/// The accepting end.
pub(crate) async fn serve() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (mut incoming, out) = open(stream)?;
            tokio::spawn(async move {
                let mut taken = 0_usize;
                while let Some(Ok(bytes)) = incoming.next().await {
                    let frame = read(bytes);
                    taken += usize::from(frame.one_way);
                    let answer = if !frame.one_way {
                        frame
                    } else if taken.is_multiple_of(ACKNOWLEDGED_EACH) {
                        Frame { payload: Bytes::new(), ..frame }
                    } else {
                        continue;
                    };
                    out.send(answer).await?;
                }
                anyhow::Ok(())
            });
        }
        anyhow::Ok(())
    });
    Ok(address)
}

/// The asking end.
pub(crate) struct Tcp {
    out: mpsc::Sender<Frame>,
    next: AtomicU64,
    waiting: Arc<Mutex<HashMap<u64, oneshot::Sender<Bytes>>>>,
    window: Arc<Semaphore>,
}

impl Tcp {
    pub(crate) async fn connect(server: SocketAddr) -> Result<Self> {
        let (mut incoming, out) = open(TcpStream::connect(server).await?)?;
        let waiting = Arc::new(Mutex::new(HashMap::<u64, oneshot::Sender<Bytes>>::new()));
        let window = Arc::new(Semaphore::new(WINDOW));
        let (found, places) = (Arc::clone(&waiting), Arc::clone(&window));
        tokio::spawn(async move {
            while let Some(Ok(bytes)) = incoming.next().await {
                let frame = read(bytes);
                if frame.one_way {
                    places.add_permits(ACKNOWLEDGED_EACH);
                } else if let Some(waits) = found.lock().unwrap().remove(&frame.id) {
                    let _ = waits.send(frame.payload);
                }
            }
        });
        Ok(Self { out, next: AtomicU64::new(1), waiting, window })
    }

    /// Messages per second, all acknowledged, in blocks.
    pub(crate) async fn one_way(&self, payload: &Bytes) -> Result<f64> {
        let begun = Instant::now();
        let messages = MESSAGES / ACKNOWLEDGED_EACH as u64 * ACKNOWLEDGED_EACH as u64;
        for id in 0..messages {
            self.window.acquire().await?.forget();
            self.out.send(Frame { id, one_way: true, payload: payload.clone() }).await?;
        }
        let _all = self.window.acquire_many(u32::try_from(WINDOW)?).await?;
        Ok(messages as f64 / begun.elapsed().as_secs_f64())
    }
}

impl Caller for Tcp {
    async fn call(&self, payload: Bytes) -> Result<Bytes> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().unwrap().insert(id, sender);
        self.out.send(Frame { id, one_way: false, payload }).await?;
        answer.await.context("the connection ended")
    }
}
