//! Every setting of a configuration, each stated once: its key, type, range, default, flag and help.
//!
//! The command line, the checks, the defaults, the commented files of `presets show` and docs/settings.md
//! all come from [`SETTINGS`]. A new setting is a row here and a field in `run_config`.

use std::sync::LazyLock;

use anyhow::{Result, bail};
use toml::{Table, Value};

use crate::config::constraint::Constraint::{
    self, Array, Boolean, BooleanOr, ClassWeights, Duration, Integer, Normalization, Number, OneOf,
    PerChannel, Text,
};
use crate::config::suggest::did_you_mean;

/// A setting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// Path of the key in a configuration file; `[]` stands for the elements of an array.
    pub(crate) key: &'static str,
    /// Type and range.
    pub(crate) constraint: Constraint,
    /// Unit of the value; empty for none.
    unit: &'static str,
    /// Value of a run that does not set it.
    pub(crate) default: DefaultValue,
    /// Flag of the command line.
    pub(crate) flag: Option<Flag>,
    /// Description in one sentence, without a final period.
    pub(crate) help: &'static str,
    /// Further sentences; empty for none.
    pub(crate) details: &'static str,
}

/// The value of a setting that neither preset, file nor flag sets. Values are text for
/// [`Constraint::parse`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum DefaultValue {
    /// A value.
    Value(&'static str),
    /// No value: the feature is off. The text is an example.
    Unset(&'static str),
    /// A property of the data set, measured when the run starts.
    Measured,
}

/// A flag of the command line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    /// Long name, without the hyphens in front.
    pub(crate) name: &'static str,
    /// Name of the value in the help; empty for a switch, which sets `true`.
    pub(crate) value_name: &'static str,
    /// Second long name.
    pub(crate) alias: Option<&'static str>,
}

/// A table of the configuration file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section {
    /// Name of the table; empty for the keys in front of the first table.
    pub(crate) name: &'static str,
    /// Heading in the help.
    pub(crate) heading: &'static str,
    /// Description in full sentences; empty for none.
    pub(crate) summary: &'static str,
}

/// The tables, in the order of a configuration file.
pub(crate) const SECTIONS: &[Section] = &[
    section("", "Run", ""),
    section("data", "Data", ""),
    section("model", "Network", ""),
    section("training", "Training", ""),
    section(
        "augmentation",
        "Augmentation",
        "Random changes of the training images, drawn anew in each epoch; 0 and false disable them. \
         docs/pictures.md has their order.",
    ),
    section(
        "images",
        "Images",
        "Properties of the data set, which the program measures and writes to a run's config.toml.",
    ),
];

/// Outputs of a layer, or pixels of a side.
const SIZE: Constraint = Integer(1, model::MAX_SIZE as i64);
const MAX_KERNEL: i64 = model::MAX_KERNEL as i64;
const ACTIVATION: Constraint = OneOf(&["relu", "gelu", "silu", "tanh", "none"]);

