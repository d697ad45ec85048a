use super::{
    super::{head::head_len, operation::operations},
    content::PROPERTY,
    *,
};

fn judge_as(guard: &Guard, method: &str, target: &str, fields: &str) -> Result<Pass, Refusal> {
    let head = format!("{method} {target} HTTP/1.1\r\nHost: gw:8443\r\n{fields}\r\n");
    let length = head_len(head.as_bytes())?.expect("a whole head");
    guard.judge(&RequestHead::parse(&head.as_bytes()[..length])?)
}

fn read_only(scope: AdminScope) -> Guard {
    Guard::new(ConnectionKind::AdminReadOnly, scope, "")
}

fn read_write(scope: AdminScope) -> Guard {
    Guard::new(ConnectionKind::AdminReadWrite, scope, "")
}

const ALL: AdminScope = AdminScope { patient_data: true, probes: true, extension_upload: true, named_people: false };
/// What cannot pass without the option patient data, though it reads no message.
const SEARCHES: [&str; 2] = ["/channels/{channelId}/messages/count/_search", "/events/count/_search"];
const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 9\r\n";

/// A path of the template with plausible values.
fn path_of(operation: &Operation) -> String {
    let value = |segment: &str| match segment {
        "{messageId}" | "{metaDataId}" | "{eventId}" | "{userId}" => "1".to_owned(),
        "{extensionName}" => "JMS%20Sender".to_owned(),
        segment if segment.starts_with('{') => "a0000000-0000-0000-0000-000000000001".to_owned(),
        segment => segment.to_owned(),
    };
    operation.template.split('/').map(value).collect::<Vec<_>>().join("/")
}

fn fields_of(operation: &Operation) -> &'static str {
    if operation.template == LOGIN { FORM } else { "" }
}

#[test]
fn read_only_decides_every_row_of_the_table_by_its_class_under_both_paths() {
    let (guard, with_patients) =
        (read_only(AdminScope { probes: true, extension_upload: true, ..AdminScope::default() }), read_only(ALL));
    for operation in operations() {
        for api in ["/api", "/api/4.5.2"] {
            let path = format!("{api}{}", path_of(operation));
            let verdict = judge_as(&guard, operation.method.name(), &path, fields_of(operation));
            let withheld = ["/server/encryption", "/server/configuration"].contains(&operation.template);
            let expected = match operation.class {
                Class::Read => !SEARCHES.contains(&operation.template),
                Class::Session | Class::Audit => true,
                Class::ReadSecrets => !withheld,
                Class::ReadPatients | Class::Probe | Class::Write => false,
            };
            assert_eq!(verdict.is_ok(), expected, "{} {path}: {verdict:?}", operation.method.name());
            match verdict {
                Ok(pass) => {
                    assert_eq!((pass.template, pass.class), (operation.template, operation.class));
                    let masked = operation.class == Class::ReadSecrets
                        || operation.template == PROPERTY
                        || has_events(operation);
                    assert_eq!(pass.redaction.is_some(), masked, "{path}");
                    assert_eq!(pass.api.as_deref(), Some(api));
                }
                Err(refusal) => {
                    assert_eq!((refusal.status, refusal.template), (403, operation.template));
                    assert!(refusal.reason.is_ascii() && !refusal.reason.contains(['\r', '\n']));
                }
            }
            let patients = judge_as(&with_patients, operation.method.name(), &path, fields_of(operation));
            let of_patients = operation.class == Class::ReadPatients || SEARCHES.contains(&operation.template);
            assert_eq!(patients.is_ok(), expected || of_patients, "{path}");
        }
    }
}

#[test]
fn read_write_passes_all_but_what_an_option_must_allow() {
    for operation in operations() {
        let path = format!("/api{}", path_of(operation));
        let judge = |scope| judge_as(&read_write(scope), operation.method.name(), &path, fields_of(operation));
        let needs_option = match operation.class {
            Class::ReadPatients | Class::Probe => true,
            Class::Write => operation.template == EXTENSION_UPLOAD,
            Class::Read => SEARCHES.contains(&operation.template),
            Class::ReadSecrets | Class::Session | Class::Audit => false,
        };
        assert_eq!(judge(AdminScope::default()).is_err(), needs_option, "{path}");
        // What a writer reads must come back whole: a masked password would be saved.
        assert_eq!(judge(ALL).unwrap().redaction, None, "{path}");
    }
}

