//! Who is at the other end of a local connection: the account that owns the client's socket, as the kernel says.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use gateway_proto::admin::opening::{ActingUser, KnownBy};
use nix::unistd::{Uid, User};

/// The kernel's tables of TCP sockets of our network namespace.
const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];

/// Who connected from `client` to our port at `local`. Reads the kernel's tables, so it may take a millisecond.
pub fn acting_user(client: SocketAddr, local: SocketAddr) -> ActingUser {
    let uid = TABLES
        .iter()
        .find_map(|table| File::open(table).ok().and_then(|file| owner(BufReader::new(file), client, local)));
    match uid {
        Some(uid) => {
            let known = User::from_uid(Uid::from_raw(uid)).ok().flatten();
            let name = known.map_or_else(|| format!("uid-{uid}"), |user| user.name);
            ActingUser::new(&name, KnownBy::LocalAccount)
        }
        None => ActingUser::new(&client.ip().to_canonical().to_string(), KnownBy::Address),
    }
}

/// The user id of the socket whose local end is `client` and whose far end is `local`.
fn owner(table: impl BufRead, client: SocketAddr, local: SocketAddr) -> Option<u32> {
    table.lines().map_while(Result::ok).find_map(|line| {
        let mut cells = line.split_ascii_whitespace().skip(1);
        let is_it = same(address(cells.next()?)?, client) && same(address(cells.next()?)?, local);
        is_it.then(|| cells.nth(4)?.parse().ok())?
    })
}

fn same(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() == other.port() && one.ip().to_canonical() == other.ip().to_canonical()
}

/// `0100007F:1F90`: words of the address in the machine's byte order, then the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for at in 0..4 {
                bytes[at * 4..at * 4 + 4].copy_from_slice(&word(at * 8)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_client_of_this_machine_is_known_by_its_account() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let user = acting_user(client.local_addr().unwrap(), listener.local_addr().unwrap());
        let name =
            User::from_uid(Uid::current()).unwrap().map_or_else(|| format!("uid-{}", Uid::current()), |user| user.name);
        assert_eq!(user, ActingUser::new(&name, KnownBy::LocalAccount));
    }

    #[test]
    fn a_client_that_maps_its_address_is_found_and_a_stranger_is_its_address() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0000000000000000FFFF00000100007F:9C40 0000000000000000FFFF00000100007F:20FB 01 00000000:00000000 00:00000000 00000000  1007        0 1 1 0\n";
        let client = "127.0.0.1:40000".parse().unwrap();
        let local = "127.0.0.1:8443".parse().unwrap();
        assert_eq!(owner(table.as_bytes(), client, local), Some(1007));
        assert_eq!(owner(table.as_bytes(), local, client), None);
        let stranger = acting_user("192.0.2.1:1".parse().unwrap(), local);
        assert_eq!(stranger, ActingUser::new("192.0.2.1", KnownBy::Address));
    }
}