/// All settings, in the order of a configuration file.
pub(crate) const SETTINGS: &[Setting] = &[
    setting("preset", Text)
        .default("convnet")
        .flag("preset", "NAME")
        .help("Preset to start from; `trainer presets` lists them"),
    setting("about", Text)
        .default("")
        .help("Purpose of the configuration, in one line"),
    setting("data.source", Text)
        .default("mnist")
        .flag("data", "PATH")
        .help("Data set: mnist, or the path of pictures, tables or arrays")
        .details("mnist is embedded; docs/data.md describes all formats and layouts."),
    setting("data.image_size", Integer(8, 1024))
        .unit("pixels")
        .default("28")
        .flag("image-size", "N")
        .help("Height and width that pictures are resized to")
        .details("Images in files of many keep their own size unless one is given."),
    setting("data.labels", Text)
        .unset("labels.csv")
        .flag("labels", "FILE")
        .help("Table with columns path and label, for pictures without class folders")
        .details("A column split divides the pictures."),
    setting("data.label_pattern", Text)
        .unset("{label}_*")
        .flag("label-pattern", "PATTERN")
        .help("Labels in the names of pictures: {label}_* for cat_001.png"),
    setting("data.preparation", OneOf(&["handwriting", "object", "picture"]))
        .unset("handwriting")
        .flag("preparation", "HOW")
        .help("Conversion of pictures into images")
        .details(
            "handwriting finds strokes and centers them as in MNIST, object scales and makes the background dark as in \
             Fashion-MNIST, picture scales.",
        ),
    setting("data.channels", Integer(1, 3))
        .unset("3")
        .flag("channels", "1|3")
        .help("Color channels to convert the images to: 1 for gray, 3 for RGB")
        .details("A network for color pictures can so be trained on gray ones, and the reverse."),
    setting("data.normalization", Normalization)
        .default("mean-std")
        .flag("normalization", "HOW")
        .help("Pixel normalization")
        .details(
            "unit scales pixels to 0..1 and half to -1..1; mean-std standardizes each channel by its mean and \
             standard deviation in the data set, MEAN,STD by the given ones. For color images, six numbers are the \
             means of red, green and blue, and their standard deviations.",
        ),
    setting("data.validation", Number(0.0, 0.9))
        .default("0.1")
        .flag("validation", "FRACTION")
        .help("Fraction of the training images held out for validation"),
    setting("data.validation_split", OneOf(&["random", "last", "stratified"]))
        .default("random")
        .flag("validation-split", "HOW")
        .help("Selection of the validation images")
        .details(
            "last takes the end of the training split, as Keras does; stratified takes the same fraction of each class, which \
             is the default for pictures and tables.",
        ),
    setting("data.sampler", OneOf(&["all", "balanced"]))
        .default("all")
        .flag("sampler", "NAME")
        .help("Training images of an epoch: each once, or as many of each class")
        .details("balanced repeats images of rare classes and leaves out some of frequent ones."),
    setting("data.limit_train", Integer(1, u32::MAX as i64))
        .unset("1000")
        .flag("limit-train", "N")
        .help("Number of training images to use, before the validation split"),
    setting("model.channels", Integer(1, 3))
        .measured()
        .help("Color channels of the images"),
    setting("model.input", Array)
        .measured()
        .help("Height and width of the images"),
    setting("model.input[]", SIZE)
        .unit("pixels")
        .measured()
        .help("Height or width"),
    setting("model.classes", SIZE)
        .measured()
        .help("Number of classes"),
    setting("model.blocks", Array)
        .default(
            "[{ channels = 32, kernel = 3, padding = 1, pool = true }, \
              { channels = 64, kernel = 3, padding = 1, pool = true }]",
        )
        .help("Convolution blocks and residual groups, in order; [] for a dense network")
        .details("docs/networks.md describes them with examples."),
    setting("model.blocks[].channels", SIZE)
        .default("32")
        .help("Output channels of the convolution"),
    setting("model.blocks[].kernel", Integer(1, MAX_KERNEL))
        .unit("pixels")
        .default("3")
        .help("Height and width of the kernel"),
    setting("model.blocks[].padding", Integer(0, MAX_KERNEL - 1))
        .unit("pixels")
        .default("1")
        .help("Zero padding on each side"),
    setting("model.blocks[].stride", Integer(1, MAX_KERNEL))
        .unit("pixels")
        .default("1")
        .help("Stride of the convolution"),
    setting("model.blocks[].bias", Boolean)
        .default("true")
        .help("Whether the block has a bias"),
    setting("model.blocks[].norm", Boolean)
        .default("false")
        .help("Whether batch normalization precedes the activation (Ioffe and Szegedy 2015)")
        .details("It is folded into the weights that are saved for use."),
    setting("model.blocks[].norm_scale", Boolean)
        .default("false")
        .help("Whether batch normalization learns a scale per channel"),
    setting("model.blocks[].activation", ACTIVATION)
        .default("relu")
        .help("Activation function"),
    setting(
        "model.blocks[].pool",
        BooleanOr(&["max", "average", "global-max", "global-average"]),
    )
    .default("true")
    .help("Pooling at the end of the block")
    .details("true is max; in a residual group the default is false."),
    setting("model.blocks[].pool_size", Integer(1, MAX_KERNEL))
        .unit("pixels")
        .default("2")
        .help("Height and width of a pooling window"),
    setting("model.blocks[].pool_stride", Integer(1, MAX_KERNEL))
        .unit("pixels")
        .unset("2")
        .help("Distance between pooling windows; by default, the size of a window"),
    setting("model.blocks[].pool_padding", Integer(0, MAX_KERNEL / 2))
        .unit("pixels")
        .default("0")
        .help("Padding before the pooling on each side"),
    setting("model.blocks[].pool_first", Boolean)
        .unset("true")
        .help("Whether pooling precedes batch normalization and activation; by default, as norm"),
    setting("model.blocks[].dropout", Number(0.0, 0.99))
        .default("0.0")
        .help("Dropout probability at the end of the block"),
    setting(
        "model.blocks[].initialization",
        OneOf(&["pytorch", "keras", "dirac"]),
    )
    .unset("dirac")
    .help("Weight initialization of the block; by default, that of the network")
    .details("dirac is a partial identity (Zagoruyko and Komodakis 2017)."),
    setting("model.blocks[].whitening", Boolean)
        .default("false")
        .help("Whether the filters of the first block whiten the training images and stay frozen (Jordan 2024)"),
    setting("model.blocks[].residual", Array)
        .unset("[{ channels = 64 }, { channels = 64 }]")
        .help("Blocks of a residual group, whose input is added to their output (He et al. 2016)"),
    setting("model.dense", Array)
        .default("[128]")
        .help("Outputs of the hidden dense layers, in order"),
    setting("model.dense[]", SIZE).help("Outputs of a layer"),
    setting("model.dense_activation", ACTIVATION)
        .default("relu")
        .help("Activation function of the hidden dense layers"),
    setting("model.dropout", Number(0.0, 0.99))
        .default("0.0")
        .flag("dropout", "P")
        .help("Dropout probability before the last layer"),
    setting("model.output_bias", Boolean)
        .default("true")
        .help("Whether the last layer has a bias"),
    setting("model.logit_scale", Number(1e-6, 1e6))
        .default("1.0")
        .help("Constant factor of the logits"),
    setting("model.initialization", OneOf(&["pytorch", "keras"]))
        .default("pytorch")
        .flag("initialization", "FRAMEWORK")
        .help("Weight initialization")
        .details("pytorch is Kaiming uniform, keras Glorot uniform with zero biases."),
    setting("training.epochs", Integer(1, 100_000))
        .default("5")
        .flag("epochs", "N")
        .help("Passes over the training images"),
    setting("training.max_steps", Integer(1, i64::MAX))
        .unset("1000")
        .flag("max-steps", "N")
        .help("Number of optimizer steps after which training stops"),
    setting("training.max_time", Duration)
        .unset("10m")
        .flag("max-time", "TIME")
        .help("Total training time after which training stops")
        .details("It includes the time before a run was resumed."),
    setting("training.early_stopping", Integer(1, 100_000))
        .unset("3")
        .flag("early-stopping", "N")
        .help("Epochs without a better validation accuracy after which training stops"),
    setting("training.checkpoint_every", Integer(1, i64::MAX))
        .unset("500")
        .flag("checkpoint-every", "N")
        .help("Optimizer steps between checkpoints")
        .details("A checkpoint is also written after each epoch."),
    setting("training.batch_size", Integer(1, 65_536))
        .default("64")
        .flag("batch-size", "N")
        .help("Images per batch")
        .details(
            "The last batch of an epoch has the remaining images. With batch normalization, a remainder of fewer \
             than 8 images per device is added to the batch before it.",
        ),
    setting("training.accumulate", Integer(1, 65_536))
        .default("1")
        .flag("accumulate", "N")
        .help("Batches whose gradients are averaged for one optimizer step"),
    setting("training.class_weights", ClassWeights)
        .unset("[0.5, 2.0]")
        .flag("class-weights", "balanced|FILE")
        .help("Factors of the loss of each class; balanced makes rare classes count as much as frequent ones")
        .details(
            "balanced divides the number of images by that of the classes and by that of the class. FILE is a table with the \
             columns class and weight. A run records the numbers.",
        ),
    setting("training.select_by", OneOf(&["accuracy", "balanced-accuracy", "macro-f1", "loss"]))
        .default("accuracy")
        .flag("select-by", "METRIC")
        .help("Validation metric that the best epoch is chosen by")
        .details("balanced-accuracy is the mean recall of the classes, macro-f1 the mean F1."),
    setting("training.eval_batch_size", Integer(1, 65_536))
        .default("250")
        .flag("eval-batch-size", "N")
        .help("Images per evaluation batch")
        .details("It changes memory use and speed, and results only by rounding: a loss by less than 1e-5."),
    setting("training.precision", OneOf(&["f32", "bf16", "f16"]))
        .default("f32")
        .flag("precision", "TYPE")
        .help("Number format of feature maps and matrix products in training")
        .details(
            "Weights and evaluations stay in f32; bf16 and f16 need a device that supports them \
             (Micikevicius et al. 2018).",
        ),
    setting("training.optimizer", OneOf(&["adam", "adamw", "sgd", "muon"]))
        .default("adam")
        .flag("optimizer", "NAME")
        .help("Optimizer")
        .details(
            "muon orthogonalizes the updates of convolution filters (Jordan et al. 2024) and trains the other \
             parameters by sgd, both with Nesterov momentum.",
        ),
    setting("training.momentum", Number(0.0, 0.999_999))
        .default("0.9")
        .flag("momentum", "RATE")
        .help("Momentum of sgd and muon"),
    setting("training.nesterov", Boolean)
        .default("false")
        .switch("nesterov")
        .help("Nesterov momentum for sgd (Sutskever et al. 2013)"),
    setting("training.beta1", Number(0.0, 0.999_999))
        .default("0.9")
        .flag("beta1", "RATE")
        .help("Adam's beta1: decay rate of the first-moment estimate (Kingma and Ba 2015)"),
    setting("training.beta2", Number(0.0, 0.999_999))
        .default("0.999")
        .flag("beta2", "RATE")
        .help("Adam's beta2: decay rate of the second-moment estimate"),
    setting("training.learning_rate", Number(1e-10, 100.0))
        .default("0.001")
        .flag("learning-rate", "RATE")
        .alias("lr")
        .help("Learning rate, or its maximum under a schedule"),
    setting("training.bias_factor", Number(1e-3, 1e3))
        .default("1.0")
        .flag("bias-factor", "FACTOR")
        .help("Factor on the learning rate of biases")
        .details("Weight decay per step stays the same: it is divided by this factor."),
    setting("training.head_factor", Number(1e-3, 1e3))
        .default("1.0")
        .flag("head-factor", "FACTOR")
        .help("Factor on the learning rate of the dense layers")
        .details("Their biases have both factors. Weight decay per step stays the same."),
    setting(
        "training.schedule",
        OneOf(&[
            "constant",
            "cosine",
            "one-cycle",
            "linear",
            "step",
            "plateau",
        ]),
    )
    .default("constant")
    .flag("schedule", "NAME")
    .help("Learning-rate schedule")
    .details(
        "cosine anneals to 0; one-cycle rises and falls (Smith and Topin 2018); linear rises from 0.2 and falls to \
         0.07 of the maximum in straight lines; step decays at fixed epochs, plateau when the validation loss \
         stops falling.",
    ),
    setting("training.warmup_steps", Integer(0, i64::MAX))
        .unit("steps")
        .default("0")
        .flag("warmup-steps", "N")
        .help("Length of the learning-rate warmup")
        .details("With one-cycle, 0 stands for 30% of all steps, with linear for 23%."),
    setting("training.decay", Number(1e-6, 1.0))
        .default("0.1")
        .flag("decay", "FACTOR")
        .help("Factor by which the schedules step and plateau multiply the learning rate"),
    setting("training.decay_epochs", Integer(1, 100_000))
        .default("2")
        .flag("decay-epochs", "N")
        .help("Epochs between decays (step) or without a lower validation loss (plateau)"),
    setting("training.weight_decay", Number(0.0, 10.0))
        .unset("0.01")
        .flag("weight-decay", "RATE")
        .help("Weight decay")
        .details("Without it, adamw uses 0.01 (Loshchilov and Hutter 2019), the other optimizers 0."),
    setting("training.decay_biases", Boolean)
        .default("true")
        .flag("decay-biases", "BOOLEAN")
        .help("Whether biases and the scales of batch normalization decay: true or false"),
    setting("training.gradient_clip", Number(1e-6, 1e6))
        .unset("1.0")
        .flag("gradient-clip", "NORM")
        .help("Maximum L2 norm of the gradients: gradient clipping (Pascanu et al. 2013)"),
    setting("training.ema_decay", Number(0.0, 0.999_999))
        .default("0.0")
        .flag("ema-decay", "RATE")
        .help("Decay rate of an exponential moving average of the weights")
        .details("Above 0, the average is evaluated and saved in place of the last weights."),
    setting("training.whitening_bias_epochs", Integer(0, 100_000))
        .unset("3")
        .help("Epochs in which the bias of a whitening block is trained; by default, all"),
    setting("training.lookahead", Integer(0, 1_000_000))
        .unit("steps")
        .default("0")
        .flag("lookahead", "N")
        .help("Steps between the updates of slow weights: lookahead (Zhang et al. 2019)")
        .details(
            "Above 0, training continues from the slow weights after each update, and they are evaluated and \
             saved. They follow the weights ever more slowly (Jordan 2024).",
        ),
    setting(
        "training.freeze",
        OneOf(&["none", "blocks", "all-but-head"]),
    )
    .default("none")
    .flag("freeze", "LAYERS")
    .help("Layers that keep the weights of --init-from: none, the convolutional blocks, or all but the last")
    .details("Fewer trained weights need fewer images."),
    setting("training.label_smoothing", Number(0.0, 0.9))
        .default("0.0")
        .flag("label-smoothing", "P")
        .help("Label smoothing factor (Szegedy et al. 2016)"),
    setting("training.seed", Integer(0, i64::MAX))
        .default("42")
        .flag("seed", "N")
        .help("Seed of weights, image order, augmentation, dropout and validation split"),
    setting("training.report_train", Boolean)
        .default("true")
        .help("Evaluate the training images after training"),
    setting("training.report_test", Boolean)
        .default("false")
        .switch("report-test")
        .help("Report the test accuracy after each epoch; no choice depends on it"),
    setting("augmentation.rotation", Number(0.0, 180.0))
        .unit("degrees")
        .default("0.0")
        .flag("rotation", "DEGREES")
        .help("Maximum rotation in either direction"),
    setting("augmentation.translation", Number(0.0, 1.0))
        .default("0.0")
        .flag("translation", "FRACTION")
        .help("Maximum translation as a fraction of height and width"),
    setting("augmentation.scale", Number(0.0, 0.9))
        .default("0.0")
        .flag("scale", "FRACTION")
        .help("Maximum enlargement or reduction as a fraction of the size"),
    setting("augmentation.shear", Number(0.0, 80.0))
        .unit("degrees")
        .default("0.0")
        .flag("shear", "DEGREES")
        .help("Maximum shear in either direction"),
    setting("augmentation.elastic", Number(0.0, 0.5))
        .default("0.0")
        .flag("elastic", "FRACTION")
        .help("Elastic distortion: standard deviation of displacements as a fraction of the longer side")
        .details("Displacements vary smoothly over the image (Simard et al. 2003)."),
    setting("augmentation.erasing", Number(0.0, 1.0))
        .default("0.0")
        .flag("erasing", "P")
        .help("Probability that a rectangle of 2 to 20% of the image becomes black"),
    setting("augmentation.flip", BooleanOr(&["alternating"]))
        .default("false")
        .flag("flip", "HOW")
        .help("Mirror images left to right")
        .details(
            "true mirrors each image with probability 0.5, alternating a random half in odd epochs and the \
             other half in even epochs (Jordan 2024).",
        ),
    setting("augmentation.crop", Integer(0, 1023))
        .unit("pixels")
        .default("0")
        .flag("crop", "N")
        .help("Random crop after padding by this number of pixels on each side")
        .details("It must be less than the height and width of the images."),
    setting("augmentation.crop_padding", OneOf(&["reflect", "zero"]))
        .default("reflect")
        .flag("crop-padding", "HOW")
        .help("Pixels around the image in a random crop")
        .details("reflect mirrors the image at its outermost pixels, zero is black."),
    setting("augmentation.resized_crop", Number(0.0, 1.0))
        .default("0.0")
        .flag("resized-crop", "FRACTION")
        .help("Random resized crop: minimum area as a fraction of the image")
        .details("The crop has an aspect ratio of 3/4 to 4/3 (Szegedy et al. 2015)."),
    setting("augmentation.cutout", Integer(0, 1024))
        .unit("pixels")
        .default("0")
        .flag("cutout", "N")
        .help("Side of a square around a random pixel that is masked (DeVries and Taylor 2017)")
        .details(
            "Masked pixels are 0 after normalization: with mean-std, the mean of the data set. The square is at \
             most as large as the image.",
        ),
    setting("augmentation.brightness", Number(0.0, 1.0))
        .default("0.0")
        .flag("brightness", "FRACTION")
        .help("Maximum relative change of the brightness")
        .details("Brightness, contrast, saturation and hue change as in torchvision's ColorJitter, in this order."),
    setting("augmentation.contrast", Number(0.0, 1.0))
        .default("0.0")
        .flag("contrast", "FRACTION")
        .help("Maximum relative change of the contrast"),
    setting("augmentation.saturation", Number(0.0, 1.0))
        .default("0.0")
        .flag("saturation", "FRACTION")
        .help("Maximum relative change of the saturation, for color images"),
    setting("augmentation.hue", Number(0.0, 0.5))
        .default("0.0")
        .flag("hue", "FRACTION")
        .help("Maximum rotation of the hue as a fraction of the circle, for color images"),
    setting("augmentation.mixup", Number(0.0, 100.0))
        .default("0.0")
        .flag("mixup", "ALPHA")
        .help("Parameter of the beta distribution of mixup's weights (Zhang et al. 2018)")
        .details("The training accuracy of mixed images counts the class with the larger weight."),
    setting("augmentation.cutmix", Number(0.0, 100.0))
        .default("0.0")
        .flag("cutmix", "ALPHA")
        .help("Parameter of the beta distribution of CutMix's areas (Yun et al. 2019)")
        .details("With mixup too, each batch gets one of the two with probability 0.5."),
    setting("images.name", Text)
        .measured()
        .help("Name of the data set"),
    setting("images.classes", Array)
        .measured()
        .help("Names of the classes, in the order of the labels"),
    setting("images.classes[]", Text)
        .measured()
        .help("Name of a class"),
    setting("images.channels", Integer(1, 3))
        .measured()
        .help("Color channels: 1 for grayscale, 3 for RGB"),
    setting("images.height", SIZE)
        .unit("pixels")
        .measured()
        .help("Height of an image"),
    setting("images.width", SIZE)
        .unit("pixels")
        .measured()
        .help("Width of an image"),
    setting("images.mean", PerChannel(0.0, 1.0))
        .measured()
        .help("Mean of the training pixels, scaled to 0..1")
        .details("Of color images an array with the mean of each channel, or one number in runs of older versions."),
    setting("images.std", PerChannel(1e-6, 1.0))
        .measured()
        .help("Standard deviation of the training pixels, scaled to 0..1, in the form of mean"),
    setting(
        "images.preparation",
        OneOf(&["handwriting", "object", "picture"]),
    )
    .measured()
    .help("Preparation of pictures for a network trained on these images"),
];

