use std::net::SocketAddr;

use super::*;
use crate::engine::Aim;

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
        let aims = [6001, 6002].map(|port| lab.aim(SocketAddr::from(([127, 0, 0, 1], port))));
        assert_eq!(aims, [Aim::Reaches, Aim::Elsewhere]);
        if let [_, fhir, files] = destinations.as_slice() {
            assert_eq!((fhir.host.as_deref(), fhir.port, fhir.enabled), (Some("fhir.example"), Some(9443), false));
            assert_eq!((files.host.as_deref(), files.port), (Some("files.example"), Some(22)));
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

#[test]
fn a_file_writers_server_is_told_without_its_directory_and_a_path_of_this_machine_is_not() {
    for (scheme, place, host, port) in [
        ("SFTP", "127.0.0.1:39165/in", "127.0.0.1", Some(39165)),
        ("SFTP", "localhost/in", "localhost", Some(22)),
        ("FTP", "files.example", "files.example", Some(21)),
        ("SMB", "user@[::1]:1445/share", "::1", Some(1445)),
        ("SMB", r"\\server\share\smith", "server", Some(445)),
        ("SMB", r"server\share\smith@home", "server", Some(445)),
        ("SMB", "//server/share", "server", Some(445)),
        ("SFTP", "127.0.0.1:${port}/in", "127.0.0.1", None),
        ("FILE", "/var/patients", "", None),
        ("S3", "bucket/patients", "", None),
    ] {
        assert_eq!(server_of_files(scheme, place), (host, port), "{scheme} {place}");
    }
    let writer = r#"{"connector":{"metaDataId":1,"transportName":"File Writer","enabled":true,"properties":{
        "scheme":"SFTP","host":"127.0.0.1:39165/in"}}}"#;
    let aim = details("null", writer).destinations[0].aim(SocketAddr::from(([127, 0, 0, 1], 39165)));
    assert_eq!(aim, Aim::Reaches);
}

#[test]
fn a_web_service_sender_has_its_place_in_its_location_or_else_where_its_description_is() {
    let of = |properties: &str| {
        let connector = format!(
            r#"{{"connector":{{"metaDataId":1,"transportName":"Web Service Sender","enabled":true,"properties":{properties}}}}}"#
        );
        let destination = details("null", &connector).destinations.remove(0);
        (destination.host, destination.port)
    };
    let wsdl = r#""wsdlUrl":"https://lab.example/service?wsdl""#;
    assert_eq!(of(&format!("{{{wsdl}}}")), (Some("lab.example".to_owned()), Some(443)));
    let both = format!(r#"{{{wsdl},"locationURI":"http://127.0.0.1:8090/service"}}"#);
    assert_eq!(of(&both), (Some("127.0.0.1".to_owned()), Some(8090)));
}
