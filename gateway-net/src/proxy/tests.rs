use super::*;

fn proxy(text: &str) -> Proxy {
    text.parse().unwrap()
}

fn sent(proxy: &Proxy) -> &str {
    proxy.authorization.as_ref().unwrap()
}

fn host(text: &str) -> Host {
    Host::parse(text).unwrap()
}

fn covers(proxy: &Proxy, text: &str) -> bool {
    match &host(text) {
        Host::Domain(name) => proxy.covers(&Host::Domain(name)),
        Host::Ipv4(address) => proxy.covers(&Host::Ipv4(*address)),
        Host::Ipv6(address) => proxy.covers(&Host::Ipv6(*address)),
    }
}

#[test]
fn a_proxy_is_shown_as_host_and_port_only() {
    for (text, shown) in [
        ("http://proxy.example:3128", "proxy.example:3128"),
        (" HTTP://Proxy.Example:80/\n", "proxy.example:80"),
        ("http://[2001:db8::1]:8080", "[2001:db8::1]:8080"),
        ("http://ann:sesame@192.0.2.1:3128", "192.0.2.1:3128"),
    ] {
        let proxy = proxy(text);
        assert_eq!(proxy.to_string(), shown);
        let debug = format!("{proxy:?}");
        assert!(!debug.contains("sesame") && !debug.contains("ann") && !debug.contains("YW5u"), "{debug}");
    }
}

#[test]
fn user_and_password_are_decoded_and_sent_as_basic() {
    assert_eq!(sent(&proxy("http://Aladdin:open%20sesame@p:1")), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    assert_eq!(sent(&proxy("http://u:p%40%3A%2Fs@p:1")), format!("Basic {}", BASE64.encode(b"u:p@:/s")));
    // Not encoded where it should have been: the last @ separates.
    assert_eq!(sent(&proxy("http://u:p@/s@p:1")), format!("Basic {}", BASE64.encode(b"u:p@/s")));
    assert_eq!(sent(&proxy("http://u@p:1")), format!("Basic {}", BASE64.encode(b"u:")));
    assert!(!proxy("http://p:1").has_credentials());
}

#[test]
fn what_is_no_proxy_is_refused_without_repeating_it() {
    use ProxyFormatError::{Address, Credentials, Port, Scheme};
    for (text, expected) in [
        ("", Scheme),
        ("proxy.example:3128", Scheme),
        ("socks5://u:sesame@proxy.example:1080", Scheme),
        ("https://proxy.example:3128", Scheme),
        ("http://", Address),
        ("http://:3128", Address),
        ("http://proxy.example:3128/path", Address),
        ("http://proxy.example:3128?x", Address),
        ("http://proxy.example:3128#x", Address),
        ("http://proxy.example:99999", Address),
        ("http://pro xy:3128", Address),
        ("http://proxy.example", Port),
        ("http://proxy.example:0", Port),
        ("http://u:sesame%@proxy.example:3128", Credentials),
        ("http://u:sesame%4@proxy.example:3128", Credentials),
        ("http://u:sesame%+4@proxy.example:3128", Credentials),
        ("http://u:sesame%0d%0aHost:x@proxy.example:3128", Credentials),
        ("http://u%3Av:sesame@proxy.example:3128", Credentials),
        ("http://:sesame@proxy.example:3128", Credentials),
    ] {
        let error = text.parse::<Proxy>().unwrap_err();
        assert_eq!(error, expected, "{text}");
        assert!(!error.to_string().contains("sesame"));
    }
}

#[test]
fn loopback_is_never_proxied() {
    let proxy = proxy("http://proxy.example:3128");
    for name in ["localhost", "LOCALHOST.", "db.localhost", "127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]"] {
        assert!(!covers(&proxy, name), "{name}");
    }
    for name in ["localhost.example", "notlocalhost", "128.0.0.1", "[::2]", "10.0.0.1"] {
        assert!(covers(&proxy, name), "{name}");
    }
    assert!(!proxy.covers_url(&Url::parse("unix:/run/x").unwrap()));
}

#[test]
fn exemptions_are_names_with_what_is_below_them_addresses_and_networks() {
    let list =
        "clinic.example, .lab.example,*.ward.example  192.0.2.7,10.0.0.0/8,[2001:db8::5],2001:db8:1::/48,1.2.3.4/x,.";
    let proxy = proxy("http://proxy.example:3128").exempting(Exemptions::parse(list));
    for name in [
        "clinic.example",
        "Relay.CLINIC.example.",
        "lab.example",
        "a.b.lab.example",
        "ward.example",
        "x.ward.example",
        "192.0.2.7",
        "[::ffff:192.0.2.7]",
        "10.255.0.1",
        "[2001:db8::5]",
        "[2001:db8:1:ffff::1]",
    ] {
        assert!(!covers(&proxy, name), "{name}");
    }
    for name in ["myclinic.example", "example", "192.0.2.8", "11.0.0.1", "[2001:db8::6]", "[2001:db8:2::1]", "1.2.3.4"]
    {
        assert!(covers(&proxy, name), "{name}");
    }
    assert!(!covers(&proxy.clone().exempting(Exemptions::parse("0.0.0.0/0")), "8.8.8.8"));
    assert!(covers(&proxy.clone().exempting(Exemptions::parse("0.0.0.0/0")), "[2001:db8::1]"));
    assert!(!covers(&proxy.exempting(Exemptions::parse("*")), "8.8.8.8"));
}

#[test]
fn the_environment_names_a_proxy_in_either_case_and_a_wrong_one_is_told_by_its_variable() {
    let from = |variables: &'static [(&str, &str)]| {
        Proxy::from_variables(|wanted| {
            variables.iter().find(|(name, _)| *name == wanted).map(|(_, value)| (*value).to_owned())
        })
    };
    assert_eq!(from(&[("HTTP_PROXY", "http://other:1"), ("https_proxy", " ")]), Ok(None));
    let found = from(&[("https_proxy", "u:p@proxy.example:3128"), ("no_proxy", "clinic.example")]).unwrap().unwrap();
    assert_eq!(found.to_string(), "proxy.example:3128");
    assert!(found.has_credentials() && !covers(&found, "clinic.example"));
    let found = from(&[("HTTPS_PROXY", "http://upper:1"), ("https_proxy", "http://lower:1")]).unwrap().unwrap();
    assert_eq!(found.to_string(), "upper:1");
    let error = from(&[("HTTPS_PROXY", "socks5://u:sesame@p:1")]).unwrap_err();
    assert_eq!(error, ProxyEnvironmentError { variable: "HTTPS_PROXY", source: ProxyFormatError::Scheme });
}
