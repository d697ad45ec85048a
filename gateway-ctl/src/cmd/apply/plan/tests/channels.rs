//! Channels that follow their engine, and names that fit more than one.

use gateway_proto::engine::plan::EndState;

use super::*;

/// The organization of [`everything`], its one channel as it is by now, following its engine.
fn following(channel: Channel, state: EndState) -> Found {
    let following = BTreeMap::from([(channel.id, state)]);
    Found { channels: vec![channel], following, grants: vec![grant(GrantStatus::Active)], ..everything() }
}

fn moved() -> Channel {
    Channel { engine: "127.0.0.1:7771".into(), ..channel() }
}

#[test]
fn a_channel_that_follows_its_engine_stays_where_the_engine_has_it() {
    let found = following(moved(), EndState::Started);
    assert_eq!(steps(SITE, &found), Vec::<String>::new());
    let words = "follows its engine, which has it at 127.0.0.1:7771 and not at 127.0.0.1:6661: let the file say so";
    assert_eq!(waits(SITE, &found), [format!("the channel 'lab/adt' {words}")]);
    // What the engine does not say is changed all the same, and the port is not sent with it.
    let text = SITE.replace("publish = 'ADT feed'", "publish = 'ADT feed'\n    description = 'admissions'");
    let changed = plan(&site(&text), &found);
    assert!(
        matches!(&changed.steps[..], [Step::ChangeChannel { update, .. }]
            if update.engine.is_none() && update.public_description.as_deref() == Some("admissions")),
        "{changed:?}"
    );
    // Deleted in the engine, it is for a person to say where it is.
    let gone = waits(SITE, &following(moved(), EndState::Missing));
    assert!(gone.len() == 1 && gone[0].contains("--engine-channel"), "{gone:?}");
    // The file agrees, or it follows nothing.
    assert_eq!(waits(SITE, &following(channel(), EndState::Started)), Vec::<String>::new());
    let by_hand = Found { following: BTreeMap::new(), ..found };
    assert_eq!(steps(SITE, &by_hand), ["change the channel 'lab/adt': engine 127.0.0.1:7771 → 127.0.0.1:6661"]);
}

#[test]
fn a_channel_that_was_renamed_in_its_engine_is_not_made_a_second_time() {
    let renamed = Channel { name: "adt-new".into(), ..moved() };
    let found = following(renamed.clone(), EndState::Started);
    assert_eq!(steps(SITE, &found), Vec::<String>::new());
    let words = "is 'adt-new' at 127.0.0.1:7771 now, as in its engine: let the file say so, until then nothing of it is changed";
    assert_eq!(waits(SITE, &found), [format!("the channel 'lab/adt' {words}")]);
    // What was recognised by less than its name is granted to nobody else.
    let not_granted = Found { grants: Vec::new(), ..following(renamed.clone(), EndState::Started) };
    assert_eq!(steps(SITE, &not_granted), Vec::<String>::new());
    assert!(waits(SITE, &not_granted)[1].ends_with("waits for the file to call its channel by its name"));
    // One that partners do not see is known by its port.
    let hidden = Channel { name: "adt-new".into(), published: false, ..channel() };
    let text = SITE[..SITE.find("[[peer]]").unwrap()].replace("publish = 'ADT feed'", "");
    assert_eq!(steps(&text, &following(hidden, EndState::Started)), Vec::<String>::new());
    assert_eq!(steps(&text, &following(renamed.clone(), EndState::Started)).len(), 1, "a published one is not taken");

    // Another one is made where it is not sure that it is this one: it follows nothing, or the file names it, or two fit.
    let made = |found: &Found, text: &str| steps(text, found).contains(&"create the channel 'lab/adt'".to_owned());
    let by_hand = Found { following: BTreeMap::new(), ..following(renamed.clone(), EndState::Started) };
    assert!(made(&by_hand, SITE));
    let named = "[[channel]]\nserver = 'lab'\nname = 'adt-new'\nengine = '127.0.0.1:7771'\npublish = 'ADT feed'\n";
    assert!(made(&found, &format!("{SITE}{named}")));
    let twin = Channel { id: ChannelId::new(2, [1; 10]), name: "adt-2".into(), ..renamed.clone() };
    let following_both = BTreeMap::from([(renamed.id, EndState::Started), (twin.id, EndState::Started)]);
    let both = Found { channels: vec![renamed, twin], following: following_both, ..everything() };
    assert!(made(&both, SITE));
}

#[test]
fn a_grant_whose_name_fits_two_channels_means_the_published_one_or_says_its_server() {
    let channel = |server: &str, name: &str, publish: &str| {
        let engine = "engine = '127.0.0.1:1'";
        format!(
            "[[server]]\nname = '{server}'\n[[channel]]\nserver = '{server}'\nname = '{name}'\n{engine}\n{publish}\n"
        )
    };
    let grant = |of: &str| format!("[[grant]]\nto = 'Clinic B'\n{of}\n");
    let found = Found { agreements: vec![agreement(2, "Clinic B")], ..nothing() };
    let granted = |text: &str| {
        let plan = plan(&site(text), &found);
        let of = |step: &Step| match step {
            Step::OfferGrant { channel, .. } => Some(*channel),
            Step::CreateServer { .. }
            | Step::CreateChannel { .. }
            | Step::ChangeChannel { .. }
            | Step::RequestPeering { .. } => None,
        };
        (plan.steps.iter().filter_map(of).collect::<Vec<_>>(), plan.waits)
    };
    let publish = "publish = 'X'";
    let one = channel("a/b", "adt", publish) + &channel("a", "b/adt", "") + &grant("channel = 'a/b/adt'");
    assert_eq!(granted(&one), (vec![Which::Made(0)], Vec::new()));
    let both = channel("a/b", "adt", publish) + &channel("a", "b/adt", publish);
    let (offered, waits) = granted(&(both.clone() + &grant("channel = 'a/b/adt'")));
    assert!(offered.is_empty() && waits[0].contains("give the grant the `server`"), "{waits:?}");
    for (server, name, place) in [("A/B", "adt", 0), ("a", "B/adt", 1)] {
        let of = format!("server = '{server}'\nchannel = '{name}'");
        assert_eq!(granted(&(both.clone() + &grant(&of))), (vec![Which::Made(place)], Vec::new()), "{server}");
    }
    // Each of them once.
    let first = grant("server = 'a/b'\nchannel = 'adt'");
    let second = grant("server = 'a'\nchannel = 'b/adt'");
    assert_eq!(granted(&(both + &first + &second)).0, [Which::Made(0), Which::Made(1)]);
}
