//! Whether this process is the one that carries its gateway's data: another one with the same key may hold its place.
//!
//! The control plane alone decides it. At its start a process asks first, for a moment; without an answer it goes on as what it was,
//! because data must not wait for a control plane that is away. Once it was told that it is the second, it stands by until it is let
//! in, however long the control plane is away then.

use std::{
    sync::MutexGuard,
    time::{Duration, Instant},
};

use gateway_proto::twice::{Instance, MEMORY_SECS, RunsTwice};

use super::{Authority, Inner};

/// Whether data of this gateway passes through this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Part {
    /// As the policy allows.
    #[default]
    Full,
    /// Not before the control plane has let it in, or does not answer.
    Asking,
    /// Not while another process holds the place.
    StandsBy,
}

impl Authority {
    /// Which process of the gateway this is.
    pub fn instance(&self) -> Instance {
        self.0.instance
    }

    /// At the start: nothing is carried until [`take_part`](Self::take_part) or [`stop_asking`](Self::stop_asking).
    pub fn ask_first(&self) {
        self.set_part(self.lock(), Part::Asking);
    }

    /// Nobody answers: it goes on as it was. One that stands by does not.
    pub fn stop_asking(&self) {
        let inner = self.lock();
        if inner.part == Part::Asking {
            self.set_part(inner, Part::Full);
        }
    }

    /// The control plane lets this process in.
    pub fn take_part(&self) {
        let mut inner = self.lock();
        if inner.part == Part::StandsBy {
            tracing::info!("the control plane lets this process in: it carries data from now on");
            inner.twice = None;
        }
        self.set_part(inner, Part::Full);
    }

    /// The control plane says that there is another process with our key.
    pub fn set_twice(&self, told: RunsTwice) {
        let mut inner = self.lock();
        let part = if told.is_second { Part::StandsBy } else { Part::Full };
        inner.twice = Some((told, Instant::now()));
        self.set_part(inner, part);
    }

    /// What was said of another process with our key: as long as we stand by, or within the last hour.
    pub fn twice(&self) -> Option<RunsTwice> {
        let inner = self.lock();
        let (told, at) = inner.twice.as_ref()?;
        (told.is_second || at.elapsed() < Duration::from_secs(MEMORY_SECS)).then(|| told.clone())
    }

    fn set_part(&self, mut inner: MutexGuard<'_, Inner>, part: Part) {
        if std::mem::replace(&mut inner.part, part) != part {
            let problem = self.0.view.borrow().problem.clone();
            self.publish(&inner, problem);
        }
    }
}
