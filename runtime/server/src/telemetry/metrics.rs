//! The metrics that Prometheus reads: one recorder for the process, described names, fixed buckets, `/proc`'s figures.
//!
//! Opens no port; the listeners render what is recorded here. Used by `bootstrap` and by the HTTP surface.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use metrics::{describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

/// How often samples are folded into their buckets, so that they do not pile up between scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// Upper bounds for times in seconds: from a step that costs nothing to a model that is slow.
const SECONDS: [f64; 15] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// Upper bounds for numbers of rows, vectors and entries.
const COUNTS: [f64; 12] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0];

/// Ticks of the processor's clock per second in `/proc`; 100 on every architecture that Linux exports to users.
const CLOCK_TICKS: f64 = 100.0;

/// The process's recorder, once it is installed.
static INSTALLED: Mutex<Option<PrometheusHandle>> = Mutex::new(None);

/// Installs the recorder; a process that embeds several servers shares one.
///
/// # Errors
/// When another recorder is installed.
pub fn install() -> anyhow::Result<PrometheusHandle> {
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*installed {
        return Ok(handle.clone());
    }
    let recorder = PrometheusBuilder::new()
        .set_buckets(&COUNTS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS))
        .context("histogram buckets")?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).context("another metrics recorder is installed")?;
    describe();
    *installed = Some(handle.clone());
    Ok(handle)
}

fn describe() {
    describe_counter!("motet_http_requests_total", "Requests answered, by route, method and status.");
    describe_histogram!("motet_http_request_seconds", "Time from a request's head to its answer's head, by route.");
    describe_gauge!("motet_http_requests_in_flight", "Requests that are worked on.");
    describe_gauge!("motet_http_connections", "Open connections, by listener.");
    describe_counter!("motet_http_refused_total", "Requests refused before any work, by reason.");
    describe_counter!("motet_runs_submitted_total", "Runs made durable.");
    describe_counter!("motet_runs_forgotten_total", "Ended runs removed because their time was over.");
    describe_gauge!("motet_runs_live", "Run actors.");
    describe_gauge!("motet_runs_unfinished", "Runs admitted and not ended, live or waiting.");
    describe_counter!("motet_actor_failures_total", "Failures of actors, by kind.");
    describe_counter!("motet_model_calls_placed_total", "Calls of models that went to a node, by how far it is.");
    describe_counter!("motet_model_calls_passed_over_total", "Tries of nodes that did not take a call, by reason.");
    describe_counter!(
        "motet_model_batches_total",
        "Batches given to a model, by what let them go: rows, bytes, window, or free, a replica that had nothing to do."
    );
    describe_gauge!("motet_model_memory_bytes", "Memory that loaded models take.");
    describe_counter!("motet_model_loads_total", "Models that were loaded, by model.");
    describe_counter!("motet_model_evictions_total", "Models that were unloaded because others needed their memory.");
    describe_counter!("motet_model_process_ends_total", "Processes of models that ended unasked, by model.");
    describe_counter!("motet_model_responses_total", "Calls of models that keep responses, by where theirs came from.");
    describe_counter!("motet_model_fallbacks_total", "Calls that a fallback was asked for, by model and fallback.");
    describe_gauge!("motet_model_breaker_open", "1 while calls of a model are refused because others failed.");
    describe_histogram!("motet_model_batch_rows", "Rows per model batch, by model.");
    describe_histogram!("motet_model_batch_seconds", "Time of a model batch, by model.");
    describe_histogram!("motet_index_batch_vectors", "Vectors per write, by index.");
    describe_counter!("motet_egress_calls_total", "HTTP calls of steps that were sent, by outcome.");
    describe_histogram!("motet_egress_call_seconds", "Time of an HTTP call, from its turn to its answer.");
    describe_gauge!("motet_egress_calls_waiting", "HTTP calls that wait for their turn.");
    describe_gauge!("motet_egress_calls_in_flight", "HTTP calls under way.");
    describe_gauge!("motet_stream_lag", "Records of a partition of this node that are not durable here yet.");
    describe_counter!("motet_stream_records_total", "Records read, by what became of them.");
    describe_counter!("motet_outbox_sent_total", "Results that their topic has.");
    describe_counter!("motet_outbox_failures_total", "Tries to send results that failed.");
    describe_gauge!("motet_outbox_rows", "Results of all nodes that wait to be sent, to twice the bound at most.");
    describe_gauge!("motet_outbox_blocked", "Shards of this node whose results wait for a topic that takes none.");
    describe_counter!("motet_outbox_sinks_opened_total", "Transactional producers opened.");
    describe_gauge!("motet_store_queue_depth", "Writes that wait for the next commit.");
    describe_counter!("motet_store_commits_total", "Commits of the store.");
    describe_histogram!("motet_store_commit_events", "Events per commit.");
    describe_histogram!("motet_store_commit_seconds", "Time of a commit, from its first write to its durability.");
    describe_counter!("motet_store_faults_total", "Failures after which the store refuses writes.");
    describe_counter!("motet_store_entries_total", "Journal entries written.");
    describe_counter!("motet_store_events_total", "Events written.");
    describe_counter!("motet_writes_fenced_total", "Writes of runs refused because their shard has another owner.");
    describe_gauge!("process_resident_memory_bytes", "Resident memory of the process.");
    describe_gauge!("process_cpu_seconds_total", "Processor time of the process, in user and system mode.");
    describe_gauge!("process_open_fds", "Open file descriptors of the process.");
    describe_gauge!("process_start_time_seconds", "Start of the process since 1970.");
    if let Ok(since) = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
        gauge!("process_start_time_seconds").set(since.as_secs_f64());
    }
}

/// Folds samples until stopped.
pub async fn run(handle: PrometheusHandle, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(UPKEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => handle.run_upkeep(),
            () = stop.cancelled() => return,
        }
    }
}

/// Everything that was recorded, in Prometheus' text format.
#[must_use]
pub fn render(handle: &PrometheusHandle) -> String {
    observe_process();
    // The crate's counters are whole numbers, which would hide processor time between two scrapes; it is kept as a
    // gauge and told as the counter that it is.
    let text = handle.render();
    text.replacen("# TYPE process_cpu_seconds_total gauge", "# TYPE process_cpu_seconds_total counter", 1)
}

/// Takes the process's own figures, where the system tells them.
fn observe_process() {
    if let Some(bytes) = resident_bytes() {
        gauge!("process_resident_memory_bytes").set(bytes as f64);
    }
    if let Some(seconds) = cpu_seconds() {
        gauge!("process_cpu_seconds_total").set(seconds);
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        // One of the entries is the folder that is being read.
        gauge!("process_open_fds").set(entries.count().saturating_sub(1) as f64);
    }
}

/// Resident memory of this process in bytes.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}

/// Processor time of this process in seconds.
#[must_use]
pub fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name in brackets that may hold spaces; utime and stime are fields 14 and 15.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let (user, system) = (fields.next()?.parse::<f64>().ok()?, fields.next()?.parse::<f64>().ok()?);
    Some((user + system) / CLOCK_TICKS)
}
