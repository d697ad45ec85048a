mod certainty;
mod documents;
mod maps;

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

/// Headers and parameters that sign somebody in, as people have named them.
const BEARERS: [&str; 12] = [
    "Authorization",
    "X-API-Key",
    "X-Auth-Token",
    "X-Vault-Token",
    "PRIVATE-TOKEN",
    "Ocp-Apim-Subscription-Key",
    "x-functions-key",
    "Cookie",
    "refresh_token",
    "client_assertion",
    "api_secret",
    "X-Hub-Signature-256",
];

#[test]
fn every_name_of_a_bearer_is_masked_in_a_map_of_any_name() {
    for name in BEARERS {
        let xml = format!(
            "<parameters class=\"linked-hash-map\"><entry><string>a</string><list><string>b</string></list></entry>\
             <entry><string>{name}</string><list><string>s3cret-value-of-it</string><string>2</string></list></entry></parameters>"
        );
        let expected = xml.replace("s3cret-value-of-it", MASK).replace(">2<", ">********<");
        assert_eq!(masked(Redaction::Passwords, XML, &xml), expected, "{name}");
        // One value, several values, a map of texts, and a map of one.
        for value in [
            r#""list":{"string":"s3cret"}"#,
            r#""list":{"string":["s3cret","s3cret"]}"#,
            r#""list":[{"string":"s3cret"}]"#,
        ] {
            let entry = format!(r#"{{"string":"{name}",{value}}}"#);
            for json in [
                format!(r#"{{"parameters":{{"@class":"linked-hash-map","entry":{entry}}}}}"#),
                format!(r#"{{"parameters":{{"entry":[{{"string":["a","b"]}},{entry}]}}}}"#),
                format!(r#"{{"parameters":{{"entry":{{"string":["{name}","s3cret"]}}}}}}"#),
            ] {
                assert_eq!(masked(Redaction::Passwords, JSON, &json), json.replace("s3cret", MASK), "{name}");
            }
        }
    }
    let (xml, json) = ("<a><sessionToken>s3cret</sessionToken></a>", r#"{"sessionToken":"s3cret"}"#);
    assert_eq!(masked(Redaction::Passwords, XML, xml), xml.replace("s3cret", MASK));
    assert_eq!(masked(Redaction::Passwords, JSON, json), json.replace("s3cret", MASK));
}

#[test]
fn of_headers_every_value_is_masked_and_every_name_stays() {
    let sender = "<properties class=\"com.mirth.connect.connectors.http.HttpDispatcherProperties\" version=\"4.5.2\">\n  \
        <host>https://h/</host>\n  <headers class=\"linked-hash-map\">\n    <entry>\n      <string>X-Site</string>\n      <list>\n        \
        <string>s3cret</string>\n        <string>s3cret and more of it</string>\n      </list>\n    </entry>\n    <entry>\n      \
        <string>Accept</string>\n      <string><![CDATA[s3cret]]></string>\n    </entry>\n  </headers>\n  <useHeadersVariable>false</useHeadersVariable>\n  \
        <headersVariable>myHeaders</headersVariable>\n  <parameters class=\"linked-hash-map\">\n    <entry>\n      <string>page</string>\n      \
        <list>\n        <string>1</string>\n      </list>\n    </entry>\n  </parameters>\n  <content>text</content>\n</properties>";
    let expected =
        sender.replace("s3cret and more of it", MASK).replace("<![CDATA[s3cret]]>", MASK).replace("s3cret", MASK);
    assert_eq!(masked(Redaction::Passwords, XML, sender), expected);
    for headers in [
        r#"{"@class":"linked-hash-map","entry":{"string":"X-Site","list":{"string":"s3cret"}}}"#,
        r#"{"@class":"linked-hash-map","entry":{"string":"X-Site","list":{"string":["s3cret","s3cret"]}}}"#,
        r#"{"@class":"linked-hash-map","entry":[{"string":"X-Site","list":{"string":"s3cret"}},{"string":"Accept","list":{"string":"s3cret"}}]}"#,
        r#"{"@class":"linked-hash-map","entry":[{"string":["X-Site","s3cret"]},{"string":["Accept","s3cret"]}]}"#,
        r#"{"entry":{"string":"X-Site","list":[{"string":"s3cret"},"s3cret"]}}"#,
        r#"{"@class":"linked-hash-map"}"#,
        r#""""#,
        "null",
    ] {
        let json = format!(
            r#"{{"properties":{{"headers":{headers},"useHeadersVariable":false,"headersVariable":"myHeaders","parameters":{{"entry":{{"string":["page",1]}}}},"content":"text"}}}}"#
        );
        assert_eq!(masked(Redaction::Passwords, JSON, &json), json.replace("s3cret", MASK), "{headers}");
    }
    // Numbers are values too; and what is no map is masked whole.
    let numbers = r#"{"headers":{"entry":[{"string":"X-Site","list":{"string":15}}]},"port":15}"#;
    assert_eq!(masked(Redaction::Passwords, JSON, numbers), numbers.replacen("15", r#""********""#, 1));
    let no_map = "<a><headers>s3cret</headers></a>";
    assert_eq!(masked(Redaction::Passwords, XML, no_map), no_map.replace("s3cret", MASK));
    // What a listener answers to everybody stays, but for what is named like a secret.
    let answers = "<responseHeaders><entry><string>Server</string><list><string>a</string></list></entry>\
        <entry><string>Set-Cookie</string><list><string>s3cret</string></list></entry></responseHeaders>";
    assert_eq!(masked(Redaction::Passwords, XML, answers), answers.replace("s3cret", MASK));
}

#[test]
fn what_the_administrator_needs_to_open_a_channel_stays_readable() {
    let channel = "<a><serializationProperties class=\"x\"><quoteToken>\"</quoteToken><quoteEscapeToken>\\</quoteEscapeToken></serializationProperties>\
        <tokenLocation>REQUEST_HEADER</tokenLocation><locationKey>access_token</locationKey><tokenUrl>https://h/t</tokenUrl><cookiePolicy>standard</cookiePolicy>\
        <sessionTokenEnabled>true</sessionTokenEnabled><sessionToken></sessionToken><keyStore>/a.jks</keyStore><template>${token}</template>\
        <entry><string>grant_type</string><list><string>refresh_token</string></list></entry><name>Cookie to token</name></a>";
    assert_eq!(masked(Redaction::Passwords, XML, channel), channel);
    let json = r#"{"quoteToken":"\"","quoteEscapeToken":"\\","tokenLocation":"QUERY","sessionToken":null,"tokenEnabled":true,"name":"Cookie",
        "entry":[{"string":"token_type","list":{"string":"Bearer"}},{"string":["page","2"]}]}"#;
    assert_eq!(masked(Redaction::Passwords, JSON, json), json);
}

#[test]
fn stored_properties_and_the_keys_of_dicom_are_masked_in_both_formats() {
    let xml = "<properties><property name=\"smtp.pass\">s3cret</property><property name=\"host\">h</property><keyPW>s3cret</keyPW>\
        <keyStorePW>s3cret</keyStorePW><trustStorePW>s3cret</trustStorePW><noClientAuth>true</noClientAuth></properties>";
    assert_eq!(masked(Redaction::Passwords, XML, xml), xml.replace("s3cret", MASK));
    let json = r#"{"properties":{"property":[{"@name":"smtp.pass","$":"s3cret"},{"@name":"host","$":"h"}],"keyPW":"s3cret","keyStorePW":"s3cret"}}"#;
    assert_eq!(masked(Redaction::Passwords, JSON, json), json.replace("s3cret", MASK));
}

#[test]
fn what_cannot_be_masked_does_not_pass() {
    for media in ["text/plain", "application/octet-stream", "", "application/xml; charset=utf-16", "text/html"] {
        assert_eq!(Redactor::new(Redaction::Passwords, media).err(), Some(RedactError::Format), "{media}");
    }
    for media in
        ["application/xml; charset=utf-8; charset=utf-16", "application/xml; charset =utf-16", "text/xml;charset"]
    {
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
fn an_answer_that_is_not_what_its_content_type_says_does_not_pass() {
    let xml = "<a><password>s3cret</password></a>";
    let wide = |bytes: fn(u16) -> [u8; 2]| xml.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
    let marked = [b"\xff\xfe".as_slice(), &wide(u16::to_le_bytes)].concat();
    for (media, answer) in [
        (JSON, xml.as_bytes().to_vec()),
        (XML, br#"{"password":"s3cret"}"#.to_vec()),
        (JSON, br#""s3cret""#.to_vec()),
        (XML, b"s3cret".to_vec()),
        (XML, wide(u16::to_le_bytes)),
        (XML, wide(u16::to_be_bytes)),
        (XML, marked),
        // What gzip and zlib begin with.
        (XML, b"\x1f\x8b\x08s3cret".to_vec()),
        (JSON, b"\x78\x9cs3cret".to_vec()),
    ] {
        let (mut redactor, mut output) = (Redactor::new(Redaction::Passwords, media).unwrap(), Vec::new());
        assert_eq!(redactor.update(&answer, &mut output), Err(RedactError::Format), "{media}: {answer:?}");
        assert!(output.is_empty(), "{media}: {output:?}");
    }
    for (media, answer) in [(XML, " \r\n<a/>"), (XML, "\u{feff}<a/>"), (JSON, "\t{\"a\":1}"), (XML, " \n"), (JSON, "")]
    {
        assert_eq!(
            masked(Redaction::Passwords, media, answer),
            answer.trim_start_matches([' ', '\r', '\n', '\t', '\u{feff}'])
        );
    }
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
    #[test]
    fn without_secrets_every_byte_passes(text in "(<[a-f]+>[a-z &;]{0,9}</[a-f]+>){0,9}", cut in 1usize..30) {
        prop_assert_eq!(masked_in(Redaction::Passwords, XML, &text, cut).unwrap(), text);
    }
}
