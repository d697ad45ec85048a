//! Strangers at the relay: each is refused with its code, and nobody else notices.

use anyhow::{Context, ensure};
use gateway_proto::{
    id::{OrganizationId, RelayId},
    relay::RefusalCode,
    signed::RelayToken,
};
use gateway_tests::{
    platform::Platform,
    scene::play,
    stranger::{Challenged, Knock, Stranger},
};

#[tokio::test]
async fn a_relay_admits_only_the_owner_of_a_token_of_its_control_plane() -> anyhow::Result<()> {
    let platform = Platform::start().await?;
    platform.add_relay().await?;
    platform.create_organization("north", "Organization north").await?;
    platform.create_server("north", "engine").await?;
    let code = platform.enrollment_code("north", "engine").await?;
    let (member, stranger) = (Stranger::default(), Stranger::default());
    let answer = member.enroll(&code).await?.ok().context("the member enrols")?;

    let challenged = Challenged::by(&platform.relay).await?;
    let proof = stranger.proof(&challenged);
    let knock = challenged.admit(&answer.relay_token, proof).await?;
    ensure!(knock == Knock::Refused(RefusalCode::BadProof), "another gateway's token: {knock:?}");

    let challenged = Challenged::by(&platform.relay).await?;
    let proof = stranger.proof(&challenged);
    let knock = challenged.admit(&own_token(&stranger, challenged_relay(&platform)?)?, proof).await?;
    ensure!(knock == Knock::Refused(RefusalCode::BadToken), "a token of nobody: {knock:?}");

    let challenged = Challenged::by(&platform.relay).await?;
    let old = member.proof(&challenged);
    drop(challenged);
    let challenged = Challenged::by(&platform.relay).await?;
    let knock = challenged.admit(&answer.relay_token, old).await?;
    ensure!(knock == Knock::Refused(RefusalCode::BadProof), "a replayed proof: {knock:?}");

    let knock = Challenged::by(&platform.relay).await?.say(vec![0xff; 100]).await?;
    ensure!(knock == Knock::Refused(RefusalCode::Malformed), "garbage: {knock:?}");

    let challenged = Challenged::by(&platform.relay).await?;
    let proof = member.proof(&challenged);
    let knock = challenged.admit(&answer.relay_token, proof).await?;
    ensure!(knock == Knock::Admitted, "the member itself: {knock:?}");
    Ok(())
}

#[tokio::test]
async fn a_client_that_says_nothing_is_closed_within_the_admission_limit() -> anyhow::Result<()> {
    let platform = Platform::start().await?;
    let knock = Challenged::by(&platform.relay).await?.stay_silent().await?;
    ensure!(knock != Knock::Admitted, "{knock:?}");
    Ok(())
}

#[tokio::test]
async fn a_relay_that_restarts_is_attached_again_and_messages_go_on() -> anyhow::Result<()> {
    play(async |scene| {
        scene.connected().await?;
        let status = scene.platform.relay.terminate(std::time::Duration::from_secs(20)).await?;
        ensure!(status.success(), "the relay ended with {status}");
        let message = scene.message();
        let mut sender = scene.sender();
        scene.platform.restart_relay().await?;
        gateway_tests::wait::until_true(gateway_tests::scene::PATH_LIMIT, "messages go on", async || {
            let verdict = sender.send(&message.bytes).await;
            ensure!(!matches!(verdict, gateway_tests::mllp::Verdict::Refused { .. }), "{verdict}");
            Ok(verdict == gateway_tests::mllp::Verdict::Acknowledged)
        })
        .await?;
        for site in [&scene.north, &scene.south] {
            gateway_tests::wait::until_true(
                gateway_tests::scene::PATH_LIMIT,
                "the relay is attached again",
                async || Ok(site.status(&scene.platform.ctl).await?.relays.iter().any(|relay| relay.attached)),
            )
            .await?;
        }
        Ok(())
    })
    .await
}

fn challenged_relay(platform: &Platform) -> anyhow::Result<RelayId> {
    platform.relay.ready("relay_id")?.parse().ok().context("relay id")
}

fn own_token(stranger: &Stranger, relay: RelayId) -> anyhow::Result<String> {
    let now = gateway_net::time::unix_secs();
    let token = RelayToken {
        key: stranger.key.public(),
        org: OrganizationId::from_bytes(gateway_net::random()),
        relays: vec![relay],
        iat: now,
        exp: now + 600,
    };
    Ok(token.sign(&stranger.key)?)
}
