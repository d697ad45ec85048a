use proptest::prelude::*;

use super::*;

const ID: &str = "a0000000-0000-4000-8000-000000000001";

#[test]
fn names_come_as_list_as_single_entry_and_as_nothing() {
    let two = format!(r#"{{"map":{{"entry":[{{"string":["{ID}","mixed_undeployed"]}},{{"string":["b-2",15]}}]}}}}"#);
    let names = ids_and_names(two.as_bytes()).unwrap();
    assert_eq!(names[ID], "mixed_undeployed");
    assert_eq!(names["b-2"], "15", "a name that looks like a number is one on the way");
    let one = format!(r#"{{"map":{{"entry":{{"string":["{ID}",true]}}}}}}"#);
    assert_eq!(ids_and_names(one.as_bytes()).unwrap()[ID], "true");
    for nothing in [r#"{"map":null}"#, r#"{"map":""}"#, r#"{"map":{"entry":null}}"#] {
        assert_eq!(ids_and_names(nothing.as_bytes()).unwrap().len(), 0, "{nothing}");
    }
    for foreign in ["{}", "[]", r#"{"status":"maintenance"}"#, "null"] {
        assert!(ids_and_names(foreign.as_bytes()).is_err(), "{foreign}");
        assert!(ports_in_use(foreign.as_bytes()).is_err(), "{foreign}");
        assert!(statuses(foreign.as_bytes()).is_err(), "{foreign}");
        assert!(channels(foreign.as_bytes()).is_err(), "{foreign}");
    }
}

#[test]
fn ports_come_as_numbers_as_texts_and_alone() {
    let class = "com.mirth.connect.donkey.model.channel.Ports";
    let list = format!(
        r#"{{"list":{{"{class}":[{{"name":"HL7_IN_6661","id":"{ID}","port":6661}},{{"name":"B","id":"b","port":"6667"}},
        {{"name":"UNRESOLVED","id":"c","port":"${{nobody}}"}},{{"name":"ZERO","id":"d","port":0}},
        {{"name":"HUGE","id":"e","port":70000}}]}}}}"#
    );
    let ports = ports_in_use(list.as_bytes()).unwrap();
    assert_eq!(ports, BTreeMap::from([(ID.to_owned(), 6661), ("b".to_owned(), 6667)]));
    let one = format!(r#"{{"list":{{"{class}":{{"name":"X","id":"{ID}","port":6661}}}}}}"#);
    assert_eq!(ports_in_use(one.as_bytes()).unwrap()[ID], 6661);
    assert_eq!(ports_in_use(br#"{"list":null}"#).unwrap().len(), 0);
}

/// The sample of a running engine, one channel alone.
const STATUS: &str = r#"{"channelId":"ID","name":"hl7_in_6661","state":"STARTED","deployedRevisionDelta":0,
  "deployedDate":{"time":1795288425730,"timezone":"Etc/UTC"},
  "statistics":{"@class":"linked-hash-map","entry":[
     {"com.mirth.connect.donkey.model.message.Status":"RECEIVED","long":3},
     {"com.mirth.connect.donkey.model.message.Status":"ERROR","long":"2"}]},
  "childStatuses":{"dashboardStatus":[
     {"name":"Source","metaDataId":0,"state":"STARTED","queueEnabled":false,"queued":0,"statusType":"SOURCE_CONNECTOR"},
     {"name":"out","metaDataId":1,"state":"STARTED","queueEnabled":true,"queued":4}]}}"#;

#[test]
fn statuses_tell_state_revision_and_counts_in_every_form() {
    let one = format!(r#"{{"list":{{"dashboardStatus":{}}}}}"#, STATUS.replace("ID\"", &format!("{ID}\"")));
    let two = format!(
        r#"{{"list":{{"dashboardStatus":[{},{{"channelId":"b","state":"PAUSED"}}]}}}}"#,
        STATUS.replace("ID\"", &format!("{ID}\""))
    );
    for answer in [one, two] {
        let statuses = statuses(answer.as_bytes()).unwrap();
        let expected = ChannelStatus {
            state: EngineChannelState::Started,
            revision_delta: 0,
            deployed_at: 1_795_288_425_730,
            counts: EngineCounts { received: 3, errors: 2, queued: 4, ..EngineCounts::default() },
        };
        assert_eq!(statuses[ID], expected);
        assert!(statuses.get("b").is_none_or(|status| status.state == EngineChannelState::Paused));
    }
    assert_eq!(statuses(br#"{"list":null}"#).unwrap().len(), 0);
    assert_eq!(channels(br#"{"list":null}"#).unwrap().len(), 0);
    assert_eq!(state("SYNCING"), EngineChannelState::Changing);
}

#[test]
fn ids_that_no_engine_makes_are_left_out_and_names_are_cut_and_cleaned() {
    let id = "a".repeat(65);
    let name = format!("line\\n\\u001b[31m{}", "x".repeat(500));
    let answer = format!(
        r#"{{"map":{{"entry":[{{"string":["{id}","a"]}},{{"string":["../x","b"]}},{{"string":["ok","{name}"]}}]}}}}"#
    );
    let names = ids_and_names(answer.as_bytes()).unwrap();
    assert_eq!(names.keys().collect::<Vec<_>>(), ["ok"]);
    assert_eq!(names["ok"].chars().count(), super::super::MAX_TEXT);
    assert!(!names["ok"].contains(char::is_control));
}

#[test]
fn an_answer_in_another_form_is_an_error_that_repeats_nothing_of_it() {
    for answer in ["<list/>", "[1", r#"{"list":{"x":[{"id":{}}]}}"#, "\"secret\"", &"[".repeat(100_000)] {
        let error = ports_in_use(answer.as_bytes()).unwrap_err();
        assert!(matches!(error, AnswerError::Form { request: "portsInUse", .. }), "{error}");
        assert!(!error.to_string().contains("secret"));
    }
    let huge = vec![b' '; MAX_ANSWER + 1];
    assert_eq!(channels(&huge), Err(AnswerError::TooLarge { request: "channels" }));
}

proptest! {
    /// Whatever comes, it is an answer or an error.
    #[test]
    fn no_bytes_are_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = (ids_and_names(&bytes), ports_in_use(&bytes), statuses(&bytes), channels(&bytes));
    }

    /// A sample with any one value replaced by another kind of value is an answer or an error too.
    #[test]
    fn no_value_is_in_the_wrong_place(at in 0usize..400, value in proptest::sample::select(vec!["null", "[]", "{}", "-1", "1e999", "\"x\"", "true"])) {
        let answer = format!(r#"{{"list":{{"dashboardStatus":{STATUS}}}}}"#);
        if let Some(colon) = answer[at.min(answer.len())..].find(':') {
            let start = at.min(answer.len()) + colon + 1;
            let end = start + answer[start..].find([',', '}']).unwrap_or(0);
            let changed = format!("{}{value}{}", &answer[..start], &answer[end..]);
            let _ = statuses(changed.as_bytes());
        }
    }
}
