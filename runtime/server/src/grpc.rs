//! The Open Inference Protocol v2 over gRPC: the service `inference.GRPCInferenceService`.
//!
//! Holds no rules: messages become calls, answers become messages. The listener, its limits and its marks are those of
//! HTTP. Used by the routes of the gRPC listener.

pub(crate) mod refusal;
mod streaming;
mod tensors;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use motet_engine::access::Caller;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status, Streaming};

use crate::http::App;
use crate::http::context::Context;
use crate::http::health::check;
use crate::inference::EXTENSIONS;
use crate::inference::calling::{infer, shorter};
use crate::inference::config::{config, metadata};
use crate::inference::proto::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};
use crate::inference::proto::{
    ModelConfigRequest, ModelConfigResponse, ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
    ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, ModelStatisticsRequest, ModelStatisticsResponse,
    ModelStreamInferResponse, RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelLoadRequest,
    RepositoryModelLoadResponse, RepositoryModelUnloadRequest, RepositoryModelUnloadResponse, ServerLiveRequest,
    ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
};
use crate::inference::repository::{index, load, unload};
use crate::inference::served::{ready, served};
use crate::inference::statistics::statistics;
use refusal::status;

/// Where the service's methods are.
pub(crate) const PATH: &str = "/inference.GRPCInferenceService/{method}";

/// The service of one server.
pub(crate) struct Inference {
    app: Arc<App>,
}

/// The service with the bounds of the server.
pub(crate) fn service(app: &Arc<App>) -> GrpcInferenceServiceServer<Inference> {
    GrpcInferenceServiceServer::new(Inference { app: Arc::clone(app) })
        .max_decoding_message_size(app.limits.max_body)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip)
}

/// Who asks, as the door has found out.
fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    let context = request.extensions().get::<Context>();
    context.map(|context| context.caller.clone()).ok_or_else(|| Status::internal("the request has no caller"))
}

/// Whether the client compresses what it sends: only then it is sent back so, for all say that they could read it.
fn compresses<T>(request: &Request<T>) -> bool {
    request.metadata().get("grpc-encoding").is_some_and(|encoding| encoding == "gzip")
}

fn answer<T>(message: T, compressed: bool) -> Response<T> {
    let mut response = Response::new(message);
    if !compressed {
        response.disable_compression();
    }
    response
}

/// The time that the client gives the call, by the header of gRPC.
fn deadline<T>(request: &Request<T>) -> Option<Duration> {
    let text = request.metadata().get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = (digits.len() <= 8).then(|| digits.parse().ok()).flatten()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[tonic::async_trait]
impl GrpcInferenceService for Inference {
    type ModelStreamInferStream = BoxStream<'static, Result<ModelStreamInferResponse, Status>>;

    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(answer(ServerLiveResponse { live: true }, false))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(answer(ServerReadyResponse { ready: check(&self.app).await.is_ok() }, false))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Result<Response<ModelReadyResponse>, Status> {
        let caller = caller(&request)?;
        let ModelReadyRequest { name, version } = request.into_inner();
        match ready(&self.app, &caller, &name, &version).await {
            Ok(()) => Ok(answer(ModelReadyResponse { ready: true }, false)),
            // Unknown is not ready, and no error.
            Err(problem) if matches!(problem.status().as_u16(), 404 | 503) => {
                Ok(answer(ModelReadyResponse { ready: false }, false))
            }
            Err(problem) => Err(status(&problem)),
        }
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        let (name, version) = ("motet".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
        let extensions = EXTENSIONS.map(str::to_owned).to_vec();
        Ok(answer(ServerMetadataResponse { name, version, extensions }, false))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let (caller, app) = (caller(&request)?, &self.app);
        let ModelMetadataRequest { name, version } = request.into_inner();
        let served = served(app, &caller, &name, &version, app.request_timeout).await;
        served.map(|served| answer(metadata(&served), false)).map_err(|problem| status(&problem))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Result<Response<ModelInferResponse>, Status> {
        let (caller, compressed, deadline) = (caller(&request)?, compresses(&request), deadline(&request));
        let answered = async {
            let mut call = tensors::call(request.into_inner())?;
            call.timeout = shorter(call.timeout, deadline);
            infer(&self.app, &caller, call).await
        };
        let answered = answered.await.map_err(|problem| status(&problem))?;
        Ok(answer(tensors::response(answered), compressed))
    }

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        let (caller, compressed) = (caller(&request)?, compresses(&request));
        let answers =
            streaming::answers(&self.app, caller, request.into_inner()).map_err(|problem| status(&problem))?;
        Ok(answer(answers, compressed))
    }

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Result<Response<ModelConfigResponse>, Status> {
        let (caller, app) = (caller(&request)?, &self.app);
        let ModelConfigRequest { name, version } = request.into_inner();
        let served = served(app, &caller, &name, &version, app.request_timeout).await;
        let config = served.map(|served| ModelConfigResponse { config: Some(config(&served)) });
        config.map(|config| answer(config, false)).map_err(|problem| status(&problem))
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Result<Response<ModelStatisticsResponse>, Status> {
        let caller = caller(&request)?;
        let ModelStatisticsRequest { name, version } = request.into_inner();
        let model_stats = statistics(&self.app, &caller, &name, &version).await.map_err(|problem| status(&problem))?;
        Ok(answer(ModelStatisticsResponse { model_stats }, false))
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Result<Response<RepositoryIndexResponse>, Status> {
        let (caller, ready) = (caller(&request)?, request.get_ref().ready);
        let models = index(&self.app, &caller, ready).await.map_err(|problem| status(&problem))?;
        Ok(answer(RepositoryIndexResponse { models }, false))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Result<Response<RepositoryModelLoadResponse>, Status> {
        let caller = caller(&request)?;
        let RepositoryModelLoadRequest { model_name, parameters, .. } = request.into_inner();
        let loaded = load(&self.app, &caller, &model_name, parameters.keys().map(String::as_str)).await;
        loaded.map(|()| answer(RepositoryModelLoadResponse {}, false)).map_err(|problem| status(&problem))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
        let caller = caller(&request)?;
        let unloaded = unload(&self.app, &caller, &request.get_ref().model_name).await;
        unloaded.map(|()| answer(RepositoryModelUnloadResponse {}, false)).map_err(|problem| status(&problem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_call_is_read() {
        for (header, expected) in [
            ("2H", Some(Duration::from_secs(7200))),
            ("3M", Some(Duration::from_secs(180))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("1500m", Some(Duration::from_millis(1500))),
            ("7u", Some(Duration::from_micros(7))),
            ("9n", Some(Duration::from_nanos(9))),
            ("123456789S", None),
            ("S", None),
            ("", None),
            ("5", None),
            ("-5S", None),
        ] {
            let mut request = Request::new(());
            request.metadata_mut().insert("grpc-timeout", header.parse().unwrap());
            assert_eq!(deadline(&request), expected, "{header}");
        }
        assert_eq!(deadline(&Request::new(())), None);
    }
}
