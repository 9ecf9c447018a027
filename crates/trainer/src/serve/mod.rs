//! The pages and the HTTP API of `trainer serve`.
//!
//! A request passes [`connections`], [`middleware`], [`routes`] and one of the handlers, which share the
//! [`app`].

mod server;
mod connections;
mod middleware;
mod routes;

mod pages;
mod model;
mod predict;
mod samples;
mod runs;
mod events;

mod app;
mod access;
mod batch_queue;
mod blocking_pool;
mod metrics;
mod test_images;
mod request_body;
mod pixels;
mod problem;

pub(crate) use access::{AccessPolicy, is_public, request_of_lines};
pub(crate) use pixels::Pixels;
pub(crate) use server::Server;
