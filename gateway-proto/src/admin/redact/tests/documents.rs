//! Documents in the texts of an answer, and what only looks like one.

use super::*;

const SECRET: &str = "S3CR3T";

fn xml_escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;").replace('\'', "&apos;").replace('\n', "&#xa;")
}

fn json_escaped(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

/// Every secret is masked, and every other byte stays.
fn assert_masked(redaction: Redaction, media: &str, answer: &str) {
    assert_eq!(masked(redaction, media, answer), answer.replace(SECRET, MASK), "{answer}");
}

#[test]
fn secrets_in_a_document_that_is_the_text_of_another_are_masked_and_every_other_byte_stays() {
    // The settings of the engine's Data Pruner hold a serialized object, with the password of its archive.
    let options = "<com.mirth.connect.util.messagewriter.MessageWriterOptions>\n  <rootFolder>/a &amp; b</rootFolder>\n  \
        <passwordEnabled>true</passwordEnabled>\n  <password>S3CR3T</password>\n  <encryptionType>AES256</encryptionType>\n\
        </com.mirth.connect.util.messagewriter.MessageWriterOptions>";
    let in_xml = xml_escaped(options);
    for answer in [
        format!("<properties><property name=\"archiverOptions\">{in_xml}</property></properties>"),
        format!("<properties>\n  <property name=\"archiverOptions\" value=\"{in_xml}\"/>\n</properties>"),
        format!("<properties><property name=\"archiverOptions\"><![CDATA[{options}]]></property></properties>"),
        format!("<a>{}</a>", xml_escaped(&format!("<b>{in_xml}</b>"))),
        // Escaped twice, and quoted.
        format!("<a>{}</a>", xml_escaped(&in_xml)),
        format!("<a>{}</a>", json_escaped(options).replace('<', "&lt;")),
        "<a>\u{feff} {\"x\":[{\"password\":\"S3CR3T\"}],\"y\":\"\\u00e4\"}</a>".to_owned(),
        "<a>{&quot;password&quot;:&quot;S3CR3T&quot;,&quot;port&quot;:15}</a>".to_owned(),
        "<a b='[{&quot;password&quot;:&quot;S3CR3T&quot;}]' c='d'/>".to_owned(),
        "<a>&lt;headers&gt;&lt;entry&gt;&lt;string&gt;X-Site&lt;/string&gt;&lt;string&gt;S3CR3T&lt;/string&gt;&lt;/entry&gt;&lt;/headers&gt;</a>"
            .to_owned(),
    ] {
        assert_masked(Redaction::Passwords, XML, &answer);
    }
    let in_json = json_escaped(options);
    for answer in [
        format!("{{\"properties\":{{\"property\":{{\"@name\":\"archiverOptions\",\"$\":{in_json}}}}}}}"),
        // As other writers escape it.
        format!("[{},\"b\"]", in_json.replace('<', "\\u003c").replace('/', "\\/")),
        format!("{{\"a\":{}}}", json_escaped(&format!("{{\"b\":{in_json},\"c\":15}}"))),
        format!("{{\"a\":{}}}", json_escaped("<b>{\"password\":\"S3CR3T\"}</b>")),
    ] {
        assert_masked(Redaction::Passwords, JSON, &answer);
    }
    let map = xml_escaped("<map><entry><string>k</string><string>S3CR3T</string></entry></map>");
    assert_masked(Redaction::Values, XML, &format!("<string>{map}</string>"));
}

#[test]
fn an_answer_that_is_one_text_is_looked_into_and_passes_where_it_is_no_document() {
    for media in ["text/plain", "application/xml", "application/json", ""] {
        for answer in [
            "<o><password>S3CR3T</password></o>",
            "<string>&lt;pin&gt;S3CR3T&lt;/pin&gt;</string>",
            "{\"pin\":\"S3CR3T\"}",
        ] {
            assert_masked(Redaction::Text, media, answer);
        }
        for answer in ["https://h/update", "15", "true", "\"a\"", " a\n", ""] {
            assert_masked(Redaction::Text, media, answer);
        }
    }
}

#[test]
fn a_number_that_is_masked_inside_of_a_text_leaves_a_whole_text() {
    let json = masked(Redaction::Passwords, JSON, r#"{"a":"{\"pin\":15}","b":15}"#);
    assert_eq!(json, r#"{"a":"{\"pin\":\"********\"}","b":15}"#);
    let xml = masked(Redaction::Passwords, XML, "<a b=\"{&quot;pin&quot;:15}\"/>");
    assert_eq!(xml, "<a b=\"{&quot;pin&quot;:&quot;********&quot;}\"/>");
}

#[test]
fn a_document_too_deep_inside_of_others_is_masked_as_a_whole() {
    let mut answer = "<password>S3CR3T</password>".to_owned();
    for level in 1..8 {
        answer = format!("<a>{}</a>", xml_escaped(&answer));
        let masked = masked(Redaction::Passwords, XML, &answer);
        assert!(!masked.contains(SECRET) && masked.contains(MASK), "{masked}");
        assert_eq!(masked.contains("password"), level <= 4, "{masked}");
    }
}

#[test]
fn what_cannot_be_followed_inside_of_a_text_is_masked_from_there_and_the_answer_goes_on() {
    let long = "x".repeat(MAX_HELD);
    let xml = format!("<a><b>&lt;c {long}&gt;&lt;d&gt;{SECRET}&lt;/d&gt;</b><e>t</e></a>");
    assert_eq!(masked(Redaction::Passwords, XML, &xml), "<a><b>********</b><e>t</e></a>");
    let deep = xml_escaped(&"<c>".repeat(MAX_DEPTH + 1));
    let masked_deep = masked(Redaction::Passwords, XML, &format!("<a><b>{deep}{SECRET}</b><e>t</e></a>"));
    assert!(masked_deep.ends_with("********</b><e>t</e></a>"), "{masked_deep}");
    // A tag and a text that do not end.
    for (text, expected) in [
        ("&lt;b password=&quot;S3CR3T", "<a>********</a>"),
        ("&lt;don't&gt; &lt;password&gt;S3CR3T", "<a>********</a>"),
        ("{\"a\":\"S3CR3T", "<a>{\"a\":\"********</a>"),
    ] {
        assert_eq!(masked(Redaction::Passwords, XML, &format!("<a>{text}</a>")), expected);
    }
}

#[test]
fn long_documents_in_texts_are_masked_as_they_stream_by() {
    let long = "x".repeat(3 * MAX_HELD);
    let document = format!("<c>{long}</c><password>S3CR3T</password>");
    let xml = format!("<a><b>{}</b><d>t</d></a>", xml_escaped(&document));
    let json = format!("{{\"a\":{},\"b\":\"t\"}}", json_escaped(&document));
    for (media, answer) in [(XML, xml), (JSON, json)] {
        let masked = masked_in(Redaction::Passwords, media, &answer, 999).unwrap();
        assert!(masked == answer.replace(SECRET, MASK), "{media}: {}", &masked[masked.len() - 99..]);
    }
}

#[test]
fn texts_that_are_no_documents_stay_as_they_are() {
    for text in [
        "<",
        "<=",
        "<>",
        "< 5",
        "<<a",
        "<none>",
        "<not set",
        "<br> text",
        "<%= a %>",
        "[",
        "[x] it's",
        "[1,2",
        "[A-Z]\"",
        "{",
        "{0}",
        "{{#if}}",
        "{\"a\":1",
        "\"",
        "\"\"",
        "\"a\",\"b\"",
        "\"use strict\"; var a = {\"b\": 1}; // it's",
        "&",
        "& b",
        "&b; c",
        "&nbsp;",
        "&&amp",
        "MSH|^~\\&|a",
        "\\u00zz",
        "${x}",
        "\u{e4} <b>",
        "if (a < b) { x = \"<password>\" + p + \"</password>\"; }",
    ] {
        assert_masked(Redaction::Passwords, XML, &format!("<a b=\"{0}\"><c>{0}</c></a>", xml_escaped(text)));
        assert_masked(Redaction::Passwords, JSON, &format!("{{\"a\":{}}}", json_escaped(text)));
    }
    // What no XML has, in an answer that has it.
    assert_masked(Redaction::Passwords, XML, "<a>a & b &x < 5</a>");
}

#[test]
fn the_value_beside_a_secret_name_is_masked_wherever_it_stands() {
    let xml = "<properties><property name=\"ldap.password\" value=\"S3CR3T\"/><property value='S3CR3T' name='ldap.password'/>\
        <property name=\"pass&#119;ord\" value=\"S3CR3T\">S3CR3T</property><property name=\"host\" value=\"h\" version=\"1\"/>\
        <password value=\"S3CR3T\" class=\"string\" version=\"4.5.2\"/><input name=password value=S3CR3T/></properties>";
    assert_masked(Redaction::Passwords, XML, xml);
    let json = "{\"properties\":{\"property\":[{\"@name\":\"ldap.password\",\"@value\":\"S3CR3T\"},\
        {\"@value\":\"S3CR3T\",\"@name\":\"ldap.password\"},{\"@name\":\"pass\\u0077ord\",\"@value\":\"S3CR3T\"},\
        {\"@name\":\"host\",\"@value\":\"h\",\"@version\":1}],\"password\":{\"@value\":\"S3CR3T\",\"@version\":\"4.5.2\"},\
        \"pass\\u0077ord\":\"S3CR3T\"}}";
    assert_masked(Redaction::Passwords, JSON, json);
}

/// How a document becomes a text of another.
#[derive(Debug, Clone, Copy)]
enum Wrap {
    Element,
    Attribute,
    CData,
    Member,
    Item,
}

impl Wrap {
    fn around(self, document: &str) -> (&'static str, String) {
        let escaped = xml_escaped(document);
        match self {
            Self::CData if !document.contains("]]>") => (XML, format!("<a>\n<b><![CDATA[{document}]]></b></a>")),
            Self::Element | Self::CData => (XML, format!("<a><b/>{escaped}</a>")),
            Self::Attribute => (XML, format!("<a b='{escaped}' c=\"d\"/>")),
            Self::Member => (JSON, format!("{{\"a\":1,\"b\":{}}}", json_escaped(document))),
            Self::Item => (JSON, format!("[\"a\",{}]", json_escaped(document))),
        }
    }
}

proptest! {
    #[test]
    fn however_documents_are_nested_a_secret_in_the_innermost_is_masked_and_nothing_else(
        wraps in prop::collection::vec(
            prop::sample::select(vec![Wrap::Element, Wrap::Attribute, Wrap::CData, Wrap::Member, Wrap::Item]),
            1..=4,
        ),
        is_json in any::<bool>(),
        secret in "[A-Z0-9]{9,40}",
    ) {
        let mut answer = if is_json {
            format!("{{\"password\":\"{secret}\",\"b\":\"c\"}}")
        } else {
            format!("<a><password>{secret}</password>\n<b c=\"d\">e &amp; f</b></a>")
        };
        let mut media = XML;
        for wrap in wraps {
            (media, answer) = wrap.around(&answer);
        }
        prop_assert_eq!(masked(Redaction::Passwords, media, &answer), answer.replace(&secret, MASK));
    }
}
