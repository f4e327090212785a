//! Messages between nodes as bytes: a question with its address and its asker, and the answer.
//!
//! Never sends. What is larger than an envelope may be travels as a reference to a blob of the store that both nodes
//! share. Used by `peers`.

use bytes::Bytes;
use motet_engine::access::Caller;
use motet_engine::id::RunId;
use motet_engine::value::BlobRef;
use motet_store::codec::{self, CodecError};
use motet_store::port::Store;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::message::{Answer, Ask, IndexAsk, ModelAsk, RouteError};

/// Bytes of a message that travel in the envelope itself.
pub(crate) const INLINE: usize = 512 << 10;

/// A question to an actor of another node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Question {
    pub(crate) caller: Caller,
    #[serde(with = "compact")]
    pub(crate) to: Address,
    pub(crate) ask: Ask,
}

/// Addresses without the names of their kinds, which JSON needs and bincode cannot read.
mod compact {
    use motet_engine::id::{Name, Namespace, RunId};
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::address::Address;

    #[derive(Serialize, Deserialize)]
    enum Travelling {
        Run(RunId),
        Model(Namespace, Name),
        Index(Namespace, Name),
    }

    pub(super) fn serialize<S: Serializer>(address: &Address, serializer: S) -> Result<S::Ok, S::Error> {
        match address.clone() {
            Address::Run(run) => Travelling::Run(run),
            Address::Model(namespace, name) => Travelling::Model(namespace, name),
            Address::Index(namespace, name) => Travelling::Index(namespace, name),
            local => return Err(S::Error::custom(format!("{local} is asked by no other node"))),
        }
        .serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
        Ok(match Travelling::deserialize(deserializer).map_err(D::Error::custom)? {
            Travelling::Run(run) => Address::Run(run),
            Travelling::Model(namespace, name) => Address::Model(namespace, name),
            Travelling::Index(namespace, name) => Address::Index(namespace, name),
        })
    }
}

/// The answer, or why there is none.
pub(crate) type Reply = Result<Answer, RouteError>;

/// How a message travels.
#[derive(Debug, Serialize, Deserialize)]
enum Parcel {
    Inline(Bytes),
    Stored(BlobRef),
}

/// Why a message could not be made or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error(transparent)]
    Codec(#[from] CodecError),
    #[error(transparent)]
    Store(#[from] motet_store::StoreError),
    #[error(
        "{0} bytes are more than fit between nodes outside a run (512 KiB); call the model in a step of a run, or on a \
         node that has it: 'nodes' of the model names them"
    )]
    TooLarge(usize),
    #[error("the message lies in a blob that is gone")]
    Gone,
}

impl Question {
    /// The run that the question belongs to: what is too large for an envelope is kept as long as that.
    pub(crate) fn run(&self) -> Option<RunId> {
        match (&self.to, &self.ask) {
            (Address::Run(run), _) => Some(*run),
            (_, Ask::Model(ModelAsk::Infer { key, .. })) => key.map(|key| key.run),
            (_, Ask::Index(IndexAsk::Query { run, .. } | IndexAsk::Upsert { run, .. })) => *run,
            (_, Ask::Model(ModelAsk::Load | ModelAsk::Describe | ModelAsk::Unload)) => None,
            (_, Ask::Index(IndexAsk::Stats) | Ask::Egress(_) | Ask::Run(_)) => None,
        }
    }
}

/// A message as the payload of an envelope.
///
/// # Errors
/// When it is too large or its blob cannot be written.
pub(crate) async fn pack(store: &dyn Store, run: Option<RunId>, message: &impl Serialize) -> Result<Bytes, WireError> {
    let bytes = codec::encode_disposable(message)?;
    let parcel = match run {
        _ if bytes.len() <= INLINE => Parcel::Inline(bytes),
        Some(run) => Parcel::Stored(store.put_blob(run, bytes).await?),
        None => return Err(WireError::TooLarge(bytes.len())),
    };
    Ok(codec::encode_disposable(&parcel)?)
}