#[test]
fn how_many_messages_hold_a_name_is_told_only_with_the_option_patient_data() {
    let path = "/api/channels/a0/messages/count";
    for (query, of_content) in [
        ("", false),
        ("?status=ERROR&startDate=2026-01-01", false),
        ("?textSearch=DOE%5EJOHN", true),
        ("?status=ERROR&content%53earch=1%3DDOE", true),
        ("?metaDataCaseInsensitiveSearch=NAME%20STARTS%20D", true),
        ("?text%2553earch=DOE", true),
    ] {
        let count = |scope| judge_as(&read_only(scope), "GET", &format!("{path}{query}"), "").is_ok();
        assert_eq!((count(AdminScope::default()), count(ALL)), (!of_content, true), "{query}");
    }
}

#[test]
fn what_events_tell_is_masked_and_not_searched_without_the_option_patient_data() {
    for (method, path) in
        [("GET", "/api/events?limit=9"), ("GET", "/api/events/7"), ("POST", "/api/4.5.2/events/_search")]
    {
        for guard in [read_only as fn(AdminScope) -> Guard, read_write] {
            let judge = |scope| judge_as(&guard(scope), method, path, "").unwrap();
            assert_eq!(judge(AdminScope::default()).redaction, Some(Redaction::Events), "{method} {path}");
            assert_eq!(judge(ALL).redaction, None, "{method} {path}");
        }
    }
    for path in ["/api/events?attributeSearch=DOE", "/api/events/count?level=ERROR&attribute%53earch=DOE"] {
        let refusal = judge_as(&read_write(AdminScope::default()), "GET", path, "").unwrap_err();
        assert!(refusal.reason.ends_with("needs the option patient data"), "{}", refusal.reason);
        assert!(judge_as(&read_only(ALL), "GET", path, "").is_ok());
    }
    let search = |scope, fields: &str| judge_as(&read_only(scope), "POST", "/api/events/_search", fields);
    assert_eq!(search(AdminScope::default(), "").unwrap().body, BodyRule::Filter);
    assert_eq!(search(ALL, "").unwrap().body, BodyRule::SignedIn(MAX_QUERY_LEN));
    let in_utf_16 = "Content-Type: application/xml; charset=UTF-16\r\nContent-Length: 9\r\n";
    assert_eq!(search(AdminScope::default(), in_utf_16).unwrap_err().status, 403);
    let in_utf_8 = "Content-Type: application/xml; charset=UTF-8\r\nContent-Length: 9\r\n";
    assert!(search(AdminScope::default(), in_utf_8).is_ok());
    assert_eq!(search(AdminScope::default(), "Content-Length: 99999\r\n").unwrap_err().status, 413);
}

#[test]
fn the_reason_of_a_refusal_says_what_is_not_permitted() {
    let guard = read_only(AdminScope::default());
    let reason = |method, target| judge_as(&guard, method, target, "").unwrap_err().reason;
    assert_eq!(reason("POST", "/api/channels/_stop"), "read-only through gateway: stop channel is not permitted");
    assert_eq!(
        reason("POST", "/api/4.5.2/channels/_deploy"),
        "read-only through gateway: deploy channel is not permitted"
    );
    assert_eq!(
        reason("GET", "/api/channels/a/messages/1"),
        "not part of this admin connection: read message needs the option patient data"
    );
}

