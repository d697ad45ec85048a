//! gateway-control: the control plane.
pub mod clock;
pub mod limits;
pub mod service;
pub mod storage;
pub mod watchers;
