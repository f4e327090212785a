//! Bare tonic calls over one connection.

use std::net::SocketAddr;

use anyhow::Result;
use bytes::Bytes;
use tonic::transport::{Channel, Endpoint};

use crate::calls::Caller;
use crate::server::bare::Message;
use crate::server::bare::bare_client::BareClient;

/// The asking end.
pub(crate) struct Unary(BareClient<Channel>);

impl Unary {
    pub(crate) async fn connect(server: SocketAddr) -> Result<Self> {
        let channel = Endpoint::from_shared(format!("http://{server}"))?.tcp_nodelay(true).connect().await?;
        Ok(Self(BareClient::new(channel)))
    }
}

impl Caller for Unary {
    async fn call(&self, payload: Bytes) -> Result<Bytes> {
        let asked = Message { id: 0, payload, one_way: false };
        Ok(self.0.clone().unary(asked).await?.into_inner().payload)
    }
}
