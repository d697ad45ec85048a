//! Two near sites behind routers that keep an entry for every packet that arrives. A packet that comes before the other side
//! has sent its own takes the port there, and every further one renews that.

use std::time::{Duration, Instant};

use anyhow::ensure;
use gateway_proto::api::gateway::PathKind;
use gateway_tests::{
    measured,
    natlab::{NatLab, RouterKind::PlainMasquerade},
    scene::play_between,
};

use crate::exchange;

/// The first attempt wins; the start of the programs and a busy machine come on top.
const DIRECT_LIMIT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn near_sites_behind_plain_masquerading_routers_go_direct_on_the_first_attempt() -> anyhow::Result<()> {
    let mut lab = NatLab::start()?;
    for _ in 0..2 {
        lab.add_site(PlainMasquerade)?;
    }
    play_between(&lab, async |scene| {
        let begun = Instant::now();
        scene.on_path(PathKind::Direct).await?;
        let direct = begun.elapsed();
        measured!("plain masquerade, near sites: direct after {:.2} s", direct.as_secs_f64());
        ensure!(direct <= DIRECT_LIMIT, "direct only after {direct:?}");
        exchange(scene, 10).await
    })
    .await
}
