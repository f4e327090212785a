//! The few calls into librdkafka that its crate does not offer: headers of any name, high watermarks as last seen, and
//! the ids of topics.
//!
//! Never keeps a pointer past the call. Used by the poll thread and by the questions of this adapter.

#![allow(unsafe_code, reason = "calls into librdkafka that its crate does not offer")]

use std::ffi::{CStr, CString};
use std::ptr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::bindings as native;
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use crate::port::{Header, Place};

/// Size of the buffer for texts of errors.
const TEXT: usize = 512;

/// The headers of a record. The crate's own way to them panics at a name that is not UTF-8, which anybody may write.
pub(super) fn headers(message: &BorrowedMessage<'_>) -> Vec<Header> {
    let mut headers = ptr::null_mut();
    // SAFETY: the message lives as long as the borrow, and what is borrowed from it here is copied before the end.
    unsafe {
        let found = native::rd_kafka_message_headers(message.ptr(), &mut headers);
        if found != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR || headers.is_null() {
            return vec![];
        }
        let count = native::rd_kafka_header_cnt(headers);
        let mut copied = Vec::with_capacity(count);
        for index in 0..count {
            let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
            let read = native::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut size);
            if read != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR || name.is_null() {
                break;
            }
            let bytes = (!value.is_null())
                .then(|| Bytes::copy_from_slice(std::slice::from_raw_parts(value.cast::<u8>(), size)));
            copied.push((CStr::from_ptr(name).to_string_lossy().into_owned(), bytes));
        }
        copied
    }
}

/// The offset after the newest record of a partition, as the last answer of its broker told it. Asks nobody.
pub(super) fn high<C: ClientContext>(client: &Client<C>, place: &Place) -> Option<i64> {
    let topic = CString::new(&*place.topic).ok()?;
    let (mut low, mut high) = (-1, -1);
    // SAFETY: the client lives as long as the borrow; the numbers are written before the call returns.
    let outcome = unsafe {
        native::rd_kafka_get_watermark_offsets(
            client.native_ptr(),
            topic.as_ptr(),
            place.partition,
            &mut low,
            &mut high,
        )
    };
    (outcome == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
}

/// The offset after the last record or control record of a partition that was handed over; none when none was since the
/// partition was begun. Asks nobody.
pub(super) fn position<C: ClientContext>(client: &Client<C>, place: &Place) -> Option<i64> {
    let mut list = TopicPartitionList::new();
    list.add_partition(&place.topic, place.partition);
    // SAFETY: client and list live as long as the call, which writes into the list.
    let outcome = unsafe { native::rd_kafka_position(client.native_ptr(), list.ptr()) };
    let element = list.find_partition(&place.topic, place.partition)?;
    match (outcome, element.offset()) {
        (RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR, Offset::Offset(offset)) => Some(offset),
        _ => None,
    }
}

/// Has a partition read on at once that has rested: librdkafka's `resume` wakes nobody, so that the thread of a broker
/// whose partitions all rested may sleep for up to a second more. To seek to where it stands does wake it, and keeps the
/// epoch by which a cut of the log is noticed. Without a position nothing was read yet, and there is nothing to hurry.
/// Waits for nothing.
pub(super) fn hurry<C: ClientContext>(client: &Client<C>, place: &Place) {
    let mut list = TopicPartitionList::new();
    list.add_partition(&place.topic, place.partition);
    // SAFETY: client and list live as long as the calls, which write into the list; the error is owned here.
    unsafe {
        native::rd_kafka_position(client.native_ptr(), list.ptr());
        let found = list.find_partition(&place.topic, place.partition);
        if found.is_some_and(|found| matches!(found.offset(), Offset::Offset(_))) {
            let seek = native::rd_kafka_seek_partitions(client.native_ptr(), list.ptr(), 0);
            drop(Owned(seek, native::rd_kafka_error_destroy));
        }
    }
}

/// What was made and must be given back, in whatever way the function is left.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the pointer came from the call that this one belongs to, and nobody else frees it.
            unsafe { (self.1)(self.0) }
        }
    }
}

/// The id of a topic, which no other topic has, as the brokers' tools print it.
///
/// # Errors
/// What the brokers answered, or that they did not answer within `patience`.
pub(super) fn topic_id<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    patience: Duration,
) -> Result<String, (RDKafkaErrorCode, String)> {
    let failed = |code: RDKafkaErrorCode| (code, code.to_string());
    let name = CString::new(topic).map_err(|_| failed(RDKafkaErrorCode::InvalidTopic))?;
    let rk = client.native_ptr();
    let millis = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX).max(1);
    let begun = Instant::now();
    // SAFETY: everything that is made here is owned by a guard that frees it, the texts are copied while the event
    // that holds them lives, and the client lives as long as the borrow.
    unsafe {
        let queue = Owned(native::rd_kafka_queue_new(rk), native::rd_kafka_queue_destroy);
        let mut names = [name.as_ptr()];
        let topics = native::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let topics = Owned(topics, native::rd_kafka_TopicCollection_destroy);
        let kind = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
        let options = Owned(native::rd_kafka_AdminOptions_new(rk, kind), native::rd_kafka_AdminOptions_destroy);
        let mut text = [0; TEXT];
        native::rd_kafka_AdminOptions_set_request_timeout(options.0, millis, text.as_mut_ptr(), text.len());
        native::rd_kafka_DescribeTopics(rk, topics.0, options.0, queue.0);
        let event = loop {
            let left = patience.saturating_sub(begun.elapsed()).as_millis();
            let event = native::rd_kafka_queue_poll(queue.0, i32::try_from(left).unwrap_or(i32::MAX));
            let event = Owned(event, native::rd_kafka_event_destroy);
            if event.0.is_null() && left > 0 {
                continue;
            }
            break event;
        };
        if event.0.is_null() {
            return Err(failed(RDKafkaErrorCode::OperationTimedOut));
        }
        let error = native::rd_kafka_event_error(event.0);
        if error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            let text = native::rd_kafka_event_error_string(event.0);
            return Err((error.into(), CStr::from_ptr(text).to_string_lossy().into_owned()));
        }
        let result = native::rd_kafka_event_DescribeTopics_result(event.0);
        let mut count = 0;
        let described = native::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if described.is_null() || count != 1 {
            return Err(failed(RDKafkaErrorCode::UnknownTopicOrPartition));
        }
        let error = native::rd_kafka_TopicDescription_error(*described);
        let code = native::rd_kafka_error_code(error);
        if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(failed(code.into()));
        }
        let id = native::rd_kafka_TopicDescription_topic_id(*described);
        let id = if id.is_null() { ptr::null() } else { native::rd_kafka_Uuid_base64str(id) };
        if id.is_null() {
            return Err(failed(RDKafkaErrorCode::UnsupportedFeature));
        }
        Ok(CStr::from_ptr(id).to_string_lossy().into_owned())
    }
}
