//! Networks: whether an address of a host lies in one.

use std::fmt;
use std::net::IpAddr;

use serde_json::{Map, Value};

/// The addresses from one to another that share the first bits. One address is a network too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Net {
    address: IpAddr,
    bits: u32,
}

impl Net {
    /// Reads `10.0.0.0/8`, `fe80::/10`, or one address.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        const FORM: &str = "write net:ADDRESS/BITS, such as net:10.0.0.0/8 or net:fe80::/10";
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| FORM)?;
        let width = width(address);
        let bits = match bits {
            None => width,
            Some(bits) if bits.is_empty() || bits.bytes().any(|b| !b.is_ascii_digit()) => {
                return Err(FORM);
            }
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= width).ok_or(FORM)?,
        };
        let net = Self { address, bits };
        if net.start(address) != number(address) {
            return Err("this address has bits beyond its network's; set those to 0");
        }
        Ok(net)
    }

    /// Whether an address among the facts `ipv4` or `ipv6` lies in it.
    pub(super) fn matches(&self, facts: &Map<String, Value>) -> bool {
        let key = if self.address.is_ipv4() { "ipv4" } else { "ipv6" };
        facts.get(key).is_some_and(|value| self.holds(value))
    }

    fn holds(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => text.parse().is_ok_and(|address| self.contains(address)),
            Value::Array(items) => items.iter().any(|item| self.holds(item)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && self.start(address) == number(self.address)
    }

    /// The first address of the network of this size that holds `address`.
    fn start(&self, address: IpAddr) -> u128 {
        let rest = width(address) - self.bits;
        number(address).checked_shr(rest).unwrap_or(0).checked_shl(rest).unwrap_or(0)
    }
}

const fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net:{}/{}", self.address, self.bits)
    }
}
