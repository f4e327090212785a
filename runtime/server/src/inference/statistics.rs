//! What models did on this node since it started, in the protocol's words.
//!
//! Counts nothing itself. Moving inputs and outputs is not counted apart from computing: both times are 0. Used by the
//! routes and by the gRPC service.

use motet_actors::models::ModelView;
use motet_actors::stats::ModelFigures;
use motet_engine::access::Caller;
use motet_engine::time::Timestamp;
use serde_json::{Value, json};

use super::proto::{InferStatistics, ModelStatistics, StatisticDuration};
use super::served::definition;
use crate::http::App;
use crate::http::problem::Problem;

/// Statistics of a model, or of all that were called or put since the start when the name is empty.
///
/// # Errors
/// `404` for an unknown model.
pub(crate) async fn statistics(
    app: &App,
    caller: &Caller,
    name: &str,
    version: &str,
) -> Result<Vec<ModelStatistics>, Problem> {
    let models = app.router.models();
    let now = app.router.now();
    if name.is_empty() {
        return Ok(models.views(&caller.namespace).iter().map(|view| told(view, now)).collect());
    }
    let definition = definition(app, caller, name, version).await?;
    let view = models.view(&caller.namespace, &definition.name);
    let zeros = || ModelStatistics {
        name: name.to_owned(),
        version: definition.version.clone(),
        inference_stats: Some(InferStatistics::default()),
        ..ModelStatistics::default()
    };
    Ok(vec![view.map_or_else(zeros, |view| told(&view, now))])
}

fn told(ModelView { name, version, figures, .. }: &ModelView, now: Timestamp) -> ModelStatistics {
    let ModelFigures { batches, rows, answered_calls: calls, failed_calls, waited_us, computed_us, idle_ms, .. } =
        *figures;
    let duration = |count: u64, micros: u64| Some(StatisticDuration { count, ns: micros.saturating_mul(1000) });
    let now = u64::try_from(now.as_millis()).unwrap_or(0);
    ModelStatistics {
        name: name.to_string(),
        version: version.clone(),
        last_inference: idle_ms.map_or(0, |idle| now.saturating_sub(idle)),
        inference_count: rows,
        execution_count: batches,
        inference_stats: Some(InferStatistics {
            success: duration(calls, waited_us.saturating_add(computed_us)),
            fail: duration(failed_calls, 0),
            queue: duration(calls, waited_us),
            compute_input: duration(calls, 0),
            compute_infer: duration(calls, computed_us),
            compute_output: duration(calls, 0),
        }),
        batch_stats: vec![],
    }
}

/// The same as JSON.
pub(crate) fn statistics_json(models: &[ModelStatistics]) -> Value {
    let duration = |told: Option<StatisticDuration>| {
        let told = told.unwrap_or_default();
        json!({"count": told.count, "ns": told.ns})
    };
    let models = models.iter().map(|model| {
        let told = model.inference_stats.unwrap_or_default();
        json!({
            "name": model.name,
            "version": model.version,
            "last_inference": model.last_inference,
            "inference_count": model.inference_count,
            "execution_count": model.execution_count,
            "inference_stats": {
                "success": duration(told.success),
                "fail": duration(told.fail),
                "queue": duration(told.queue),
                "compute_input": duration(told.compute_input),
                "compute_infer": duration(told.compute_infer),
                "compute_output": duration(told.compute_output),
            },
            "batch_stats": [],
        })
    });
    json!({"model_stats": models.collect::<Vec<_>>()})
}
