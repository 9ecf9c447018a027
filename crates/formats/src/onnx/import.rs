//! Reader of ONNX files.

use std::collections::HashMap;

use data::{PerChannel, Scaling};
use prost::Message;
use serde_json::Value;

use crate::error::FormatError;
use crate::limits::MemoryBudget;
use crate::onnx::constant::Constant;
use crate::onnx::graph::evaluate;
use crate::onnx::message::{Graph, Model};
use crate::onnx::{sequence, wire};
use crate::tensor::{Dtype, Tensors};
use crate::translation::{Architecture, translate};

/// The supported versions of the operator set.
const OPSETS: std::ops::RangeInclusive<i64> = 7..=21;

/// Reads the weights and the architecture of a file. The weights are those of the architecture, or the constants of the
/// graph if it is not supported.
///
/// # Errors
/// Returns an error if the file is damaged, exceeds a limit, or has its weights in another file.
pub(crate) fn read(bytes: &[u8]) -> Result<(Tensors, Result<Architecture, String>), FormatError> {
    wire::check(bytes)?;
    let model = Model::decode(bytes)?;
    let Model {
        graph: Some(mut graph),
        opset_import,
        metadata_props,
        producer_name,
        ..
    } = model
    else {
        return Err("no graph".into());
    };
    let mut budget = MemoryBudget::for_file(bytes.len());
    let constants = constants(&mut graph, &mut budget)?;
    let is_standard = |domain: &str| matches!(domain, "" | "ai.onnx");
    let opset = opset_import
        .iter()
        .find(|set| is_standard(&set.domain))
        .map(|set| set.version);
    let metadata = metadata_props
        .iter()
        .find(|entry| producer_name == "trainer" && entry.key == "preprocessing");
    let scaling = metadata.and_then(|entry| scaling(&entry.value));
    let architecture = match opset {
        Some(opset) if OPSETS.contains(&opset) => {
            // A few transposed weights and the weights of layers.
            let budget = MemoryBudget::for_file(2 * bytes.len() + (1 << 20));
            evaluate(&graph, &constants, opset, budget)
                .and_then(|evaluation| sequence::chain(evaluation, scaling))
                .and_then(translate)
        }
        opset => Err(format!(
            "operators of version {}; {} to {} are supported",
            opset.unwrap_or(0),
            OPSETS.start(),
            OPSETS.end()
        )),
    };
    let tensors = match &architecture {
        Ok(architecture) => architecture.tensors.clone(),
        Err(_) => tensors(constants),
    };
    Ok((tensors, architecture))
}

/// Returns the constants of a graph, whose data it takes.
fn constants(
    graph: &mut Graph,
    budget: &mut MemoryBudget,
) -> Result<HashMap<String, Constant>, FormatError> {
    let mut constants = HashMap::new();
    for mut message in std::mem::take(&mut graph.initializer) {
        let name = std::mem::take(&mut message.name);
        let shortened = || name.chars().take(100).collect::<String>();
        let constant = Constant::new(&mut message, budget);
        let constant = constant.map_err(|reason| format!("tensor {}: {reason}", shortened()))?;
        if constants.insert(name.clone(), constant).is_some() {
            return Err(format!("two tensors {}", shortened()).into());
        }
    }
    Ok(constants)
}

/// Returns the constants that can be weights.
fn tensors(constants: HashMap<String, Constant>) -> Tensors {
    let weights = constants
        .into_iter()
        .filter_map(|(name, constant)| match constant {
            Constant::Tensor(tensor) if !matches!(tensor.dtype, Dtype::Integer | Dtype::Other) => {
                let tensor = std::rc::Rc::unwrap_or_clone(tensor);
                Some((name, tensor))
            }
            _ => None,
        });
    weights.collect()
}

/// Returns the normalization in the metadata of this project's files.
fn scaling(preprocessing: &str) -> Option<Scaling> {
    let preprocessing: Value = serde_json::from_str(preprocessing).ok()?;
    let numbers = preprocessing.get("numbers")?;
    let number = |key: &str| serde_json::from_value::<PerChannel>(numbers.get(key)?.clone()).ok();
    let scaling = Scaling {
        mean: number("mean")?,
        std: number("std")?,
    };
    scaling.std.all(|std| std > 0.0).then_some(scaling)
}
