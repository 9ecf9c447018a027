//! A run folder and its files, and the images of a run.

pub(crate) mod atomic_file;
pub(crate) mod creation;
pub(crate) mod lock;
pub(crate) mod run_dir;

pub(crate) mod metrics;
pub(crate) mod epoch;
pub(crate) mod position;
pub(crate) mod checkpoint;
pub(crate) mod environment;
pub(crate) mod event_log;

pub(crate) mod picture_cache;
pub(crate) mod noise_images;
pub(crate) mod class_weights;
pub(crate) mod picture_preset;
pub(crate) mod image_source;
pub(crate) mod image_record;
pub(crate) mod recorded_pictures;
pub(crate) mod images;
pub(crate) mod data_report;
pub(crate) mod loaders;
