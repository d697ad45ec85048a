//! Placeholder.

pub mod authority;
pub mod cli;
pub mod config;
pub mod control_client;
mod explain;
pub mod local_api;
pub mod store;
