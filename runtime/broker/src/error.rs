//! How a broker fails, by what the caller can do about it.
//!
//! Never holds a secret. Used by every implementation of the ports and by everyone who calls them.

/// What the caller can do about an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorClass {
    /// Trying the same again later may help.
    Retryable,
    /// Trying the same again cannot help until somebody changes something.
    Permanent,
    /// Somebody else took this place: stop at once.
    Fenced,
    /// The queue is full: slow down.
    Busy,
}

/// Why the broker did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// The brokers did not answer in time, or cannot be reached. Nobody knows whether it was done.
    #[error("Kafka does not answer: {0}")]
    Unavailable(String),
    /// A queue towards the brokers is full. Nothing was done.
    #[error("the queue towards Kafka is full")]
    Busy,
    /// Another one with the same id took this one's place.
    #[error("{0}")]
    Fenced(String),
    /// The user is unknown, or may not do this. Nothing was done.
    #[error("Kafka refuses the access: {0}")]
    Denied(String),
    /// There is no such topic. Nothing was done.
    #[error("the topic '{topic}' does not exist; create it, or mend its name")]
    UnknownTopic {
        /// Its name.
        topic: String,
    },
    /// The topic has no such partition. Nothing was done.
    #[error("the topic '{topic}' has no partition {partition}")]
    UnknownPartition {
        /// Name of the topic.
        topic: String,
        /// Number of the partition.
        partition: i32,
    },
    /// The record is larger than this end or the topic allows. Nothing was done.
    #[error(
        "a record of {bytes} bytes is too large for the topic '{topic}'; raise max.message.bytes of the topic and \
         message.max.bytes here, or send less"
    )]
    TooLarge {
        /// Name of the topic.
        topic: String,
        /// Size of key, value and headers.
        bytes: usize,
    },
    /// The transaction was given up: nothing of it will ever be read.
    #[error("the transaction was aborted: {0}")]
    Aborted(String),
    /// A setting that cannot be used; what it is and what to do about it.
    #[error("{0}")]
    Setting(String),
    /// The brokers refuse this for another reason. Nothing was done.
    #[error("Kafka refuses: {0}")]
    Refused(String),
    /// This end was closed.
    #[error("the connection to Kafka is closed")]
    Closed,
}

impl BrokerError {
    /// What the caller can do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Unavailable(_) | Self::Aborted(_) | Self::Closed => ErrorClass::Retryable,
            Self::Busy => ErrorClass::Busy,
            Self::Fenced(_) => ErrorClass::Fenced,
            Self::Denied(_)
            | Self::UnknownTopic { .. }
            | Self::UnknownPartition { .. }
            | Self::TooLarge { .. }
            | Self::Setting(_)
            | Self::Refused(_) => ErrorClass::Permanent,
        }
    }
}
