//! Which of this machine's IPv6 addresses are no more than leftovers.
//!
//! After a renumbering the former prefix stays on the interface for hours, deprecated; a temporary address whose time is over too. The kernel
//! starts nothing from them, and a partner that is told of them tries what is about to die. An address that is still being looked for in the network
//! (duplicate address detection), or was found there, is none yet. The crate that lists the addresses does not tell.

use std::{collections::BTreeSet, net::Ipv6Addr};

/// Where Linux says it, of this network namespace.
const STATES: &str = "/proc/net/if_inet6";
/// `IFA_F_DADFAILED`, `IFA_F_DEPRECATED`, `IFA_F_TENTATIVE`.
const UNFIT: u8 = 0x08 | 0x20 | 0x40;

/// The addresses that are on an interface and not to be offered. None where the kernel does not tell.
pub(crate) fn unfit() -> BTreeSet<Ipv6Addr> {
    std::fs::read_to_string(STATES).map(|states| unfit_of(&states)).unwrap_or_default()
}

/// Lines of address, interface, length of the prefix, scope, flags (all hexadecimal) and name. What is on two interfaces is unfit only where
/// it is so on both.
fn unfit_of(states: &str) -> BTreeSet<Ipv6Addr> {
    let (unfit, fit): (Vec<_>, Vec<_>) = states.lines().filter_map(state).partition(|(_, flags)| flags & UNFIT != 0);
    let fit: BTreeSet<_> = fit.into_iter().map(|(address, _)| address).collect();
    unfit.into_iter().map(|(address, _)| address).filter(|address| !fit.contains(address)).collect()
}

fn state(line: &str) -> Option<(Ipv6Addr, u8)> {
    let mut words = line.split_whitespace();
    let address = words.next().filter(|word| word.len() == 32)?;
    let address = u128::from_str_radix(address, 16).ok()?;
    let flags = u8::from_str_radix(words.nth(3)?, 16).ok()?;
    Some((Ipv6Addr::from(address), flags))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deprecated_expired_and_tentative_addresses_are_unfit_and_others_are_not() {
        let states = "\
00000000000000000000000000000001 01 80 10 80       lo
20010db8000100000000000000000001 02 40 00 00     eth0
20010db8000100000000000000000002 02 40 00 01     eth0
20010db8000200000000000000000001 02 40 00 20     eth0
20010db8000200000000000000000002 02 40 00 21     eth0
20010db8000300000000000000000001 02 40 00 40     eth0
20010db8000300000000000000000002 02 40 00 c8     eth0
20010db8000400000000000000000001 02 40 00 20     eth0
20010db8000400000000000000000001 03 40 00 80     eth1
";
        let expected = ["2001:db8:2::1", "2001:db8:2::2", "2001:db8:3::1", "2001:db8:3::2"];
        let expected: BTreeSet<Ipv6Addr> = expected.iter().map(|address| address.parse().unwrap()).collect();
        assert_eq!(unfit_of(states), expected);
    }

    #[test]
    fn what_is_no_such_line_says_nothing() {
        for line in ["", "x", "20010db8 02 40 00 20 eth0", "20010db8000200000000000000000001 02 40 00", "\u{e4}\u{e4}"]
        {
            assert!(unfit_of(line).is_empty(), "{line:?}");
        }
        assert!(!unfit().contains(&Ipv6Addr::LOCALHOST));
    }
}
