//! How much of a list is asked for.

use crate::problem::{Failure, Result};

/// Entries of a page when nobody says.
const USUAL: u32 = 100;

/// The most entries of a page: bounds what one request can cost.
const MOST: u32 = 1000;

/// The size of a page.
pub(crate) fn limit(asked: Option<u32>) -> Result<u32> {
    match asked {
        None => Ok(USUAL),
        Some(limit @ 1..=MOST) => Ok(limit),
        Some(_) => Err(Failure::invalid(format!("limit: give 1 to {MOST}"))),
    }
}
