use proptest::prelude::*;

use super::*;

fn masked_in(redaction: Redaction, media: &str, text: &str, cut: usize) -> Result<String, RedactError> {
    let (mut redactor, mut output) = (Redactor::new(redaction, media)?, Vec::new());
    for piece in text.as_bytes().chunks(cut) {
        redactor.update(piece, &mut output)?;
    }
    redactor.finish(&mut output);
    Ok(String::from_utf8(output).unwrap())
}

fn masked(redaction: Redaction, media: &str, text: &str) -> String {
    let whole = masked_in(redaction, media, text, usize::MAX).unwrap();
    for cut in [1, 2, 7] {
        assert_eq!(masked_in(redaction, media, text, cut).unwrap(), whole, "cut every {cut} bytes");
    }
    whole
}

const XML: &str = "application/xml";
const JSON: &str = "application/json; charset=UTF-8";

#[test]
fn passwords_of_connectors_are_masked_in_xml_and_the_rest_stays() {
    let channel = "<?xml version=\"1.0\"?><channel version=\"4.5.2\"><name>a &lt;b&gt;</name><properties class=\"x\"><host>h</host>\
        <password>s3cr&amp;et</password><anonymous>true</anonymous><passwordAuth>true</passwordAuth><passPhrase/><password></password>\
        <schemeProperties><passPhrase>\n  a long pass phrase of more than a line\n</passPhrase></schemeProperties>\
        <entry><string>Authorization</string><list><string>Basic abc</string></list></entry>\
        <entry><string>Accept</string><list><string>text/xml</string></list></entry>\
        <property name=\"smtp.password\">x</property><a keystorePassword='q&quot;' host='k'>t</a><password><![CDATA[hidden ]] text]]></password>\
        <script><![CDATA[if (a < b) {}]]></script></properties></channel>";
    let expected = "<?xml version=\"1.0\"?><channel version=\"4.5.2\"><name>a &lt;b&gt;</name><properties class=\"x\"><host>h</host>\
        <password>********</password><anonymous>true</anonymous><passwordAuth>true</passwordAuth><passPhrase/><password></password>\
        <schemeProperties><passPhrase>********</passPhrase></schemeProperties>\
        <entry><string>Authorization</string><list><string>********</string></list></entry>\
        <entry><string>Accept</string><list><string>text/xml</string></list></entry>\
        <property name=\"smtp.password\">********</property><a keystorePassword='********' host='k'>t</a><password>********</password>\
        <script><![CDATA[if (a < b) {}]]></script></properties></channel>";
    assert_eq!(masked(Redaction::Passwords, XML, channel), expected);
}

#[test]
fn passwords_are_masked_in_json_whatever_type_they_became() {
    let channel = r#"{"list":{"channel":{"name":"a \"password\"","password":15,"port":6661,"passwordAuth":true,"passphrase":null,
        "nested":{"secret":{"deep":["x",{"y":"z"}]}},"list":[{"password":"a\"b\\"},1.5e3],
        "entry":[{"string":["Authorization","Basic abc"]},{"string":["Accept","b"]},{"string":"api-key","list":{"string":"k"}}]}}}"#;
    let expected = r#"{"list":{"channel":{"name":"a \"password\"","password":"********","port":6661,"passwordAuth":true,"passphrase":null,
        "nested":{"secret":{"deep":["********",{"y":"********"}]}},"list":[{"password":"********"},1.5e3],
        "entry":[{"string":["Authorization","********"]},{"string":["Accept","b"]},{"string":"api-key","list":{"string":"********"}}]}}}"#;
    assert_eq!(masked(Redaction::Passwords, JSON, channel), expected);
}

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
fn what_cannot_be_masked_does_not_pass() {
    for media in ["text/plain", "application/octet-stream", "", "application/xml; charset=utf-16", "text/html"] {
        assert_eq!(Redactor::new(Redaction::Passwords, media).err(), Some(RedactError::Format), "{media}");
    }
    let deep = "<a>".repeat(MAX_DEPTH + 1);
    assert_eq!(masked_in(Redaction::Passwords, XML, &deep, 100), Err(RedactError::Depth));
    assert_eq!(masked_in(Redaction::Passwords, JSON, &"[".repeat(MAX_DEPTH + 1), 100), Err(RedactError::Depth));
    assert_eq!(
        masked_in(Redaction::Passwords, XML, &format!("<{}", "a".repeat(MAX_HELD)), 100),
        Err(RedactError::Depth)
    );
}

#[test]
fn long_texts_pass_or_are_masked_as_a_whole() {
    let long = "x".repeat(3 * MAX_HELD);
    let json = format!(r#"{{"script":"{long}","password":"{long}"}}"#);
    assert_eq!(
        masked_in(Redaction::Passwords, JSON, &json, 999).unwrap(),
        format!(r#"{{"script":"{long}","password":"********"}}"#)
    );
    let xml = format!("<a><script>{long}</script><password>{long}</password></a>");
    assert_eq!(
        masked_in(Redaction::Passwords, XML, &xml, 999).unwrap(),
        format!("<a><script>{long}</script><password>********</password></a>")
    );
}

proptest! {
    /// Whatever comes, nothing panics, and a secret under its name never passes.
    #[test]
    fn a_secret_never_passes_and_garbage_never_panics(before in "[<>/a-z\"'=\\[\\]!{}:, \\\\-]{0,60}", secret in "[A-Z0-9]{9,40}", cut in 1usize..30) {
        for media in [XML, JSON] {
            let _ = masked_in(Redaction::Passwords, media, &before, cut);
        }
        let xml = format!("<a><b>text</b><password>{secret}</password></a>");
        prop_assert!(!masked_in(Redaction::Passwords, XML, &xml, cut).unwrap().contains(&secret));
        let json = format!("{{\"b\":\"text\",\"password\":\"{secret}\"}}");
        prop_assert!(!masked_in(Redaction::Passwords, JSON, &json, cut).unwrap().contains(&secret));
    }

    #[test]
    fn without_secrets_every_byte_passes(text in "(<[a-f]+>[a-z &;]{0,9}</[a-f]+>){0,9}", cut in 1usize..30) {
        prop_assert_eq!(masked_in(Redaction::Passwords, XML, &text, cut).unwrap(), text);
    }
}