#[test]
fn what_the_table_does_not_have_is_refused() {
    for guard in [read_only(ALL), read_write(ALL)] {
        for (method, target) in [
            ("GET", "/api/nothing"),
            ("GET", "/API/channels"),
            ("GET", "/api/Channels/a"),
            ("GET", "/api/channels/_stop"),
            ("GET", "/api/channels/_stop/"),
            ("PUT", "/api/channels"),
            ("HEAD", "/api/channels/_getSummary"),
            ("POST", "/api/channels/a/b/c/d/e/_stop"),
            ("GET", "/api/4.5.2/4.5.2/channels"),
            ("GET", "/api/api/channels"),
            ("GET", "/apis/channels"),
            ("GET", "/api/channels.json"),
            ("GET", "/api/4.5.2/channels.json"),
            ("GET", "/api/encryption.json"),
            ("GET", "/api/channels.html"),
            ("GET", "/api/openapi.js"),
            ("GET", "/api/OpenAPI.json"),
            ("GET", "/api/openapi.json.js"),
            ("GET", "/api/index.html/x"),
            ("POST", "/api/openapi.json"),
            ("GET", "/api/server/encryption.json"),
            ("GET", "/api/lib/a/b.js"),
            ("GET", "/api/lib/a.json"),
            ("GET", "/api/lib/.js"),
            ("GET", "/api/lib/a%20b.js"),
            ("GET", "/api/channels/lib/a.js"),
            ("GET", "/mirth/api/channels"),
            ("GET", "/api/extensions/unknownplugin/data"),
            ("POST", "/webstart.jnlp"),
            ("POST", "/webadmin/Other.action"),
            ("GET", "/WEB-INF/web.xml"),
            ("GET", "/api/channels;x=1"),
            ("GET", "/api//channels"),
            ("GET", "/api/%63hannels"),
            ("GET", "/x/../api/channels"),
        ] {
            let refusal = judge_as(&guard, method, target, "").unwrap_err();
            assert_eq!((refusal.status, refusal.template), (403, "unknown"), "{method} {target}");
        }
    }
}

#[test]
fn pages_of_the_engine_are_read_and_nothing_else() {
    let guard = read_only(AdminScope::default());
    for page in [
        "/",
        "/webstart",
        "/webstart/client-lib/a.jar",
        "/webadmin/Index.action",
        "/api/",
        "/api/index.html",
        "/api/openapi.json",
        "/api/4.5.2/openapi.yaml",
        "/api/lib/swagger-ui-bundle.js",
        "/api/css/mirth.css",
        "/api/images/favicon.ico",
        "/launcher/linux.sh",
    ] {
        let pass = judge_as(&guard, "GET", page, "").unwrap();
        assert!(pass.class == Class::Read && pass.api.is_none(), "{page}");
    }
    let start = |page| judge_as(&guard, "GET", page, "").unwrap().start_file;
    assert!(start("/webstart") && start("/webstart.jnlp?time=1") && start("/webstart/extensions/a.jnlp"));
    assert!(!start("/webstart/client-lib/a.jar"));
    assert_eq!(judge_as(&guard, "POST", "/webadmin/Login.action", FORM).unwrap().body, BodyRule::Login);
}

#[test]
fn a_sign_in_travels_in_a_form_and_in_no_query() {
    for guard in [read_only(ALL), read_write(ALL)] {
        for (method, target) in [
            ("GET", "/webadmin/Login.action?username=admin&password=guess"),
            ("GET", "/webadmin/Login.action?op=login&user%6eame=admin"),
            ("GET", "/webadmin/Login.action/login?x=1;USERNAME=bypass"),
            ("GET", "/webadmin/Index.action?password=guess"),
            ("HEAD", "/webadmin/Login.action?p%2561ssword=x"),
            ("POST", "/webadmin/Login.action?op=login&username=bypass"),
            ("POST", "/api/users/_login?username=admin"),
        ] {
            let fields = if method == "POST" { FORM } else { "" };
            let refusal = judge_as(&guard, method, target, fields).unwrap_err();
            assert_eq!(refusal.reason, "refused by the gateway: a sign-in is a form", "{method} {target}");
        }
        assert!(judge_as(&guard, "POST", "/webadmin/Login.action?op=login", FORM).is_ok());
        assert!(judge_as(&guard, "GET", "/webadmin/DashboardStatistics.action?id=a%20b", "").is_ok());
    }
}

#[test]
fn a_context_path_is_required_where_the_engine_has_one() {
    let guard = Guard::new(ConnectionKind::AdminReadOnly, AdminScope::default(), "/mirth/");
    let pass = judge_as(&guard, "GET", "/mirth/api/4.5.2/server/version", "").unwrap();
    assert_eq!(pass.api.as_deref(), Some("/mirth/api/4.5.2"));
    assert!(judge_as(&guard, "GET", "/api/server/version", "").is_err());
    assert!(judge_as(&guard, "POST", "/mirth/api/channels/_stop", "").is_err());
}

