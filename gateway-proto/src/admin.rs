//! Admin connections: who acts, and what the owner's gateway lets through to the engine's admin API.
//!
//! | module | what it holds |
//! |---|---|
//! | [`opening`] | the frame that names the acting user at the head of every admin stream |

pub mod opening;