const fn section(name: &'static str, heading: &'static str, summary: &'static str) -> Section {
    Section {
        name,
        heading,
        summary,
    }
}

const fn setting(key: &'static str, constraint: Constraint) -> Setting {
    Setting {
        key,
        constraint,
        unit: "",
        default: DefaultValue::Unset(""),
        flag: None,
        help: "",
        details: "",
    }
}

impl Setting {
    const fn unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    const fn default(self, text: &'static str) -> Self {
        let default = DefaultValue::Value(text);
        Self { default, ..self }
    }

    const fn unset(self, example: &'static str) -> Self {
        let default = DefaultValue::Unset(example);
        Self { default, ..self }
    }

    const fn measured(self) -> Self {
        let default = DefaultValue::Measured;
        Self { default, ..self }
    }

    const fn flag(self, name: &'static str, value_name: &'static str) -> Self {
        let flag = Some(Flag {
            name,
            value_name,
            alias: None,
        });
        Self { flag, ..self }
    }

    const fn switch(self, name: &'static str) -> Self {
        self.flag(name, "")
    }

    const fn alias(self, alias: &'static str) -> Self {
        let flag = match self.flag {
            Some(flag) => Some(Flag {
                alias: Some(alias),
                ..flag
            }),
            None => None,
        };
        Self { flag, ..self }
    }

