//! Where every value of a map is masked, and nothing but its keys stays.

use super::*;

#[test]
fn the_values_of_maps_are_masked_and_their_keys_stay() {
    let map = "<map>\n<entry>\n<string>db.url</string>\n<com.mirth.connect.util.ConfigurationProperty><value>jdbc:x</value><comment>c</comment></com.mirth.connect.util.ConfigurationProperty></entry></map>";
    let expected = map.replace("jdbc:x", MASK).replace(">c<", ">********<");
    assert_eq!(masked(Redaction::Values, XML, map), expected);
    let maps = "<map><entry><string>channel</string><map><entry><string>k</string><string>v</string></entry></map></entry></map>";
    assert_eq!(masked(Redaction::Values, XML, maps), maps.replace(">v<", ">********<"));
    let json = r#"{"map":{"entry":[{"string":["k","v"]},{"string":"db","conf":{"value":"w","comment":"c"}}]}}"#;
    let expected = r#"{"map":{"entry":[{"string":["k","********"]},{"string":"db","conf":{"value":"********","comment":"********"}}]}}"#;
    assert_eq!(masked(Redaction::Values, JSON, json), expected);
}

#[test]
fn what_is_neither_a_key_nor_says_nothing_is_masked_among_values() {
    for (xml, expected) in [
        // As `java.util.Properties` is written, and plug-ins write maps of their own.
        (
            "<map><entry key=\"db.password\">S3CR3T</entry></map>",
            "<map><entry key=\"db.password\">********</entry></map>",
        ),
        ("<map><entry key=\"db.url\">S3CR3T</entry></map>", "<map><entry key=\"db.url\">********</entry></map>"),
        (
            "<map><entry name=\"a\"><b>S3CR3T</b><c>S3CR3T</c></entry></map>",
            "<map><entry name=\"a\"><b>********</b><c>********</c></entry></map>",
        ),
        ("<map><entry key=\"a\" value=\"S3CR3T\"/></map>", "<map><entry key=\"a\" value=\"********\"/></map>"),
        ("<map><entry>S3CR3T</entry></map>", "<map><entry>********</entry></map>"),
        ("<map><a>S3CR3T</a><b>5</b></map>", "<map><a>********</a><b>********</b></map>"),
        ("<string>S3CR3T</string>", "<string>********</string>"),
        ("<string>\u{e4}\u{df}\u{fc}</string>", "<string>********</string>"),
        ("<string>[S3CR3T]</string>", "<string>[********</string>"),
        ("<a class=\"x\"><on>true</on><off/> \n</a>", "<a class=\"x\"><on>true</on><off/> \n</a>"),
        (
            "<map><entry><k><a>S3CR3T</a></k><v>S3CR3T</v></entry></map>",
            "<map><entry><k><a>********</a></k><v>********</v></entry></map>",
        ),
        ("<map><!-- S3CR3T --><?x a=\"S3CR3T\"?></map>", "<map></map>"),
    ] {
        assert_eq!(masked(Redaction::Values, XML, xml), expected, "{xml}");
    }
    for (json, expected) in [
        (r#"{"map":{"entry":[{"@key":"a","$":"S3CR3T"}]}}"#, r#"{"map":{"entry":[{"@key":"a","$":"********"}]}}"#),
        (
            r#"{"map":{"entry":[{"$":"S3CR3T","@key":"a"}]}}"#,
            r#"{"map":{"entry":[{"$":"********","@key":"********"}]}}"#,
        ),
        (r#"{"map":{"a":"S3CR3T","b":5}}"#, r#"{"map":{"a":"********","b":"********"}}"#),
        (r#"{"string":"S3CR3T","on":true,"off":null}"#, r#"{"string":"********","on":true,"off":null}"#),
        (
            r#"{"map":{"entry":{"k":{"a":"S3CR3T"},"v":"S3CR3T"}}}"#,
            r#"{"map":{"entry":{"k":{"a":"********"},"v":"********"}}}"#,
        ),
        (
            r#"{"map":{"entry":{"k":{"@class":"x","$":"a"},"v":"S3CR3T"}}}"#,
            r#"{"map":{"entry":{"k":{"@class":"x","$":"a"},"v":"********"}}}"#,
        ),
        (r#"["S3CR3T",7]"#, r#"["********","********"]"#),
    ] {
        assert_eq!(masked(Redaction::Values, JSON, json), expected, "{json}");
    }
    // Of headers the same, in an answer that passes otherwise.
    let xml = "<a><headers><entry key=\"X-Site\">S3CR3T</entry></headers><b>c</b></a>";
    assert_eq!(masked(Redaction::Passwords, XML, xml), xml.replace("S3CR3T", MASK));
    let json = r#"{"headers":{"entry":[{"@key":"X-Site","$":"S3CR3T"}]},"b":"c"}"#;
    assert_eq!(masked(Redaction::Passwords, JSON, json), json.replace("S3CR3T", MASK));
}

#[test]
fn a_map_in_a_text_among_values_keeps_its_keys() {
    let map = "<map><entry><string>k</string><string>S3CR3T</string></entry></map>";
    let escaped = map.replace('<', "&lt;").replace('>', "&gt;");
    let answer = format!("<string>{escaped}</string>");
    assert_eq!(masked(Redaction::Values, XML, &answer), answer.replace("S3CR3T", MASK));
    let answer = format!("{{\"string\":{}}}", serde_json::to_string(map).unwrap());
    assert_eq!(masked(Redaction::Values, JSON, &answer), answer.replace("S3CR3T", MASK));
}

#[test]
fn a_keyed_entry_names_its_value_where_only_secrets_are_masked_too() {
    let xml = "<map><entry key=\"db.password\">S3CR3T</entry><entry key=\"db.url\">u</entry>\
        <entry id=\"5\"><string>Authorization</string><string>S3CR3T</string></entry></map>";
    assert_eq!(masked(Redaction::Passwords, XML, xml), xml.replace("S3CR3T", MASK));
    let json = r#"{"entry":[{"@key":"db.password","$":"S3CR3T"},{"@key":"db.url","$":"u"},{"@id":5,"string":["Authorization","S3CR3T"]}]}"#;
    assert_eq!(masked(Redaction::Passwords, JSON, json), json.replace("S3CR3T", MASK));
}

#[test]
fn of_events_what_they_tell_is_masked_and_who_did_what_and_when_stays() {
    let xml = "<list>\n  <event>\n    <id>7</id>\n    <eventTime><time>1700000000000</time></eventTime>\n    <name>Accessed PHI</name>\n    \
        <attributes class=\"linked-hash-map\">\n      <entry>\n        <string>PATIENT_ID</string>\n        <string>DOE^JOHN</string>\n      </entry>\n      \
        <entry><string>filter</string><null/></entry>\n    </attributes>\n    <outcome>SUCCESS</outcome>\n    <userId>1</userId>\n  </event>\n</list>";
    assert_eq!(masked(Redaction::Events, XML, xml), xml.replace("DOE^JOHN", MASK));
    let json = r#"{"list":{"event":[{"id":7,"eventTime":{"time":1706792105485,"timezone":"UTC"},"level":"INFORMATION","name":"Get messages",
        "attributes":{"@class":"linked-hash-map","entry":[{"string":["textSearch","DOE^JOHN"]},{"string":["endDate",null]}]},
        "outcome":"SUCCESS","userId":1,"ipAddress":"[0:0:0:0:0:0:0:1]"},
        {"id":6,"attributes":{"@class":"linked-hash-map","entry":{"string":["PATIENT_ID","DOE^JOHN"]}}}]}}"#;
    assert_eq!(masked(Redaction::Events, JSON, json), json.replace("DOE^JOHN", MASK));
    let number = r#"{"event":{"id":7,"attributes":{"entry":{"string":["PATIENT_ID",4242]}}}}"#;
    assert_eq!(masked(Redaction::Events, JSON, number), number.replace("4242", "\"********\""));
    // Elsewhere attributes are any other name.
    let plain = "<a><attributes>text</attributes></a>";
    assert_eq!(masked(Redaction::Passwords, XML, plain), plain);
}
