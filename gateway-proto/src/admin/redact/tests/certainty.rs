//! What can be read in two ways: it does not pass, or nothing behind it does.

use super::*;

const SECRET: &str = "S3CR3T";

/// How a text of an answer is escaped in XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&apos;")
}

/// Whether a secret passes, in an answer or in a text of one, however it is cut.
fn shows(redaction: Redaction, media: &str, answer: &str, secret: &str) -> bool {
    [1, 7, usize::MAX].into_iter().any(|cut| {
        // What passed before it is refused has passed.
        let (mut redactor, mut output) = (Redactor::new(redaction, media).unwrap(), Vec::new());
        let refused = answer.as_bytes().chunks(cut).any(|piece| redactor.update(piece, &mut output).is_err());
        if !refused {
            redactor.finish(&mut output);
        }
        String::from_utf8_lossy(&output).contains(secret)
    })
}

#[test]
fn markup_with_two_readings_is_refused_and_masked_in_a_text() {
    for markup in [
        "<?x it's?><password>S3CR3T</password><note>it's</note>",
        "<?x a=\"?><password>S3CR3T</password>\"?>",
        "<?x><password>S3CR3T</password><?y?>",
        "<!DOCTYPE it's><password>S3CR3T</password>'>",
        "<!DOCTYPE a [<!ENTITY b \"S3CR3T\">]><c/>",
        "<!DOCTYPE a SYSTEM '>'><password>S3CR3T</password><b c='>'/>",
        "<![if a]><password>S3CR3T</password><![endif]>",
        "<p don't><password>S3CR3T</password><i>it's</i>",
        "<p a=don't><password>S3CR3T</password><i b=it's/>",
        "<p a=\"b\"c\"><password>S3CR3T</password><q d=\"\">",
        "<p a='<password>S3CR3T</password>'/>",
        "<p {\"password\":\"S3CR3T\"}>",
        "<password S3CR3T>",
        "<password></x>S3CR3T</password>",
        "<a><password></a>S3CR3T</password>",
        "<a></a password=\"S3CR3T\">",
        "<entry><string>Authorization</x><string>S3CR3T</string></entry>",
    ] {
        let refused = masked_in(Redaction::Passwords, XML, markup, usize::MAX);
        assert_eq!(refused, Err(RedactError::Format), "{markup}");
        assert!(!shows(Redaction::Passwords, XML, markup, SECRET), "{markup}");
        let inside = format!("<a><b>{}</b><c>t</c></a>", escaped(markup));
        let masked = masked(Redaction::Passwords, XML, &inside);
        assert!(!masked.contains(SECRET) && masked.ends_with("********</b><c>t</c></a>"), "{masked}");
    }
}

#[test]
fn json_with_two_readings_is_refused_and_masked_in_a_text() {
    for json in [
        r#"{"a" "password":"S3CR3T"}"#,
        r#"{"a":"b" "password":"S3CR3T"}"#,
        r#"{"a":1,"b":"c\","password":"S3CR3T"}"#,
        r#"["a\"password":"S3CR3T"]"#,
        r#"["password":"S3CR3T"]"#,
        r#"["password" "S3CR3T"]"#,
        r#"{""password":"S3CR3T"}"#,
        r#"{password:"S3CR3T"}"#,
        r#"{'password':'S3CR3T'}"#,
        r#"{/*"*/"password":"S3CR3T"}"#,
        r#"{"password":S3CR3T}"#,
        r#"{"a":1]"password":"S3CR3T""#,
        r#"{"a":true story,"password":"S3CR3T"}"#,
    ] {
        let refused = masked_in(Redaction::Passwords, JSON, json, usize::MAX);
        assert_eq!(refused, Err(RedactError::Format), "{json}");
        assert!(!shows(Redaction::Passwords, JSON, json, SECRET), "{json}");
        let inside = format!("<a><b>{}</b><c>t</c></a>", escaped(json));
        let masked = masked(Redaction::Passwords, XML, &inside);
        assert!(!masked.contains(SECRET) && masked.ends_with("********</b><c>t</c></a>"), "{masked}");
    }
    // A variable that the engine puts a value in place of is as good as a value.
    let template = r#"{"a":${a.b},"password":${password},"c":[${d}]}"#;
    assert_eq!(masked(Redaction::Passwords, JSON, template), template.replace("${password}", "\"********\""));
}

#[test]
fn what_was_taken_out_of_a_document_by_a_comment_is_masked_with_it() {
    for (xml, expected) in [
        ("<a><!-- <password>S3CR3T</password> --><b/></a>", "<a><!--********--><b/></a>"),
        ("<a><!--{\"password\":\"S3CR3T\"}--></a>", "<a><!--{\"password\":\"********\"}--></a>"),
        ("<a><!-->{\"password\":\"S3CR3T\"}--></a>", "<a><!--********--></a>"),
        ("<a><!--a--!>{\"password\":\"S3CR3T\"}--></a>", "<a><!--********--></a>"),
        ("<a><!-- it's a note --></a>", "<a><!-- it's a note --></a>"),
        ("<a><?x password=\"S3CR3T\" b='c'?></a>", "<a><?x password=\"********\" b='c'?></a>"),
    ] {
        assert_eq!(masked(Redaction::Passwords, XML, xml), expected);
    }
}