    const fn help(self, help: &'static str) -> Self {
        Self { help, ..self }
    }

    const fn details(self, details: &'static str) -> Self {
        Self { details, ..self }
    }

    /// Returns the name of its table and its key in there.
    pub(crate) fn path(&self) -> (&'static str, &'static str) {
        self.key.split_once('.').unwrap_or(("", self.key))
    }

    /// Returns its table.
    pub(crate) fn section(&self) -> Section {
        let (name, _) = self.path();
        let section = SECTIONS.iter().find(|section| section.name == name);
        *section.unwrap_or(&SECTIONS[0])
    }

    /// Returns the accepted values with their unit: `8 to 1024 pixels`.
    pub(crate) fn values(&self) -> String {
        let space = if self.unit.is_empty() { "" } else { " " };
        format!("{}{space}{}", self.constraint.values(), self.unit)
    }

    /// Returns the description with the accepted values, for the help.
    pub(crate) fn summary(&self) -> String {
        let (help, values) = (self.help, self.values());
        match self.constraint {
            Integer(..) | Number(..) | PerChannel(..) => format!("{help}, {values}"),
            Duration => format!("{help}, such as {values}"),
            OneOf(_) | Normalization | BooleanOr(_) => format!("{help}: {values}"),
            Text | Boolean | ClassWeights | Array => help.into(),
        }
    }

