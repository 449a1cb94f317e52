//! Addresses of hosts and networks: `inet` and `cidr`.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::Cursor;

/// How PostgreSQL numbers the families, on every system.
const IPV4: u8 = 2;
const IPV6: u8 = 3;

pub(super) fn write(is_network: bool, bytes: &[u8], out: &mut String) -> Option<()> {
    let mut cursor = Cursor::new(bytes);
    let (family, bits, told, length) = (cursor.u8()?, cursor.u8()?, cursor.u8()?, cursor.u8()?);
    if (told != 0) != is_network {
        return None;
    }
    let address = cursor.take(length.into())?;
    cursor.end()?;
    // Writing to memory does not fail.
    let whole = if family == IPV4 {
        let octets: [u8; 4] = address.try_into().ok()?;
        let _ = write!(out, "{}", Ipv4Addr::from(octets));
        32
    } else if family == IPV6 {
        let octets: [u8; 16] = address.try_into().ok()?;
        out.push_str(&ipv6(octets.into()));
        128
    } else {
        return None;
    };
    if bits > whole {
        return None;
    }
    if is_network || bits != whole {
        let _ = write!(out, "/{bits}");
    }
    Some(())
}

/// PostgreSQL writes an IPv4 address in the last four octets as such also where nothing but zeros is before it.
fn ipv6(address: Ipv6Addr) -> String {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => {
            format!("::{}", Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
        }
        _ => address.to_string(),
    }
}
