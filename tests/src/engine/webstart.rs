//! What the engine serves beside its API: the start page, the launcher with its descriptions and jars, and documents.
//!
//! The JNLP's `codebase` follows the request's `Host` header, port included; the server argument takes the header's host
//! but always the engine's own HTTPS port.

use bytes::Bytes;
use hyper::{Response, StatusCode, header};

use super::{answers::VERSION, body::Body};

/// Answers a path outside the API; none: there is no such path.
pub fn answer(path: &str, query: &str, scheme: &str, host: &str, https_port: u16) -> Option<Response<Body>> {
    let (kind, body) = match path {
        "/" => ("text/html", "<html><title>Mirth Connect Administrator</title></html>".to_owned()),
        "/webstart" | "/webstart.jnlp" => {
            let known =
                |pair: &str| pair.is_empty() || ["maxHeapSize=", "time="].iter().any(|name| pair.starts_with(name));
            // Anything else in the query gives an empty answer.
            let body = if query.split('&').all(known) { jnlp(scheme, host, https_port) } else { String::new() };
            ("application/x-java-jnlp-file", body)
        }
        _ if path.starts_with("/webstart/extensions/") && path.ends_with(".jnlp") => {
            ("application/x-java-jnlp-file", extension(path))
        }
        _ if path.starts_with("/webstart/") && path.ends_with(".jar") => ("application/java-archive", path.to_owned()),
        "/launcher/linux.sh" => ("application/octet-stream", path.to_owned()),
        "/javadocs/" | "/apiexamples/channels_json" => ("text/html", path.to_owned()),
        _ => return None,
    };
    let mut builder = Response::builder().status(StatusCode::OK).header(header::CONTENT_TYPE, kind);
    if kind == "application/x-java-jnlp-file" {
        builder = builder.header(header::CONTENT_DISPOSITION, "attachment; filename = \"webstart.jnlp\"");
    }
    builder.body(Body::new(Bytes::from(body))).ok()
}

fn jnlp(scheme: &str, host: &str, https_port: u16) -> String {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<jnlp codebase=\"{scheme}://{host}\" version=\"{VERSION}\">\n\
         <information><title>Mirth Connect Administrator {VERSION}</title></information>\n\
         <resources><j2se java-vm-args=\"-Xmx512m\" version=\"1.9+\"/>\
         <jar download=\"eager\" href=\"webstart/client-lib/mirth-client.jar\" main=\"true\" sha256=\"AAAA\"/>\
         <extension href=\"webstart/extensions/tcp.jnlp\"/></resources>\n\
         <application-desc main-class=\"com.mirth.connect.client.ui.Mirth\">\
         <argument>https://{name}:{https_port}</argument><argument>{VERSION}</argument></application-desc>\n</jnlp>\n"
    )
}

fn extension(path: &str) -> String {
    format!("<jnlp><information><title>{path}</title></information><component-desc/></jnlp>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_argument_names_the_engine_s_own_port_whatever_the_host_header_says() {
        let text = jnlp("https", "gw.example:18443", 8443);
        assert!(text.contains("codebase=\"https://gw.example:18443\""), "{text}");
        assert!(text.contains("<argument>https://gw.example:8443</argument>"), "{text}");
    }
}
