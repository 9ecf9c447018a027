//! One training, from its first step to its end.
//!
//! Read [`train`], [`epoch`] and [`step`] in this order.

pub(crate) mod train;
pub(crate) mod epoch;
pub(crate) mod step;

pub(crate) mod state;
pub(crate) mod session;
pub(crate) mod optimizer;
pub(crate) mod schedule;
pub(crate) mod running_metrics;
pub(crate) mod progress;

mod burn_train;
mod dashboard;
mod data_parallel;

pub(crate) mod range_test;
pub(crate) mod device_check;