/// Reads what [`pack`] made.
///
/// # Errors
/// When another version made it or its blob cannot be read.
pub(crate) async fn unpack<T: DeserializeOwned>(store: &dyn Store, payload: &[u8]) -> Result<T, WireError> {
    let bytes = match codec::decode_disposable(payload)? {
        Parcel::Inline(bytes) => bytes,
        Parcel::Stored(blob) => store.blob(blob).await?.ok_or(WireError::Gone)?,
    };
    Ok(codec::decode_disposable(&bytes)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use motet_engine::access::Principal;
    use motet_engine::failure::{Failure, FailureClass};
    use motet_engine::id::{CallId, Name, Namespace, Seq, ShardId, StepIndex};
    use motet_engine::input::{Input, Rejection};
    use motet_engine::tensor::{Datatype, Tensor};
    use motet_engine::time::Timestamp;
    use motet_engine::trace::TraceContext;
    use motet_engine::value::Value;
    use motet_store::memory::MemoryStore;
    use serde_json::json;

    use super::*;
    use crate::message::{CallKey, RunAsk};

    fn run() -> RunId {
        RunId::new(Timestamp::from_millis(1_700_000_000_000), ShardId(5), 77)
    }

    fn call() -> CallId {
        CallId { step: StepIndex(1), item: 2, attempt: 3 }
    }

    fn name() -> Name {
        Name::new("classify").unwrap()
    }

    fn values() -> Vec<Value> {
        let tensor = Tensor::new(Datatype::Fp32, vec![2], vec![1u8; 8].into()).unwrap();
        vec![Value::Null, Value::from(json!({"a": [1, -2.5, "ä", true, null], "b": {"c": {}}})), Value::Tensor(tensor)]
    }

    fn asks() -> Vec<Ask> {
        let by = || Principal::Named("ada".into());
        let failure = Failure::new(FailureClass::RateLimited, "later");
        let mut asks: Vec<_> = [
            RunAsk::Proceed,
            RunAsk::Read,
            RunAsk::AwaitEnd,
            RunAsk::Watch { beyond: Seq(9) },
            RunAsk::Input(Input::Woken),
            RunAsk::Input(Input::Cancel { by: by(), reason: Some("enough".into()) }),
            RunAsk::Input(Input::Pause { by: by(), reason: None }),
            RunAsk::Input(Input::Resume { by: Principal::Local }),
            RunAsk::Input(Input::Retry { from: Some("two".into()), by: by() }),
            RunAsk::Input(Input::LeaveLine { by: by() }),
            RunAsk::Input(Input::CallFinished { call: call(), outcome: Err(failure) }),
        ]
        .map(Ask::Run)
        .into();
        asks.extend([ModelAsk::Load, ModelAsk::Describe, ModelAsk::Unload].map(Ask::Model));
        for with in values() {
            let signal = Input::Signal { name: "ok".into(), payload: with.clone(), id: "1".into(), by: by() };
            asks.push(Ask::Run(RunAsk::Input(signal)));
            asks.push(Ask::Run(RunAsk::Input(Input::CallFinished { call: call(), outcome: Ok(with.clone()) })));
            let key = Some(CallKey { run: run(), call: call() });
            asks.push(Ask::Model(ModelAsk::Infer { with: with.clone(), priority: -3, key }));
            asks.push(Ask::Index(IndexAsk::Query { with: with.clone(), run: None }));
            asks.push(Ask::Index(IndexAsk::Upsert { with, run: Some(run()) }));
            asks.push(Ask::Index(IndexAsk::Stats));
        }
        asks
    }

    fn replies() -> Vec<Reply> {
        let mut replies = vec![
            Ok(Answer::Accepted),
            Ok(Answer::Rejected(Rejection::Ended)),
            Ok(Answer::Rejected(Rejection::NotOwed(call()))),
            Ok(Answer::Progress { seq: Seq(4), ended: true }),
            Err(RouteError::NotOwner),
            Err(RouteError::Expired),
            Err(RouteError::Moved("b".into())),
            Err(RouteError::Overloaded("full".into())),
            Err(RouteError::Unknown("x".into())),
            Err(RouteError::Undecodable("y".into())),
            Err(RouteError::Failed(Failure::new(FailureClass::Timeout, "slow"))),
            Err(RouteError::Absent(Failure::new(FailureClass::NotFound, "no file"))),
        ];
        replies.extend(values().into_iter().map(|value| Ok(Answer::Output(value))));
        replies
    }

    #[tokio::test]
    async fn every_message_comes_back_as_it_went() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let caller =
            Caller { namespace: Namespace::default(), principal: Principal::System, trace: TraceContext::start(1, 2) };
        for ask in asks() {
            for to in [
                Address::Run(run()),
                Address::Model(Namespace::default(), name()),
                Address::Index(Namespace::default(), name()),
            ] {
                let question = Question { caller: caller.clone(), to, ask: ask.clone() };
                let packed = pack(&*store, None, &question).await.unwrap();
                let came: Question = unpack(&*store, &packed).await.unwrap();
                assert_eq!(format!("{came:?}"), format!("{question:?}"));
            }
        }
        for reply in replies() {
            let packed = pack(&*store, None, &reply).await.unwrap();
            let came: Reply = unpack(&*store, &packed).await.unwrap();
            assert_eq!(format!("{came:?}"), format!("{reply:?}"));
        }
    }

    #[tokio::test]
    async fn what_is_too_large_for_an_envelope_lies_in_the_store() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let tensor = Tensor::new(Datatype::Uint8, vec![3 << 20], vec![7u8; 3 << 20].into()).unwrap();
        let reply: Reply = Ok(Answer::Output(Value::Tensor(tensor)));
        let packed = pack(&*store, Some(run()), &reply).await.unwrap();
        assert!(packed.len() < 100, "{} bytes", packed.len());
        let came: Reply = unpack(&*store, &packed).await.unwrap();
        assert_eq!(format!("{came:?}"), format!("{reply:?}"));
        assert!(matches!(pack(&*store, None, &reply).await, Err(WireError::TooLarge(_))));
        let elsewhere: Arc<dyn Store> = Arc::new(MemoryStore::new());
        assert!(matches!(unpack::<Reply>(&*elsewhere, &packed).await, Err(WireError::Gone)));
        assert!(matches!(unpack::<Reply>(&*store, b"nonsense").await, Err(WireError::Codec(_))));
    }
}
