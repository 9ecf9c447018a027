//! Image datasets: from the bytes of files to batches of tensors.
//!
//! The crate reads IDX files (MNIST is embedded), tables, arrays and folders of pictures, splits, shuffles,
//! augments and normalizes the images, and groups them into batches on a device. A *picture* is a
//! file of any size and format; an *image* is an element of a dataset, with a fixed size.
//!
//! The crate knows no model, no training loop, no run folder and no command line.
//!
//! The modules follow the data flow. Each one uses only modules above it.

// Tools.
mod random; // random number generators of single images and batches
pub mod digest; // SHA-256 checksums as text
pub mod regular_file; // reading without blocking and within a size limit
pub mod shuffle; // reproducible random permutations
mod split_name; // training, validation and test in names of folders, files and columns
mod class_name; // the order of class names
mod hash_split; // test images by hashes

// From bytes to images.
pub mod sample; // one labeled image
pub mod source_file; // the file that an image was decoded from
pub mod picture_store; // the pixels of decoded pictures, in a file or in memory
mod area_average; // reduction of pictures by averaging areas
pub mod picture; // pictures in PNG, JPEG, TIFF and other formats
pub mod image_dataset; // labeled images, and views of them
pub mod idx; // the IDX file format, as functions of bytes
mod labels; // labels as names of classes
mod color_layout; // the order of color values in plain numbers
mod npy; // arrays of NumPy, as functions of bytes
mod csv_table; // tables of pixels, as functions of bytes
mod plane; // single-channel images of `f32` values
mod components; // connected components of ink
mod rules; // ruled lines, frames and borders of tables
mod handwriting; // photos and scans of handwriting, converted to the style of MNIST
mod seams; // places where connected characters can be cut apart
pub mod writing; // pictures of several characters, cut into pieces
pub mod preparation; // conversion of a picture into an image of a dataset

// From files to a dataset.
pub mod per_channel; // a number for all channels of an image, or one for each
pub mod normalization; // mean and standard deviation that pixels are normalized with
pub mod info; // name, classes, shape and pixel statistics of a dataset
pub mod error; // errors of loading a dataset
pub mod dataset; // training images, test images and their description
mod parts; // images in memory by split, and their dataset
mod emnist; // the classes of EMNIST
mod dataset_files; // files of many images in a folder, by their names
mod idx_folder; // the four IDX files of the MNIST family, in a folder or embedded
mod pickled_arrays; // arrays of NumPy in pickles of Python
mod cifar; // CIFAR-10 and CIFAR-100 as published
mod numpy_files; // arrays of images and labels
pub mod table_files; // tables of images
pub mod listing; // class folders and picture files in a folder
mod label_table; // tables of paths and labels
pub mod label_pattern; // labels in the names of files
pub mod picture_files; // a list of labeled picture files, and their decoding
pub mod picture_survey; // typical size and color of pictures
mod folder_layout; // the levels of a folder of pictures: splits above the classes
pub mod picture_folder; // a folder of pictures: its classes and its splits
pub mod similar; // copies of images with another size, compression or brightness
#[cfg(feature = "parquet")]
pub mod parquet_rows; // pictures in Parquet files
pub mod archive; // zip and tar archives, and Parquet files
pub mod source; // recognition of the format of data
pub mod split; // training and validation split

// From a dataset to batches.
mod rectangle; // rectangles of pixels
mod elastic; // random displacement fields
mod warp; // geometric transforms of an image
mod flip; // the horizontal flip
mod crop; // mirroring and cropping, as exact moves of pixels
mod color_jitter; // brightness, contrast, saturation and hue
pub mod augmentation; // random transforms of training images
pub mod corruption; // corruptions of test images, at five strengths
pub mod batch; // stacking and normalization of images into tensors
pub mod mixing; // mixup and CutMix: mixtures of the images of a batch
mod device_transform; // the random transforms of images on a device
mod device_cache; // a dataset stored on a device, with batches assembled there
pub mod loader; // order, size and placement of batches

pub use augmentation::Augmentation;
pub use batch::{Batch, MixedTargets, MnistBatcher, normalize};
pub use corruption::{Corruption, CorruptionError};
pub use crop::CropPadding;
pub use dataset::Dataset;
pub use error::DataError;
pub use flip::Flip;
pub use image_dataset::{ImageDataset, Images};
pub use info::DatasetInfo;
pub use loader::{Batches, Loader, Order};
pub use mixing::Mixing;
pub use normalization::{Normalization, Scaling};
pub use per_channel::PerChannel;
pub use picture::{Picture, PictureError, picture_size};
pub use picture_files::{
    DECODER_VERSION, DecodeOptions, DecodedPictures, LabeledFile, PictureFiles, UnreadablePicture,
    file_version,
};
pub use picture_folder::{PictureFolder, TestSelection};
pub use picture_store::{PictureStore, PixelError, StoredPicture};
pub use picture_survey::PictureSurvey;
pub use preparation::Preparation;
pub use sample::Sample;
pub use shuffle::permutation;
pub use source::{DataSource, FileLabels};
pub use source_file::SourceFile;
pub use split::{SplitError, SplitMethod, train_validation_split};
pub use writing::{Joint, Page, Writing};
