//! Groups of parameters that the optimizer treats alike.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use model::ConvNet;

use crate::config::run_config::{Config, OptimizerKind, TrainingConfig};

/// Path of the bias of a whitening block, which is treated by default: its gradients are much larger than those of
/// other biases.
const WHITENING_BIAS: &str = "blocks.0.conv.bias";

/// The role of a parameter in its network, by which the settings distinguish parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// The filters of a convolution.
    Filters,
    /// The bias of a convolution or of batch normalization.
    Bias,
    /// The scale of batch normalization, which decays as biases do, at the learning rate of filters.
    Scale,
    /// The weights of a dense layer.
    HeadWeights,
    /// The bias of a dense layer.
    HeadBias,
}

/// The treatment of a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Treatment {
    /// Factor on the learning rate.
    pub(crate) factor: f64,
    /// Whether weight decay applies.
    pub(crate) decays: bool,
    /// Whether updates are orthogonalized, by Muon.
    pub(crate) is_orthogonalized: bool,
}

/// Parameters of equal treatment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ParameterGroup {
    pub(crate) treatment: Treatment,
    /// Paths of the parameters in the network, such as `blocks.0.conv.bias`.
    pub(crate) paths: Vec<String>,
}

impl Role {
    /// Returns the role of the parameter at `path`.
    fn of(path: &str) -> Self {
        let is_head = path.starts_with("hidden.") || path.starts_with("output.");
        match path.rsplit('.').next() {
            Some("bias") if is_head => Self::HeadBias,
            Some("bias") => Self::Bias,
            Some("scale") => Self::Scale,
            _ if is_head => Self::HeadWeights,
            _ => Self::Filters,
        }
    }

    /// Returns the treatment that the settings give to parameters of this role.
    fn treatment(self, settings: &TrainingConfig) -> Treatment {
        let &TrainingConfig {
            bias_factor,
            head_factor,
            decay_biases,
            ..
        } = settings;
        let (factor, decays) = match self {
            Self::Filters => (1.0, true),
            Self::Bias => (bias_factor, decay_biases),
            Self::Scale => (1.0, decay_biases),
            Self::HeadWeights => (head_factor, true),
            Self::HeadBias => (head_factor * bias_factor, decay_biases),
        };
        Treatment {
            factor,
            decays,
            is_orthogonalized: self == Self::Filters && settings.optimizer == OptimizerKind::Muon,
        }
    }
}

impl Treatment {
    /// The treatment of all parameters without settings that distinguish them.
    pub(crate) const DEFAULT: Self = Self {
        factor: 1.0,
        decays: true,
        is_orthogonalized: false,
    };
}

/// Returns the groups of parameters whose treatment differs from [`Treatment::DEFAULT`].
pub(crate) fn parameter_groups(config: &Config, model: &ConvNet) -> Vec<ParameterGroup> {
    let mut groups: Vec<ParameterGroup> = Vec::new();
    for path in paths(model) {
        let treatment = Role::of(&path).treatment(&config.training);
        let is_whitening = config.model.has_whitening() && path == WHITENING_BIAS;
        if is_whitening || treatment == Treatment::DEFAULT {
            continue;
        }
        match groups.iter_mut().find(|group| group.treatment == treatment) {
            Some(group) => group.paths.push(path),
            None => groups.push(ParameterGroup {
                treatment,
                paths: vec![path],
            }),
        }
    }
    groups
}

/// Returns the path of each parameter.
fn paths(model: &ConvNet) -> Vec<String> {
    let mut visitor = Paths::default();
    model.visit(&mut visitor);
    visitor.paths
}

#[derive(Default)]
struct Paths {
    /// Names of the modules that contain the current one, and its own.
    modules: Vec<String>,
    paths: Vec<String>,
}

impl ModuleVisitor for Paths {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.modules.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.modules.pop();
    }

    fn visit_float<const D: usize>(&mut self, _: &Param<Tensor<D>>) {
        self.paths.push(self.modules.join("."));
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::config::settings::{Settings, digits};

    /// Returns the groups of a network with two blocks and a hidden layer.
    fn groups(settings: &str) -> Vec<(Treatment, Vec<String>)> {
        let mut convnet = Settings::preset("convnet").unwrap();
        convnet.overlay(settings.parse().unwrap()).unwrap();
        let config = convnet.into_config(&digits()).unwrap();
        let model = config.model.init(&Device::default()).unwrap();
        let groups = parameter_groups(&config, &model).into_iter();
        groups.map(|group| (group.treatment, group.paths)).collect()
    }

    fn group(factor: f64, decays: bool, paths: &[&str]) -> (Treatment, Vec<String>) {
        let treatment = Treatment {
            factor,
            decays,
            is_orthogonalized: false,
        };
        let paths = paths.iter().map(|&path| path.into());
        (treatment, paths.collect())
    }

    const CONV_BIASES: [&str; 2] = ["blocks.0.conv.bias", "blocks.1.conv.bias"];
    const HEAD_BIASES: [&str; 2] = ["hidden.0.bias", "output.bias"];
    const HEAD_WEIGHTS: [&str; 2] = ["hidden.0.weight", "output.weight"];

    #[test]
    fn defaults_treat_all_parameters_alike() {
        assert_eq!(groups(""), []);
    }

    #[test]
    fn settings_distinguish_biases_and_the_head() {
        let biases = [CONV_BIASES, HEAD_BIASES].concat();
        assert_eq!(
            groups("training.bias_factor = 64"),
            [group(64.0, true, &biases)]
        );
        assert_eq!(
            groups("training.decay_biases = false"),
            [group(1.0, false, &biases)]
        );
        let head = [
            "hidden.0.weight",
            "hidden.0.bias",
            "output.weight",
            "output.bias",
        ];
        assert_eq!(
            groups("training.head_factor = 2"),
            [group(2.0, true, &head)]
        );
        let all =
            "training.bias_factor = 64\ntraining.head_factor = 0.5\ntraining.decay_biases = false";
        assert_eq!(
            groups(all),
            [
                group(64.0, false, &CONV_BIASES),
                group(0.5, true, &HEAD_WEIGHTS),
                group(32.0, false, &HEAD_BIASES)
            ]
        );
    }

    #[test]
    fn muon_orthogonalizes_filters_alone() {
        let filters = ["blocks.0.conv.weight", "blocks.1.conv.weight"];
        let filters = filters.map(String::from).to_vec();
        let treatment = Treatment {
            is_orthogonalized: true,
            ..Treatment::DEFAULT
        };
        assert_eq!(
            groups("training.optimizer = \"muon\""),
            [(treatment, filters)]
        );
    }

    #[test]
    fn scales_of_batch_normalization_decay_as_biases_at_the_rate_of_filters() {
        assert_eq!(Role::of("blocks.2.scale"), Role::Scale);
        let mut settings = Settings::preset("convnet").unwrap();
        let table = "training.bias_factor = 64\ntraining.decay_biases = false";
        settings.overlay(table.parse().unwrap()).unwrap();
        let config = settings.into_config(&digits()).unwrap();
        let expected = Treatment {
            decays: false,
            ..Treatment::DEFAULT
        };
        assert_eq!(Role::Scale.treatment(&config.training), expected);
        assert_eq!(Role::of("shortcuts.0.projection.weight"), Role::Filters);
        assert_eq!(Role::of("shortcuts.0.projection.bias"), Role::Bias);
    }
}
