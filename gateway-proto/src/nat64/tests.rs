use super::*;

fn prefix(text: &str) -> Nat64Prefix {
    let (address, length) = text.split_once('/').unwrap();
    Nat64Prefix::new(address.parse().unwrap(), length.parse().unwrap()).unwrap()
}

fn answer(addresses: &[&str]) -> Vec<Nat64Prefix> {
    Nat64Prefix::in_answer(addresses.iter().map(|address| address.parse().unwrap()))
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn an_address_is_embedded_as_the_rfc_shows_for_every_length_of_prefix_and_found_again() {
    // RFC 6052 §2.4, tables 1 and 2.
    let examples = [
        ("2001:db8::/32", "2001:db8:c000:221::"),
        ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
        ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
        ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
    ];
    let inner = Ipv4Addr::new(192, 0, 2, 33);
    for (text, outer) in examples {
        let (prefix, outer) = (prefix(text), outer.parse().unwrap());
        assert_eq!((prefix.embed(inner), prefix.extract(outer)), (outer, Some(inner)), "{text}");
        assert_eq!(prefix.to_string(), text);
        assert!(prefix.embed(Ipv4Addr::BROADCAST).octets()[8] == 0, "{text}: the u octet");
    }
}

#[test]
fn an_address_of_the_networks_own_is_not_taken_for_a_translated_one() {
    for own in ["2001:db8:c000:221::1", "2001:db8:c000:221:100::", "2001:db9:c000:221::"] {
        assert_eq!(prefix("2001:db8::/32").extract(own.parse().unwrap()), None, "{own}");
    }
    for (address, length) in [("2001:db8::", 95), ("2001:db8::", 0), ("ff02::", 96), ("fe80::", 64), ("::", 96)] {
        assert_eq!(Nat64Prefix::new(address.parse().unwrap(), length), None, "{address}/{length}");
    }
    assert_eq!(Nat64Prefix::new("::ffff:0:0".parse().unwrap(), 96), None, "IPv4 written as IPv6 is no translation");
}

#[test]
fn a_prefix_is_found_where_both_well_known_addresses_are_in_the_answer() {
    for text in [
        "2001:db8::/32",
        "2001:db8:100::/40",
        "2001:db8:122::/48",
        "2001:db8:122:300::/56",
        "2001:db8:122:344::/64",
        "2001:db8:6464::/96",
        "64:ff9b::/96",
        "fd00:64::/96",
    ] {
        let all = WELL_KNOWN.map(|known| IpAddr::from(prefix(text).embed(known)));
        assert_eq!(Nat64Prefix::in_answer(all), [prefix(text)], "{text}");
        assert!(Nat64Prefix::in_answer(all[..1].iter().copied()).is_empty(), "{text}: one alone may be chance");
    }
    assert!(answer(&["192.0.0.170", "192.0.0.171"]).is_empty(), "there is no DNS64");
    assert!(answer(&["2001:db8::1", "2001:db8::2"]).is_empty(), "somebody answers every name");
    assert!(answer(&["::ffff:192.0.0.170", "::ffff:192.0.0.171"]).is_empty());
    assert!(answer(&["64:ff9b::192.0.0.170", "2001:db8::192.0.0.171"]).is_empty(), "half of two prefixes is none");
}

#[test]
fn several_prefixes_are_kept_in_the_order_of_the_answer_and_no_more_than_a_few() {
    let both =
        answer(&["64:ff9b::192.0.0.171", "2001:db8::192.0.0.170", "64:ff9b::192.0.0.170", "2001:db8::192.0.0.171"]);
    assert_eq!(both, [prefix("64:ff9b::/96"), prefix("2001:db8::/96")]);
    let many = (1..=9_u16).flat_map(|n| {
        let prefix = prefix(&format!("2001:db8:{n}::/96"));
        WELL_KNOWN.map(|known| IpAddr::from(prefix.embed(known)))
    });
    assert_eq!(Nat64Prefix::in_answer(many).len(), MAX_PREFIXES);
}

#[test]
fn public_addresses_go_through_and_come_back_and_no_others_do() {
    let nat64 = Nat64::new([prefix("2001:db8:6464::/96"), prefix("64:ff9b::/96")]);
    assert_eq!(nat64.prefix().unwrap().to_string(), "2001:db8:6464::/96");
    let (inner, outer) = (addr("198.51.100.7:4000"), addr("[2001:db8:6464::c633:6407]:4000"));
    assert_eq!((nat64.translated(inner), nat64.plain(outer)), (Some(outer), inner));
    assert_eq!(nat64.plain(addr("[64:ff9b::c633:6407]:4000")), inner, "by any of the prefixes");
    for kept in
        ["10.1.2.3:1", "192.168.0.1:1", "100.64.0.1:1", "127.0.0.1:1", "169.254.0.1:1", "224.0.0.1:1", "0.0.0.0:1"]
    {
        let SocketAddr::V4(v4) = addr(kept) else { panic!("{kept}") };
        assert_eq!(nat64.translated(v4.into()), None, "{kept}");
        let written = SocketAddr::from((nat64.prefix().unwrap().embed(*v4.ip()), 1));
        assert_eq!(nat64.plain(written), written, "{kept}: it could not be answered");
    }
    let native = addr("[2001:db8:1::2]:4000");
    assert_eq!((nat64.translated(native), nat64.plain(native)), (None, native));
    let none = Nat64::default();
    assert_eq!((none.translated(inner), none.plain(outer), none.prefix()), (None, outer, None));
}

#[test]
fn a_server_that_is_known_by_both_addresses_shows_the_prefix() {
    let (outer, inner) = ("2001:db8:6464::c633:6407".parse().unwrap(), Ipv4Addr::new(198, 51, 100, 7));
    assert_eq!(Nat64Prefix::between(outer, inner), Some(prefix("2001:db8:6464::/96")));
    let outer = "2001:db8:c633:6407::".parse().unwrap();
    assert_eq!(Nat64Prefix::between(outer, inner), Some(prefix("2001:db8::/32")));
    assert_eq!(Nat64Prefix::between(outer, Ipv4Addr::new(198, 51, 100, 8)), None);
}
