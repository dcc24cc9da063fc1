//! Decisions for a fleet of 10,000: its runs, its hosts, its jobs, and one host's own table.

mod hub;
mod jobs;
mod select;
mod table;

use fw_proto::{HostId, HostName, Timestamp};
use uuid::Uuid;

use crate::scenario::Scenario;

/// All scenarios of this crate.
pub(crate) fn all() -> Vec<Scenario> {
    [hub::all(), select::all(), jobs::all(), table::all()].into_iter().flatten().collect()
}

/// How many hosts there are.
const HOSTS: u32 = 10_000;

/// The id of a host. Ids are not in the order of names, as in a real fleet: this spreads them
/// evenly (the factor is odd, so no two are the same).
fn host(n: u32) -> HostId {
    const SPREAD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    HostId(Uuid::from_u128(u128::from(n).wrapping_mul(SPREAD)))
}

fn name(n: u32) -> HostName {
    format!("web-{n:05}.eu.example.com").parse().expect("a name")
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + secs * 1000)
}
