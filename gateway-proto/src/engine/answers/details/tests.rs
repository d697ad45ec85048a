use super::*;

const ID: &str = "a0000000-0000-4000-8000-000000000001";

fn details(source: &str, destinations: &str) -> ChannelDetails {
    let answer = format!(
        r#"{{"list":{{"channel":{{"@version":"4.5.2","id":"{ID}","name":"x","preprocessingScript":"return;",
        "sourceConnector":{source},"destinationConnectors":{destinations}}}}}}}"#
    );
    channels(answer.as_bytes()).unwrap().remove(ID).unwrap()
}

#[test]
fn a_tcp_listener_is_read_with_its_mode_its_limit_and_its_client_mode() {
    let source = |more: &str| {
        format!(
            r#"{{"metaDataId":0,"name":"sourceConnector","transportName":"TCP Listener","enabled":true,"properties":{{
            "@class":"com.mirth.connect.connectors.tcp.TcpReceiverProperties",
            "listenerConnectorProperties":{{"@version":"4.5.2","host":"0.0.0.0","port":"${{adtPort}}"}},
            "transmissionModeProperties":{{"@class":"com.mirth.connect.plugins.mllpmode.MLLPModeProperties",
            "pluginPointName":"MLLP","startOfMessageBytes":"0B"}}{more}}}}}"#
        )
    };
    let listener = details(&source(r#","serverMode":true,"maxConnections":25"#), "null");
    assert_eq!((listener.behavior.as_deref(), listener.host.as_deref()), (Some("hl7v2-mllp"), Some("0.0.0.0")));
    assert_eq!((listener.max_connections, listener.server_mode, listener.tls), (Some(25), true, false));
    assert_eq!(details(&source(""), "null").max_connections, None);
    assert_eq!(details(&source(r#","maxConnections":0"#), "null").max_connections, Some(0), "no limit");
    assert_eq!(details(&source(r#","maxConnections":"${places}""#), "null").max_connections, None);
    assert!(!details(&source(r#","serverMode":"false""#), "null").server_mode);
    let basic = source("").replace("\"MLLP\"", "\"Basic\"");
    assert_eq!(details(&basic, "null").behavior.as_deref(), Some("tcp"));
}

#[test]
fn other_sources_are_told_apart() {
    let of = |transport: &str, properties: &str| {
        details(&format!(r#"{{"transportName":"{transport}","properties":{properties}}}"#), "null")
    };
    let listener = r#"{"listenerConnectorProperties":{"host":"127.0.0.1","port":8090},"tls":"aes"}"#;
    assert_eq!(of("HTTP Listener", listener).behavior.as_deref(), Some("http"));
    assert_eq!(of("Web Service Listener", listener).behavior.as_deref(), Some("http"));
    let dicom = of("DICOM Listener", listener);
    assert_eq!((dicom.behavior.as_deref(), dicom.tls), (Some("dicom"), true));
    for reader in ["File Reader", "Channel Reader", "JavaScript Reader"] {
        let reader = of(reader, r#"{"host":"files","pollConnectorProperties":{}}"#);
        assert_eq!((reader.behavior, reader.host), (None, None));
    }
    let nothing = details("null", "null");
    assert_eq!((nothing.behavior, nothing.host), (None, None));
}

#[test]
fn destinations_tell_where_and_how_but_no_path_and_no_password() {
    let tcp = r#"{"metaDataId":1,"name":"to lab","transportName":"TCP Sender","enabled":true,"properties":{
        "remoteAddress":"127.0.0.1","remotePort":6001,
        "destinationConnectorProperties":{"queueEnabled":true,"validateResponse":false,"threadCount":1}}}"#;
    let http = r#"{"metaDataId":3,"name":"fhir","transportName":"HTTP Sender","enabled":false,"properties":{
        "host":"https://user:secret@fhir.example:9443/path?token=secret","password":"secret"}}"#;
    let file = r#"{"metaDataId":4,"name":"files","transportName":"File Writer","enabled":true,"properties":{
        "scheme":"SFTP","host":"files.example:22/secret","password":"secret"}}"#;
    for answer in [format!(r#"{{"connector":{tcp}}}"#), format!(r#"{{"connector":[{tcp},{http},{file}]}}"#)] {
        let destinations = details("null", &answer).destinations;
        let lab = &destinations[0];
        assert_eq!((lab.id, lab.name.as_str(), lab.queue, lab.validate_response), (1, "to lab", true, false));
        assert!(lab.is_local(6001) && !lab.is_local(6002));
        if let [_, fhir, files] = destinations.as_slice() {
            assert_eq!((fhir.host.as_deref(), fhir.port, fhir.enabled), (Some("fhir.example"), Some(9443), false));
            assert_eq!((files.host.as_deref(), files.port), (None, None));
        }
        assert!(!format!("{destinations:?}").contains("secret"), "{destinations:?}");
    }
}

#[test]
fn urls_are_cut_down_to_host_and_port() {
    for (url, host, port) in [
        ("http://host/x", "host", Some(80)),
        ("https://host", "host", Some(443)),
        ("https://[::1]:8443/x", "::1", Some(8443)),
        ("https://[::1]/x", "::1", Some(443)),
        ("${host}", "${host}", None),
        ("", "", None),
        ("http://a@b@c:1/", "c", Some(1)),
        ("http://host:port/", "host", None),
    ] {
        assert_eq!(url_host(url), (host, port), "{url}");
    }
}

#[test]
fn destinations_beyond_the_limit_are_left_out() {
    let many = vec![r#"{"metaDataId":1,"transportName":"TCP Sender"}"#; MAX_DESTINATIONS + 5].join(",");
    assert_eq!(details("null", &format!(r#"{{"connector":[{many}]}}"#)).destinations.len(), MAX_DESTINATIONS);
}
