//! A bare tonic stream in both directions, with the least that calls over it need: a number and who waits for it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;

use crate::calls::Caller;
use crate::server::ACKNOWLEDGED_EACH;
use crate::server::bare::Message;
use crate::server::bare::bare_client::BareClient;
use crate::{MESSAGES, WINDOW};

/// The asking end.
pub(crate) struct Stream {
    out: mpsc::Sender<Message>,
    next: AtomicU64,
    waiting: Arc<Mutex<HashMap<u64, oneshot::Sender<Bytes>>>>,
    window: Arc<Semaphore>,
}

impl Stream {
    pub(crate) async fn connect(server: SocketAddr) -> Result<Self> {
        let channel = Endpoint::from_shared(format!("http://{server}"))?
            .tcp_nodelay(true)
            .initial_stream_window_size(2 << 20)
            .initial_connection_window_size(4 << 20)
            .connect()
            .await?;
        let (out, messages) = mpsc::channel(1_024);
        let mut incoming = BareClient::new(channel).stream(ReceiverStream::new(messages)).await?.into_inner();
        let waiting = Arc::new(Mutex::new(HashMap::<u64, oneshot::Sender<Bytes>>::new()));
        let window = Arc::new(Semaphore::new(WINDOW));
        let (found, places) = (Arc::clone(&waiting), Arc::clone(&window));
        tokio::spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                if message.one_way {
                    places.add_permits(ACKNOWLEDGED_EACH);
                } else if let Some(waits) = found.lock().unwrap().remove(&message.id) {
                    let _ = waits.send(message.payload);
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
            self.out.send(Message { id, payload: payload.clone(), one_way: true }).await?;
        }
        let _all = self.window.acquire_many(u32::try_from(WINDOW)?).await?;
        Ok(messages as f64 / begun.elapsed().as_secs_f64())
    }
}

impl Caller for Stream {
    async fn call(&self, payload: Bytes) -> Result<Bytes> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().unwrap().insert(id, sender);
        self.out.send(Message { id, payload, one_way: false }).await?;
        answer.await.context("the stream ended")
    }
}
