//! Scenarios with the real programs on loopback. Each starts its own control plane, relay and gateways.

mod acceptance;
mod admin;
mod administrator;
mod audit;
mod crashes;
mod cutting;
mod delivery;
mod engine;
mod enrolment;
mod five_steps;
mod observers;
mod partners;
mod places;
mod privacy;
mod relay;
mod status;
mod traffic;
mod twice;
