//! What librdkafka's errors mean to those who call this adapter, and the last thing that went wrong.
//!
//! One table, so that the same code means the same everywhere. Used by every client of this adapter.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::BrokerError;

/// A trouble is told again after this long.
const TOLD_AGAIN: Duration = Duration::from_secs(30);

/// Different troubles that are remembered at most.
const REMEMBERED: usize = 64;

/// A trouble this old explains no failure any more.
const EXPLAINS: Duration = Duration::from_secs(60);

/// What an error code means; `about` says what was asked of whom.
pub(super) fn meaning(code: Code, about: &str) -> BrokerError {
    let text = format!("{about}: {code}");
    match code {
        Code::FencedInstanceId | Code::UnreleasedInstanceId => BrokerError::Fenced(format!(
            "{about}: another member has this member's instance id; give every node an instance of its own"
        )),
        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => {
            BrokerError::Fenced(format!("{about}: another one writes under this transactional id"))
        }
        Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL => BrokerError::Denied(format!(
            "{text}; compare kafka.security, kafka.user and kafka.authority with what the brokers' listener wants"
        )),
        Code::TopicAuthorizationFailed => {
            BrokerError::Denied(format!("{text}; allow the user to describe and read, or write, the topic"))
        }
        Code::GroupAuthorizationFailed => BrokerError::Denied(format!("{text}; allow the user to read the group")),
        Code::ClusterAuthorizationFailed => {
            BrokerError::Denied(format!("{text}; allow the user to write idempotently to the cluster"))
        }
        Code::TransactionalIdAuthorizationFailed => {
            BrokerError::Denied(format!("{text}; allow the user to describe and write the transactional id"))
        }
        Code::UnsupportedSASLMechanism | Code::IllegalSASLState | Code::SecurityDisabled => BrokerError::Denied(text),
        Code::QueueFull => BrokerError::Busy,
        _ if passes(code) => BrokerError::Unavailable(text),
        _ => BrokerError::Refused(text),
    }
}

/// Whether time may help.
fn passes(code: Code) -> bool {
    use Code as C;
    matches!(
        code,
        C::BrokerTransportFailure
            | C::Resolve
            | C::MessageTimedOut
            | C::AllBrokersDown
            | C::OperationTimedOut
            | C::TimedOutQueue
            | C::WaitingForCoordinator
            | C::WaitCache
            | C::InProgress
            | C::PreviousInProgress
            | C::Retry
            | C::PurgeQueue
            | C::PurgeInflight
            | C::Outdated
            | C::AssignmentLost
            | C::PollExceeded
            | C::UnknownBroker
            | C::DestroyBroker
            | C::Partial
            | C::State
            | C::ISRInsufficient
            | C::LeaderNotAvailable
            | C::NotLeaderForPartition
            | C::RequestTimedOut
            | C::BrokerNotAvailable
            | C::ReplicaNotAvailable
            | C::NetworkException
            | C::CoordinatorLoadInProgress
            | C::CoordinatorNotAvailable
            | C::NotCoordinator
            | C::NotEnoughReplicas
            | C::NotEnoughReplicasAfterAppend
            | C::IllegalGeneration
            | C::UnknownMemberId
            | C::RebalanceInProgress
            | C::NotController
            | C::KafkaStorageError
            | C::FencedLeaderEpoch
            | C::UnknownLeaderEpoch
            | C::StaleBrokerEpoch
            | C::OffsetNotAvailable
            | C::PreferredLeaderNotAvailable
            | C::UnstableOffsetCommit
            | C::ThrottlingQuotaExceeded
            | C::ConcurrentTransactions
            | C::GroupMaxSizeReached
            | C::FencedMemberEpoch
            | C::StaleMemberEpoch
            | C::RebootstrapRequired
    )
}

/// The code within an error of the crate.
pub(super) fn code(error: &KafkaError) -> Code {
    match error {
        KafkaError::Transaction(error) => error.code(),
        other => other.rdkafka_error_code().unwrap_or(Code::Fail),
    }
}

/// What went wrong lately at one client.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    told: Mutex<BTreeMap<String, Instant>>,
    last: Mutex<Option<(Code, String, Instant)>>,
}

impl Troubles {
    /// Remembers a trouble; true when it is to be told, which the same one is once in a while.
    pub(super) fn note(&self, code: Code, text: &str, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // That nobody can be reached follows from what was told of each, which says why.
        if code != Code::AllBrokersDown || last.as_ref().is_none_or(|(.., at)| now.duration_since(*at) >= EXPLAINS) {
            *last = Some((code, text.to_owned(), now));
        }
        drop(last);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, at| now.duration_since(*at) < TOLD_AGAIN);
        // Texts carry addresses and times: the code tells apart what is another trouble.
        let key = format!("{code:?}");
        if told.contains_key(&key) || told.len() >= REMEMBERED {
            return false;
        }
        told.insert(key, now);
        true
    }

    /// Why nobody answers, when a trouble of lately explains it.
    pub(super) fn silence(&self, waited: Duration) -> BrokerError {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let waited = format!("no answer within {} ms", waited.as_millis());
        match last.filter(|(.., at)| at.elapsed() < EXPLAINS) {
            Some((code @ (Code::Authentication | Code::SSL), text, _)) => meaning(code, &text),
            Some((_, text, _)) => BrokerError::Unavailable(format!("{waited}: {text}")),
            None => BrokerError::Unavailable(waited),
        }
    }
}

/// The context of clients that only ask or write: what they log, and what goes wrong.
#[derive(Debug, Default)]
pub(super) struct Context {
    pub(super) troubles: Troubles,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(level, facility, text);
    }

    fn stats_raw(&self, _: &[u8]) {}

    fn error(&self, error: KafkaError, reason: &str) {
        let code = code(&error);
        if self.troubles.note(code, reason, Instant::now()) {
            tracing::warn!(?code, reason, "Kafka makes trouble");
        }
    }
}

impl rdkafka::consumer::ConsumerContext for Context {}

/// A line of librdkafka's log. Its errors are told as events too, hence one level less.
pub(super) fn log(level: RDKafkaLogLevel, facility: &str, text: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(facility, "{text}");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => tracing::info!(facility, "{text}"),
        _ => tracing::debug!(facility, "{text}"),
    }
}
