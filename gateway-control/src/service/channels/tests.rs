use gateway_proto::id::ServerId;
use serde_json::{Value, json};

use super::*;
use crate::test_world::World;

#[tokio::test]
async fn a_channel_that_is_called_as_nothing_new_may_be_can_be_changed_otherwise() {
    let world = World::open().await;
    let service = &world.service;
    let actor = service.authenticate(&world.session.token.0, "").await.unwrap();
    let server = serde_json::from_value(json!({"name": "lab"})).unwrap();
    let server = service.create_server(&actor, server).await.unwrap();
    let body = json!({"server_id": server.id, "name": "adt", "engine": "127.0.0.1:6661", "public_name": "ADT"});
    let channel = service.create_channel(&actor, serde_json::from_value(body).unwrap()).await.unwrap();
    // From before such names were refused.
    let (mixed, hidden) = ("K\u{43b}иника", "Admissions\u{200b}");
    let mut tx = service.storage.begin().await.unwrap();
    let mut row = tx.channel(channel.id).await.unwrap().unwrap();
    row.public_name = mixed.to_owned();
    row.public_description = hidden.to_owned();
    tx.update_channel(&row).await.unwrap();
    tx.commit().await.unwrap();

    let update = async |body| {
        let body: UpdateChannel = serde_json::from_value(body).unwrap();
        service.update_channel(&actor, channel.id, body).await
    };
    let same = json!({"engine": "127.0.0.1:6662", "public_name": mixed, "public_description": hidden});
    let changed = update(same).await.unwrap();
    assert_eq!((changed.engine.as_str(), changed.public_name.as_str()), ("127.0.0.1:6662", mixed));
    for refused in [json!({"name": mixed}), json!({"public_name": "Л\u{61}б"})] {
        assert!(matches!(update(refused).await, Err(ServiceError::Invalid(_))));
    }
    assert!(update(json!({"public_name": "Klinik"})).await.is_ok());
}

#[tokio::test]
async fn a_server_publishes_each_public_name_once_and_what_was_published_twice_before_stays() {
    let world = World::open().await;
    let service = &world.service;
    let actor = service.authenticate(&world.session.token.0, "").await.unwrap();
    let server = async |name: &str| {
        service.create_server(&actor, serde_json::from_value(json!({"name": name})).unwrap()).await.unwrap().id
    };
    let (lab, ward) = (server("lab").await, server("ward").await);
    let create = async |server: ServerId, name: &str, public_name: Option<&str>| {
        let body = json!({"server_id": server, "name": name, "engine": "127.0.0.1:6661", "public_name": public_name});
        service.create_channel(&actor, serde_json::from_value(body).unwrap()).await
    };
    let refused = |result: ServiceResult<Channel>| {
        let Err(ServiceError::Conflict(text)) = &result else { panic!("{result:?}") };
        assert!(text.contains("its channel 'adt' as 'ADT feed'"), "{text}");
    };
    let adt = create(lab, "adt", Some("ADT feed")).await.unwrap();
    refused(create(lab, "second", Some("adt FEED")).await);
    assert!(create(ward, "adt", Some("ADT feed")).await.is_ok(), "of another server");
    let hidden = create(lab, "hidden", None).await.unwrap();
    let update = async |id: ChannelId, body: Value| {
        let body: UpdateChannel = serde_json::from_value(body).unwrap();
        service.update_channel(&actor, id, body).await
    };
    refused(update(hidden.id, json!({"public_name": "ADT feed", "published": true})).await);
    assert!(update(hidden.id, json!({"public_name": "ADT feed"})).await.is_ok(), "nobody sees it");
    refused(update(hidden.id, json!({"published": true})).await);

    // From before such names were refused.
    let mut tx = service.storage.begin().await.unwrap();
    let mut row = tx.channel(hidden.id).await.unwrap().unwrap();
    row.published = true;
    tx.update_channel(&row).await.unwrap();
    tx.commit().await.unwrap();
    assert!(update(hidden.id, json!({"engine": "127.0.0.1:6662"})).await.is_ok());
    assert!(update(adt.id, json!({"published": false})).await.is_ok());
    assert!(update(hidden.id, json!({"public_name": "Visits"})).await.is_ok());
}