    /// Returns the default value for the help; `None` for a switch, which is off.
    pub(crate) fn default_text(&self) -> Option<String> {
        match self.default_value()? {
            Value::Boolean(_) => None,
            Value::String(text) => Some(text),
            // Without the fraction of 0.0.
            Value::Float(number) => Some(number.to_string()),
            value => Some(value.to_string()),
        }
    }

    /// Returns the default value, if it has one.
    pub(crate) fn default_value(&self) -> Option<Value> {
        match self.default {
            DefaultValue::Value(text) => Some(self.constraint.parse(text)),
            DefaultValue::Unset(_) | DefaultValue::Measured => None,
        }
    }
}

/// Returns the default of every setting that has one.
pub(crate) fn defaults() -> Table {
    static DEFAULTS: LazyLock<Table> = LazyLock::new(|| {
        let mut defaults = Table::new();
        for setting in SETTINGS.iter().filter(|setting| !setting.key.contains('[')) {
            if let Some(value) = setting.default_value() {
                insert(&mut defaults, setting, value);
            }
        }
        defaults
    });
    DEFAULTS.clone()
}

/// Sets the value of a setting.
pub(crate) fn insert(settings: &mut Table, setting: &Setting, value: Value) {
    let (section, key) = setting.path();
    if section.is_empty() {
        settings.insert(key.into(), value);
        return;
    }
    let section = settings
        .entry(section)
        .or_insert_with(|| Value::Table(Table::new()));
    if let Value::Table(section) = section {
        section.insert(key.into(), value);
    }
}

