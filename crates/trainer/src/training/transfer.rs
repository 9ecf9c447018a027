//! The initial weights of a training that starts from a trained network.

use anyhow::{Result, ensure};
use burn::tensor::Device;
use formats::{Tensor, Tensors};
use model::{ConvNet, Storage};

use crate::config::run_config::Config;
use crate::training::source_network::SourceNetwork;

/// A network with the layers that it shares with a trained one.
#[derive(Debug)]
pub(crate) struct Transferred {
    pub(crate) model: ConvNet,
    /// A line for each layer that differs.
    pub(crate) notes: Vec<String>,
}

/// Returns the network of `config` with the layers of a trained network. Layers of another shape, and the last one if
/// the classes differ, are initialized anew.
///
/// # Errors
/// Returns an error if the networks share no layer.
pub(crate) fn transfer(
    config: &Config,
    source: &SourceNetwork,
    device: &Device,
) -> Result<Transferred> {
    let model = config.model.init_seeded(config.training.seed, device)?;
    let mut tensors = formats::from_safetensors(&model.to_safetensors(Storage::Single)?)?;
    let layers = config.model.layers()?;
    let weighted = || layers.iter().filter(|layer| !layer.weights.is_empty());
    let first = weighted().next().map_or("", |layer| &layer.name);
    let last = weighted().next_back().map_or(first, |layer| &layer.name);
    let has_same_classes = match &source.classes {
        Some(classes) => *classes == config.images.classes,
        None => source.network.classes == config.images.classes.len(),
    };
    let mut notes = Vec::new();
    let mut copied = 0;
    for layer in weighted() {
        let names = ["weight", "bias"].map(|part| format!("{}.{part}", layer.name));
        if layer.name == last && !has_same_classes {
            notes.push(format!("{last}: initialized anew, for other classes"));
            continue;
        }
        match shared(&names, &tensors, &source.tensors, layer.name == first) {
            Some(shared) => {
                copied += 1;
                let channels = source.network.channels;
                if layer.name == first && channels != config.model.channels {
                    notes.push(format!(
                        "{first}: filters of {channels} channels made those of {}",
                        config.model.channels
                    ));
                }
                tensors.extend(shared);
            }
            None => notes.push(format!(
                "{}: initialized anew, with another shape",
                layer.name
            )),
        }
    }
    ensure!(
        copied > 0,
        "{}: no layer fits the network to train",
        source.origin.file
    );
    Ok(Transferred {
        model: model.with_safetensors(formats::to_safetensors(&tensors)?)?,
        notes,
    })
}

/// Returns the tensors of a layer that two networks share; `None` if their shapes differ.
fn shared(
    names: &[String; 2],
    target: &Tensors,
    source: &Tensors,
    is_first: bool,
) -> Option<Vec<(String, Tensor)>> {
    let mut shared = Vec::new();
    for name in names {
        match (target.get(name), source.get(name)) {
            (None, None) => {}
            (Some(target), Some(source)) if target.shape == source.shape => {
                shared.push((name.clone(), source.clone()));
            }
            (Some(target), Some(source)) if is_first => {
                shared.push((name.clone(), with_channels(source, &target.shape)?));
            }
            _ => return None,
        }
    }
    Some(shared)
}

/// Returns filters for color images that compute the same on gray pictures as filters for gray images, or the reverse.
fn with_channels(filters: &Tensor, shape: &[usize]) -> Option<Tensor> {
    let (&[outputs, channels, height, width], &[_, wanted, ..]) = (filters.shape.as_slice(), shape)
    else {
        return None;
    };
    let area = height * width;
    if shape != [outputs, wanted, height, width] || ![(1, 3), (3, 1)].contains(&(channels, wanted))
    {
        return None;
    }
    let values = filters.values()?;
    let filters = values.chunks(channels * area);
    let values: Vec<f32> = filters
        .flat_map(|filter| {
            let sum = |pixel: usize| filter.iter().skip(pixel).step_by(area).sum::<f32>();
            let sums: Vec<f32> = (0..area).map(|pixel| sum(pixel) / wanted as f32).collect();
            sums.repeat(wanted)
        })
        .collect();
    Some(Tensor::from_values(shape.to_vec(), &values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_compute_the_same_on_gray_pictures() {
        let tensor = |shape: &[usize], values: &[f32]| Tensor::from_values(shape.to_vec(), values);
        let gray = tensor(&[2, 1, 1, 2], &[3.0, 6.0, 9.0, 12.0]);
        let color = with_channels(&gray, &[2, 3, 1, 2]).unwrap();
        assert_eq!(
            color.values().unwrap(),
            [1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 4.0, 3.0, 4.0]
        );
        assert_eq!(with_channels(&color, &[2, 1, 1, 2]), Some(gray));
        assert_eq!(with_channels(&color, &[3, 1, 1, 2]), None);
    }
}
