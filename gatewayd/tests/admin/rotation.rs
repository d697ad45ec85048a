//! The secret of a connection is replaced: what is open goes on, and what is opened anew uses the secret of its time.

use gateway_net::time::unix_secs;

use crate::{
    client::Client,
    site::{Terms, secret},
    world::World,
};

const OLD: u8 = 6;
const NEW: u8 = 7;

async fn asks(client: &mut Client) -> u16 {
    client.get("/api/server/version", "").await.status()
}

#[tokio::test]
async fn an_open_stream_outlives_the_secret_it_was_opened_with_and_new_ones_turn_to_the_next() {
    let mut world = World::new(Terms::READ_ONLY).await;
    let mut open = world.client().await;
    assert_eq!(asks(&mut open).await, 200);
    let (past, later) = (unix_secs(), unix_secs() + 3_600);
    // The user's gateway has heard of the new secret, the owner's has not.
    world.rotate(vec![secret(OLD, None)], vec![secret(OLD, Some(later)), secret(NEW, None)]);
    assert_eq!(asks(&mut world.client().await).await, 200);
    // Both have, and the middle is not over.
    let both = vec![secret(NEW, None), secret(OLD, Some(later))];
    world.rotate(both.clone(), vec![secret(OLD, Some(later)), secret(NEW, None)]);
    assert_eq!(asks(&mut world.client().await).await, 200);
    // The middle is over, which no policy says yet; then one does.
    for user in [vec![secret(OLD, Some(past)), secret(NEW, None)], vec![secret(NEW, None)]] {
        world.rotate(both.clone(), user);
        assert_eq!(asks(&mut world.client().await).await, 200);
    }
    // The old one counts no more, which its own end says.
    let owner = vec![secret(NEW, None), secret(OLD, Some(past))];
    world.rotate(owner.clone(), vec![secret(OLD, Some(past)), secret(NEW, None)]);
    assert_eq!(asks(&mut world.client().await).await, 200, "opened with the new one");
    world.rotate(owner, vec![secret(OLD, None)]);
    assert_eq!(asks(&mut world.client().await).await, 503, "a stream with the old one is refused");
    assert_eq!(asks(&mut open).await, 200, "nobody asks an open stream again");
}
