//! One training, from its first step to its end.
//!
//! Read `train.rs`, `epoch.rs` and `step.rs` in this order.

pub(crate) mod train;
pub(crate) mod source_network;
pub(crate) mod transfer;
mod epoch;
mod step;

pub(crate) mod state;
pub(crate) mod session;
mod epoch_result;
pub(crate) mod stop_reason;
pub(crate) mod optimizer;
mod parameter_groups;
mod filter_muon;
mod lookahead;
mod guard;
pub(crate) mod schedule;
pub(crate) mod running_metrics;
pub(crate) mod progress;

mod burn_train;
mod dashboard;
mod data_parallel;

pub(crate) mod cross_validation;
pub(crate) mod label_errors;
pub(crate) mod range_test;
pub(crate) mod device_check;
