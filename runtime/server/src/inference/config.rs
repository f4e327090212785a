//! What a model takes and gives, and how it is configured, in the protocol's words.
//!
//! Never asks anything. Used by the routes and by the gRPC service.

use motet_engine::definition::ModelDefinition;
use motet_engine::tensor::Datatype;
use motet_models::port::TensorSpec;
use serde_json::{Value, json};

use super::calling::lengths;
use super::proto::model_instance_group::Kind;
use super::proto::model_metadata_response::TensorMetadata;
use super::proto::model_version_policy::Latest;
use super::proto::{
    DataType, ModelConfig, ModelDynamicBatching, ModelInput, ModelInstanceGroup, ModelMetadataResponse, ModelOutput,
    ModelVersionPolicy,
};
use super::served::Served;

/// A model's metadata.
pub(crate) fn metadata(Served { definition, description }: &Served) -> ModelMetadataResponse {
    let tensors = |specs: &[TensorSpec]| {
        let told = specs.iter().map(|spec| TensorMetadata {
            name: spec.name.clone(),
            datatype: spec.datatype.to_string(),
            shape: lengths(&spec.shape),
        });
        told.collect()
    };
    ModelMetadataResponse {
        name: definition.name.to_string(),
        versions: vec![description.version.clone()],
        platform: platform(definition),
        inputs: tensors(&description.signature.inputs),
        outputs: tensors(&description.signature.outputs),
    }
}

/// The same as JSON.
pub(crate) fn metadata_json(metadata: &ModelMetadataResponse) -> Value {
    let tensors = |tensors: &[TensorMetadata]| -> Vec<Value> {
        let told = tensors.iter();
        told.map(|told| json!({"name": told.name, "datatype": told.datatype, "shape": told.shape})).collect()
    };
    json!({
        "name": metadata.name,
        "versions": metadata.versions,
        "platform": metadata.platform,
        "inputs": tensors(&metadata.inputs),
        "outputs": tensors(&metadata.outputs),
    })
}

/// A model's configuration. Its shapes are those of one row: all models here take batches.
pub(crate) fn config(Served { definition, description }: &Served) -> ModelConfig {
    let row = |spec: &TensorSpec| lengths(spec.shape.get(1..).unwrap_or_default());
    let inputs = description.signature.inputs.iter().map(|spec| ModelInput {
        name: spec.name.clone(),
        data_type: data_type(spec.datatype).into(),
        dims: row(spec),
        optional: spec.optional,
    });
    let outputs = description.signature.outputs.iter().map(|spec| ModelOutput {
        name: spec.name.clone(),
        data_type: data_type(spec.datatype).into(),
        dims: row(spec),
    });
    let window = definition.batch.window.as_micros();
    ModelConfig {
        name: definition.name.to_string(),
        platform: platform(definition),
        backend: definition.backend.clone(),
        version_policy: Some(ModelVersionPolicy { latest: Some(Latest { num_versions: 1 }) }),
        max_batch_size: i32::try_from(definition.batch.max).unwrap_or(i32::MAX),
        input: inputs.collect(),
        output: outputs.collect(),
        instance_group: vec![ModelInstanceGroup {
            name: definition.name.to_string(),
            count: i32::try_from(definition.replicas).unwrap_or(i32::MAX),
            kind: Kind::Cpu.into(),
        }],
        dynamic_batching: Some(ModelDynamicBatching {
            preferred_batch_size: vec![],
            max_queue_delay_microseconds: u64::try_from(window).unwrap_or(u64::MAX),
        }),
    }
}

/// The same as JSON, as Triton writes it.
pub(crate) fn config_json(config: &ModelConfig) -> Value {
    let inputs = config.input.iter().map(|input| {
        let data_type = input.data_type().as_str_name();
        json!({"name": input.name, "data_type": data_type, "format": "FORMAT_NONE", "dims": input.dims,
            "optional": input.optional})
    });
    let outputs = config
        .output
        .iter()
        .map(|output| json!({"name": output.name, "data_type": output.data_type().as_str_name(), "dims": output.dims}));
    let groups = config
        .instance_group
        .iter()
        .map(|group| json!({"name": group.name, "kind": group.kind().as_str_name(), "count": group.count}));
    let window = config.dynamic_batching.as_ref().map_or(0, |batching| batching.max_queue_delay_microseconds);
    json!({
        "name": config.name,
        "platform": config.platform,
        "backend": config.backend,
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": config.max_batch_size,
        "input": inputs.collect::<Vec<_>>(),
        "output": outputs.collect::<Vec<_>>(),
        "instance_group": groups.collect::<Vec<_>>(),
        "dynamic_batching": {"preferred_batch_size": [], "max_queue_delay_microseconds": window},
    })
}

fn platform(definition: &ModelDefinition) -> String {
    format!("motet_{}", definition.backend)
}

fn data_type(datatype: Datatype) -> DataType {
    match datatype {
        Datatype::Bool => DataType::TypeBool,
        Datatype::Uint8 => DataType::TypeUint8,
        Datatype::Uint16 => DataType::TypeUint16,
        Datatype::Uint32 => DataType::TypeUint32,
        Datatype::Uint64 => DataType::TypeUint64,
        Datatype::Int8 => DataType::TypeInt8,
        Datatype::Int16 => DataType::TypeInt16,
        Datatype::Int32 => DataType::TypeInt32,
        Datatype::Int64 => DataType::TypeInt64,
        Datatype::Fp16 => DataType::TypeFp16,
        Datatype::Bf16 => DataType::TypeBf16,
        Datatype::Fp32 => DataType::TypeFp32,
        Datatype::Fp64 => DataType::TypeFp64,
        Datatype::Bytes => DataType::TypeString,
    }
}