#[test]
fn bodies_pass_only_where_a_call_needs_one() {
    let guard = read_only(AdminScope::default());
    let get = judge_as(&guard, "GET", "/api/server/version", "Content-Length: 1\r\n").unwrap_err();
    assert_eq!(get.reason, "refused by the gateway: this call has no body");
    assert!(judge_as(&guard, "GET", "/api/server/version", "Content-Length: 0\r\n").is_ok());
    assert!(judge_as(&guard, "POST", "/api/users/_logout", "Transfer-Encoding: chunked\r\n").is_err());
    let summary = judge_as(&guard, "POST", "/api/channels/_getSummary", "Content-Length: 99\r\n").unwrap();
    assert_eq!(summary.body, BodyRule::SignedIn(MAX_QUERY_LEN));
    let large = judge_as(&guard, "POST", "/api/channels/_getSummary", "Content-Length: 99999999\r\n").unwrap_err();
    assert_eq!(large.status, 413);
}

#[test]
fn before_a_sign_in_only_its_form_passes() {
    let guard = read_only(AdminScope::default());
    assert_eq!(judge_as(&guard, "POST", "/api/users/_login", FORM).unwrap().body, BodyRule::Login);
    for fields in ["Content-Type: application/xml\r\nContent-Length: 9\r\n", "Content-Length: 9\r\n"] {
        assert_eq!(judge_as(&guard, "POST", "/api/users/_login", fields).unwrap_err().status, 403, "{fields}");
    }
    let in_charset = |parameters: &str| {
        let fields = format!("Content-Type: application/x-www-form-urlencoded{parameters}\r\nContent-Length: 9\r\n");
        judge_as(&guard, "POST", "/api/users/_login", &fields)
    };
    assert!(in_charset("; charset=UTF-8").is_ok());
    for parameters in ["; charset=UTF-16", "; charset=utf-8; charset=ibm037", ";charset=utf-16be"] {
        let refusal = in_charset(parameters).unwrap_err();
        assert_eq!(refusal.reason, "refused by the gateway: a sign-in is a form in UTF-8", "{parameters}");
    }
    let long = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 5000\r\n";
    assert_eq!(judge_as(&guard, "POST", "/api/users/_login", long).unwrap_err().status, 413);
}

#[test]
fn the_bypass_account_never_passes() {
    for guard in [read_only(ALL), read_write(ALL)] {
        let with = |credentials: &[u8], scheme: &str| {
            let fields = format!("Authorization: {scheme} {}\r\n", BASE64.encode(credentials));
            judge_as(&guard, "GET", "/api/server/version", &fields)
        };
        for user in ["bypass", "BYPASS", " bypass", "bypass\t", "\0bypass"] {
            for scheme in ["Basic", "basic", "BASIC"] {
                let refusal = with(format!("{user}:x").as_bytes(), scheme).unwrap_err();
                assert_eq!(
                    refusal.reason, "refused by the gateway: the bypass account is for local programs",
                    "{user}"
                );
            }
        }
        assert!(with(b"admin:admin", "Basic").is_ok());
        assert!(with(b"no colon", "Basic").is_err() && with(b"a:b", "Bearer").is_err());
        // Another spelling of the same bytes, as a tolerant decoder would read it.
        for loose in ["YnlwYXNzOng", "YnlwYXNz Ong=", "YnlwYXNzOng=\t", "Ynlw-XNzOng="] {
            let fields = format!("Authorization: Basic  {loose}\r\n");
            assert!(judge_as(&guard, "GET", "/api/server/version", &fields).is_err(), "{loose}");
        }
        let twice = "Authorization: Basic YTpi\r\nAuthorization: Basic YnlwYXNzOng=\r\n";
        assert!(judge_as(&guard, "GET", "/api/server/version", twice).is_err());
    }
}

#[test]
fn a_stored_password_is_not_read_by_its_property_name() {
    let guard = read_only(AdminScope::default());
    let property = |query: &str| judge_as(&guard, "GET", &format!("/api/server/property?{query}"), "").is_ok();
    assert!(property("group=core&name=update.url"));
    assert!(!property("group=core&name=smtp.password"));
    assert!(!property("group=core&name=smtp.p%61ssword"));
    assert!(!property("name=Encryption.Key&group=core"));
    let archiver = judge_as(&guard, "GET", "/api/server/property?group=Data%20Pruner&name=archiverOptions", "");
    assert_eq!(archiver.unwrap().redaction, Some(Redaction::Text), "an object with a password in it");
    assert!(!property("name=smtp.p%2561ssword") && !property("name=%zz"));
}
