//! Many calls over one stream: answered in the order in which they came, a few at a time.
//!
//! A call that fails does not end the stream. A client that does not read holds up its own stream alone. Used by the
//! service.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use motet_engine::access::Caller;
use tonic::{Status, Streaming};

use super::{refusal, tensors};
use crate::http::App;
use crate::http::problem::Problem;
use crate::inference::calling::infer;
use crate::inference::proto::infer_parameter::ParameterChoice;
use crate::inference::proto::{InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};

/// Calls of one stream at one time.
const AT_ONCE: usize = 16;

/// Asks for an empty answer after the last one of a call.
const WANTS_FINAL: &str = "triton_enable_empty_final_response";

/// Says in that answer that it is the last one.
const FINAL: &str = "triton_final_response";

type Answers = Vec<Result<ModelStreamInferResponse, Status>>;

/// The answers to the calls of a stream. It ends with its calls, and with the server.
///
/// # Errors
/// When as many streams as may be are open.
pub(super) fn answers(
    app: &Arc<App>,
    caller: Caller,
    calls: Streaming<ModelInferRequest>,
) -> Result<BoxStream<'static, Result<ModelStreamInferResponse, Status>>, Problem> {
    let place = app.limits.stream()?;
    let until_stopped = calls.take_until(app.stopping.clone().cancelled_owned());
    let app = Arc::clone(app);
    let answers = until_stopped
        .map(move |call| {
            let (app, caller) = (Arc::clone(&app), caller.clone());
            async move {
                match call {
                    Ok(call) => one(&app, &caller, call).await,
                    // What cannot be read as a message says nothing about where the next one begins.
                    Err(status) => vec![Err(status)],
                }
            }
        })
        .buffered(AT_ONCE)
        .flat_map(stream::iter)
        .inspect(move |_| {
            // The place is free again with the stream.
            let _ = &place;
        });
    Ok(answers.boxed())
}

async fn one(app: &App, caller: &Caller, request: ModelInferRequest) -> Answers {
    let (model, id) = (request.model_name.clone(), request.id.clone());
    let wants_final = request
        .parameters
        .get(WANTS_FINAL)
        .is_some_and(|parameter| matches!(parameter.parameter_choice, Some(ParameterChoice::BoolParam(true))));
    let answered = async {
        let _place = app.limits.enter()?;
        infer(app, caller, tensors::call(request)?).await
    };
    let response = match answered.await {
        Ok(answered) => {
            ModelStreamInferResponse { infer_response: Some(tensors::response(answered)), ..Default::default() }
        }
        Err(problem) => {
            let named = ModelInferResponse { model_name: model.clone(), id: id.clone(), ..Default::default() };
            let told = refusal::status(&problem);
            ModelStreamInferResponse { error_message: told.message().to_owned(), infer_response: Some(named) }
        }
    };
    let mut answers = vec![Ok(response)];
    if wants_final {
        let last = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
        let parameters = [(FINAL.to_owned(), last)].into();
        let empty = ModelInferResponse { model_name: model, id, parameters, ..Default::default() };
        answers.push(Ok(ModelStreamInferResponse { infer_response: Some(empty), ..Default::default() }));
    }
    answers
}
