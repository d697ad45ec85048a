//! Whether a registered channel of the engine is still the one on its port; where the last look says otherwise, the
//! engine is looked at again before a stream is refused ([`gateway_proto::engine::port_owner`]).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use gateway_proto::engine::port_owner::{Decision, Look, NotOurs};
use tokio::time::{Instant, timeout_at};

use super::{EngineView, EngineWatch};

/// A stream waits for a fresh look so long at most: a look is half a second with a login, and there is one a second at most.
/// With the dial it stays below the 5 s after which an engine gives up.
const LOOK_LIMIT: Duration = Duration::from_secs(2);
/// And so long at least, however little time it has for a place: what speaks against it may be seconds old.
const LOOK_TIME: Duration = Duration::from_secs(1);

impl EngineWatch {
    /// Whether a stream for the engine's channel `id` may go to `engine`. At once where the last look agrees or the engine
    /// cannot be asked; else after one more look, which all streams that wait share, or without one at `by`, but not within
    /// [`LOOK_TIME`].
    pub async fn check_owner(&self, id: &str, engine: SocketAddr, by: Instant) -> Result<(), NotOurs> {
        if self.decide(id, engine, false) == Decision::GoOn {
            return Ok(());
        }
        // Apart, on the heap: nearly no stream comes here.
        Box::pin(self.look_now(by)).await;
        match self.decide(id, engine, true) {
            Decision::GoOn | Decision::LookAgain => Ok(()),
            Decision::Refuse(not_ours) => Err(not_ours),
        }
    }

    fn decide(&self, id: &str, engine: SocketAddr, is_last: bool) -> Decision {
        let Some(view) = self.view() else { return Decision::GoOn };
        let look = Look {
            state: view.state,
            age: view.seen_at.map(|at| at.elapsed()),
            channels: &view.channels,
            ports: &view.ports,
            left_out: view.left_out,
            is_last,
        };
        look.decide(id, engine)
    }

    /// Waits for a look that begins from now on, until `by`, for [`LOOK_TIME`] at least and [`LOOK_LIMIT`] at most.
    async fn look_now(&self, by: Instant) {
        let Some(mut view) = self.view.clone() else { return };
        let asked = Instant::now();
        self.look_again();
        let is_fresh = |view: &Arc<EngineView>| view.looked_at.is_some_and(|at| at >= asked);
        // In time or not, the newest look is the one that counts.
        let _ = timeout_at(by.clamp(asked + LOOK_TIME, asked + LOOK_LIMIT), view.wait_for(is_fresh)).await;
    }
}