#[test]
fn html_in_a_text_is_followed_as_long_as_nothing_depends_on_where_it_ends() {
    let html = "<!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0 Strict//EN\" \"http://www.w3.org/TR/xhtml1/DTD/xhtml1-strict.dtd\">\
        <html><p class=a>one<br>two<p>three</b></html>";
    let answer = format!("<a>{}</a>", escaped(html));
    assert_eq!(masked(Redaction::Passwords, XML, &answer), answer);
    let form = escaped("<form><input name=password value=S3CR3T>S3CR3T</form>S3CR3T");
    let masked = masked(Redaction::Passwords, XML, &format!("<a><b>{form}</b>t</a>"));
    assert!(!masked.contains(SECRET) && masked.ends_with("********</b>t</a>"), "{masked}");
}

const GARBAGE: &str = "[<>/a-z\"'=\\[\\]!?{}:, \\\\-]{0,60}";
/// Between a name and its value: nothing that makes the value another name.
const BETWEEN: &str = "[<>/a-z'=!?: \\\\-]{0,20}";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Whatever stands before, behind and beside it, a secret under its name never passes, and nothing panics.
    #[test]
    fn a_secret_under_its_name_never_passes_whatever_stands_around_it(
        before in GARBAGE,
        beside in GARBAGE,
        behind in GARBAGE,
        between in BETWEEN,
        secret in "[A-Z0-9]{9,40}",
    ) {
        let xml = format!("<password>{secret}</password>");
        let json = format!("\"password\":\"{secret}\"");
        for answer in [
            format!("{before}{xml}{behind}"),
            format!("<a>{before}{xml}{behind}</a>"),
            format!("<a>{xml}{before}{xml}{behind}</a>"),
            format!("<a><b>{before}</b>{xml}<c>{behind}</c></a>"),
            format!("<a b=\"{before}\">{xml}</a>"),
            format!("<a {before}>{xml}{behind}</a>"),
            format!("<?x {before}?>{xml}<!--{behind}-->"),
            format!("<!--{before}{xml}{behind}-->"),
            format!("<a><password>{beside}{secret}</password></a>"),
        ] {
            prop_assert!(!shows(Redaction::Passwords, XML, &answer, &secret), "{}", answer);
            // In a text only what begins like a document is one.
            if answer.starts_with('<') {
                let inside = format!("<a><b>{}</b></a>", escaped(&answer));
                prop_assert!(!shows(Redaction::Passwords, XML, &inside, &secret), "{}", inside);
            }
        }
        for answer in [
            format!("{before}{{{json}}}{behind}"),
            format!("{{{before}{json}{behind}}}"),
            format!("{{\"a\":1,{before}{json},{behind}}}"),
            format!("{{\"a\":\"{before}\",{json},\"b\":\"{behind}\"}}"),
            format!("[{before}{{{json}}}{behind}]"),
            format!("{{\"password\":{between}\"{secret}\"}}"),
            format!("{{\"password\"{between}:\"{secret}\"}}"),
        ] {
            prop_assert!(!shows(Redaction::Passwords, JSON, &answer, &secret), "{}", answer);
        }
        for text in [format!("{{{before}{json}{behind}}}"), format!("[{before}{json}]"), format!("{{{json}{behind}")] {
            let inside = format!("<a><b>{}</b></a>", escaped(&text));
            prop_assert!(!shows(Redaction::Passwords, XML, &inside, &secret), "{}", inside);
        }
    }

    /// The same for the values of maps, whose names say nothing.
    #[test]
    fn a_value_of_a_map_never_passes_whatever_stands_around_it(
        before in GARBAGE,
        behind in GARBAGE,
        secret in "[A-Z0-9]{9,40}",
    ) {
        let entry = format!("<entry><string>k</string><string>{secret}</string></entry>");
        for answer in [
            format!("<map>{before}{entry}{behind}</map>"),
            format!("<map><entry><string>{before}</string><string>{secret}</string></entry></map>"),
            format!("<map><entry {before}><string>k</string><string>{secret}</string></entry></map>"),
            format!("<map>{before}<string>{secret}</string></map>"),
        ] {
            prop_assert!(!shows(Redaction::Values, XML, &answer, &secret), "{}", answer);
        }
        let entry = format!("{{\"string\":[\"k\",\"{secret}\"]}}");
        for answer in [
            format!("{{\"map\":{{\"entry\":[{before}{entry}{behind}]}}}}"),
            format!("{{\"map\":{{{before}\"a\":\"{secret}\"{behind}}}}}"),
        ] {
            prop_assert!(!shows(Redaction::Values, JSON, &answer, &secret), "{}", answer);
        }
    }
}