/// Returns the value of a setting.
pub(crate) fn get<'a>(settings: &'a Table, setting: &Setting) -> Option<&'a Value> {
    match setting.path() {
        ("", key) => settings.get(key),
        (section, key) => settings.get(section)?.get(key),
    }
}

/// Removes the settings that the program measures on the data set.
pub(crate) fn remove_measured(settings: &mut Table) {
    let measured = |setting: &&Setting| matches!(setting.default, DefaultValue::Measured);
    for setting in SETTINGS.iter().filter(measured) {
        let (section, key) = setting.path();
        if let Some(Value::Table(section)) = settings.get_mut(section) {
            section.remove(key);
        }
    }
    settings.remove("images");
}

/// Checks that every key of `table` is known and every value accepted. Presets, files and flags are checked
/// before they are merged, so that the error can name where the setting comes from.
///
/// # Errors
/// Returns an error for the first key that is unknown or whose value is not accepted, with the value that was
/// found and the values that are accepted.
pub(crate) fn check(table: &Table) -> Result<()> {
    check_table("", table)
}

fn check_table(path: &str, table: &Table) -> Result<()> {
    for (name, value) in table {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        check_value(&path, value)?;
    }
    Ok(())
}

fn check_value(path: &str, value: &Value) -> Result<()> {
    // The blocks of a residual group have the settings of other blocks.
    let key = path.replacen("[].residual[]", "[]", 1);
    let is_section = SETTINGS.iter().any(|setting| {
        let rest = setting.key.strip_prefix(key.as_str());
        rest.is_some_and(|rest| rest.starts_with('.'))
    });
    if let (true, Value::Table(table)) = (is_section, value) {
        return check_table(path, table);
    }
    if is_section {
        bail!("{path} = {value}: expected a table");
    }
    let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else {
        let known = SETTINGS.iter().map(|setting| setting.key);
        bail!("unknown key {path}{}", did_you_mean(&key, known));
    };
    if !setting.constraint.accepts(value) {
        bail!("{path} = {value}: expected {}", setting.constraint);
    }
    if let (Array, Value::Array(elements)) = (setting.constraint, value) {
        for element in elements {
            check_value(&format!("{path}[]"), element)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use model::{BlockConfig, ConvNetConfig};

    use super::*;

    #[track_caller]
    fn error(text: &str) -> String {
        check(&text.parse().unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn unknown_keys_suggest_the_nearest_one() {
        assert_eq!(
            error("training.epocs = 3"),
            "unknown key training.epocs (did you mean training.epochs?)"
        );
        assert_eq!(
            error("batch_size = 3"),
            "unknown key batch_size (did you mean training.batch_size?)"
        );
        assert_eq!(
            error("model.blocks = [{ kernal = 3 }]"),
            "unknown key model.blocks[].kernal (did you mean model.blocks[].kernel?)"
        );
        assert_eq!(error("xyz = 3"), "unknown key xyz");
    }

    #[test]
    fn rejected_values_name_the_range() {
        assert_eq!(
            error("training.batch_size = 0"),
            "training.batch_size = 0: expected an integer from 1 to 65536"
        );
        assert_eq!(
            error("training.batch_size = -5"),
            "training.batch_size = -5: expected an integer from 1 to 65536"
        );
        assert_eq!(
            error("training.learning_rate = nan"),
            "training.learning_rate = nan: expected a number from 0.0000000001 to 100"
        );
        assert_eq!(
            error("training.optimizer = \"adm\""),
            "training.optimizer = \"adm\": expected adam or adamw or sgd or muon"
        );
        assert_eq!(error("training = 3"), "training = 3: expected a table");
    }

    #[test]
    fn keys_and_flags_are_unique_and_described() {
        for (index, setting) in SETTINGS.iter().enumerate() {
            let others = &SETTINGS[..index];
            assert!(!setting.help.is_empty() && !setting.help.ends_with('.'));
            assert!(others.iter().all(|other| other.key != setting.key));
            let name = |setting: &Setting| setting.flag.map(|flag| flag.name);
            let is_same = |other: &Setting| name(other).is_some() && name(other) == name(setting);
            assert!(!others.iter().any(is_same), "{}", setting.key);
        }
    }

    #[test]
    fn defaults_and_examples_are_accepted() {
        check(&defaults()).unwrap();
        for setting in SETTINGS {
            let text = match setting.default {
                DefaultValue::Value(text) | DefaultValue::Unset(text) => text,
                DefaultValue::Measured => continue,
            };
            let value = setting.constraint.parse(text);
            let is_element = setting.key.ends_with("[]");
            assert!(
                is_element || setting.constraint.accepts(&value),
                "{}",
                setting.key
            );
        }
    }

    #[test]
    fn network_defaults_are_those_of_the_model_crate() {
        let model: ConvNetConfig = defaults()["model"].clone().try_into().unwrap();
        assert_eq!(model, ConvNetConfig::default());
        let mut block = Table::new();
        for setting in SETTINGS {
            if let Some(key) = setting.key.strip_prefix("model.blocks[].") {
                block.extend(setting.default_value().map(|value| (key.into(), value)));
            }
        }
        let model = Table::from_iter([("blocks".into(), Value::Array(vec![block.into()]))]);
        let model: ConvNetConfig = model.try_into().unwrap();
        assert_eq!(model.blocks, [BlockConfig::default().into()]);
    }
}
