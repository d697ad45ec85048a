//! Mistakes of a file, as they are told.

use super::*;

fn mistakes(text: &str) -> Vec<String> {
    Site::parse(text, 1_000).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn every_mistake_of_a_file_is_told_with_its_line() {
    let text = "[[grant]]\nchannel = 'adt'\nto = 'B'\nexpires = 'soon'\nmax_streams = 0\n\n\
                [[server]]\nnmae = 'x'\n\n[[channel]]\nname = 7\n\n[[peers]]\n";
    assert_eq!(
        mistakes(text),
        [
            "line 2: grant.channel = \"adt\" is not accepted; accepted: \"SERVER/NAME\" of a channel",
            "line 4: grant.expires = \"soon\" is not accepted; accepted: a length of time such as \"90d\"",
            "line 5: grant.max_streams = 0 is not accepted; accepted: a whole number from 1 to 10000",
            "line 7: server.name is missing; accepted: a name",
            "line 8: server.nmae is an unknown key; accepted here: name",
            "line 10: channel.server is missing; accepted: the name of its server",
            "line 10: channel.engine is missing; accepted: where the engine listens, like \"127.0.0.1:6661\"",
            "line 11: channel.name = 7 is not accepted; accepted: a name",
            "line 13: peers is an unknown key; accepted here: server, channel, peer, grant",
        ]
    );
    assert_eq!(Site::parse("", 0).unwrap(), Site::default());
}

#[test]
fn what_stands_in_the_file_twice_is_told_whatever_its_spelling() {
    let text = "[[server]]\nname = 'lab'\n[[server]]\nname = ' LAB '\n\
                [[channel]]\nserver = 'lab'\nname = 'dd'\nengine = '127.0.0.1:6661'\npublish = 'D'\n\
                [[channel]]\nserver = 'Lab'\nname = 'DD'\nengine = '127.0.0.1:6662'\npublish = 'D'\n\
                [[peer]]\norganization = 'Straße'\n[[peer]]\norganization = 'STRASSE'\n\
                [[grant]]\nchannel = 'lab/dd'\nto = 'B'\n[[grant]]\nchannel = 'LAB/dd'\nto = 'b'\n";
    assert_eq!(
        mistakes(text),
        [
            "line 4: server.name = \"LAB\" is not accepted; accepted: each server once, and \"lab\" is the same one",
            "line 12: channel.name = \"Lab/DD\" is not accepted; accepted: each channel once, and \"lab/dd\" is the same one",
            "line 18: peer.organization = \"STRASSE\" is not accepted; accepted: each peer once, and \"Straße\" is the same one",
            "line 23: grant.channel = \"LAB/dd to b\" is not accepted; accepted: each grant once, and \"lab/dd to B\" is the same one",
        ]
    );
}

#[test]
fn what_can_never_come_true_is_told_before_anything_is_done() {
    let text = "[[channel]]\nserver = 'lab'\nname = 'a'\nengine = '127.0.0.1:6661'\n\
                [[channel]]\nserver = 'lab'\nname = 'b'\nengine = 'localhost:1'\npublish = ' '\n\
                [[grant]]\nchannel = 'lab/a'\nto = 'B'\nexpires = '9999999w'\n\
                [[grant]]\nchannel = 'lab/b'\nto = 'B'\n";
    assert_eq!(
        mistakes(text),
        [
            "line 8: channel.engine = \"localhost:1\" is not accepted; accepted: where the engine listens, like \"127.0.0.1:6661\"",
            "line 9: channel.publish = \" \" is not accepted; accepted: a public name; leave it out not to publish",
            "line 11: grant.channel = \"lab/a\" is not accepted; accepted: a channel that is published: give it a `publish`",
            "line 13: grant.expires = \"9999999w\" is not accepted; accepted: a length of time such as \"90d\"",
        ]
    );
}

#[test]
fn a_grant_is_refused_only_where_every_channel_that_it_may_mean_is_kept_from_partners() {
    let channel = |server: &str, name: &str, publish: &str| {
        format!("[[channel]]\nserver = '{server}'\nname = '{name}'\nengine = '127.0.0.1:6661'\n{publish}\n")
    };
    let grant = "[[grant]]\nchannel = 'a/b/adt'\nto = 'B'\n";
    let published = channel("a/b", "adt", "publish = 'ADT'");
    assert!(Site::parse(&(published.clone() + &channel("a", "b/adt", "") + grant), 0).is_ok());
    assert_eq!(mistakes(&(channel("a/b", "adt", "") + &channel("a", "b/adt", "") + grant)).len(), 1);
    // With its server it can be one only.
    let by_server = "[[grant]]\nserver = 'a'\nchannel = 'b/adt'\nto = 'B'\n";
    let refused = mistakes(&(published + &channel("a", "b/adt", "") + by_server));
    assert!(refused.len() == 1 && refused[0].contains("a channel that is published"), "{refused:?}");
}

#[test]
fn limits_of_a_grant_are_read_in_the_form_that_is_kept_and_those_that_would_be_refused_are_told() {
    let grant = "[[channel]]\nserver = 'lab'\nname = 'a'\nengine = '127.0.0.1:6661'\npublish = 'A'\n\
                 [[grant]]\nchannel = 'lab/a'\nto = 'B'\n";
    let limits = "bytes_per_second = 50000\nreceive_timeout = '10m'\nbehaviors = ['http', 'dicom', 'http']\n";
    let site = Site::parse(&format!("{grant}{limits}"), 1_000).unwrap();
    let read = &site.grants[0];
    assert_eq!((read.bytes_per_second, read.receive_timeout_secs), (Some(50_000), Some(600)));
    assert_eq!(read.behaviors, ["dicom", "http"]);
    let limits = "bytes_per_second = 999\nreceive_timeout = '9s'\nbehaviors = ['HTTP']\n";
    assert_eq!(
        mistakes(&format!("{grant}{limits}")).iter().map(|line| line.split(" =").next().unwrap()).collect::<Vec<_>>(),
        ["line 9: grant.bytes_per_second", "line 10: grant.receive_timeout", "line 11: grant.behaviors"]
    );
}

#[test]
fn a_grant_that_leaves_out_the_kind_of_exchange_of_its_channel_is_told_with_its_line() {
    let text = "[[channel]]\nserver = 'lab'\nname = 'a'\nengine = '127.0.0.1:6661'\nbehavior = 'http'\npublish = 'A'\n\
                [[grant]]\nchannel = 'lab/a'\nto = 'B'\nbehaviors = ";
    let words = "line 10: grant.behaviors = \"dicom\" is not accepted; accepted: the behavior of its channel among them; \
                 leave it out for whatever that is";
    assert_eq!(mistakes(&format!("{text}['dicom']")), [words]);
    assert!(Site::parse(&format!("{text}['dicom', 'http']"), 0).is_ok());
    // Of a channel that says none, the platform knows it.
    assert!(Site::parse(&format!("{text}['dicom']").replace("behavior = 'http'\n", ""), 0).is_ok());
}
