//! Bounds how many refused strangers are recorded, so that nobody can flood the audit log without a
//! token. What is left out is counted in `sallyport_api_refusals_unrecorded_total`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use crate::domain::time::Timestamp;

/// Records per address and second.
const PER_ADDRESS: u32 = 5;
/// Records per second in all.
const IN_ALL: u32 = 50;
const SECOND: i64 = 1_000_000;

#[derive(Debug, Default)]
pub(crate) struct Strangers(Mutex<Window>);

/// The current second. It never holds more than [`IN_ALL`] addresses.
#[derive(Debug, Default)]
struct Window {
    second: i64,
    all: u32,
    by_address: HashMap<Option<IpAddr>, u32>,
}

impl Strangers {
    /// Whether a refusal of `address` at `now` is still to be recorded.
    pub(crate) fn admit(&self, address: Option<IpAddr>, now: Timestamp) -> bool {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let second = now.as_micros().div_euclid(SECOND);
        if window.second != second {
            *window = Window { second, ..Window::default() };
        }
        if window.all >= IN_ALL {
            return false;
        }
        let count = window.by_address.entry(address).or_default();
        if *count >= PER_ADDRESS {
            return false;
        }
        *count += 1;
        window.all += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn one_address_is_recorded_a_few_times_a_second_and_keeps_no_other_out() {
        let strangers = Strangers::default();
        let now = Timestamp::from_micros(0);
        let one = Some("192.0.2.1".parse().unwrap());
        let other = Some("192.0.2.2".parse().unwrap());
        let recorded = (0..100).filter(|_| strangers.admit(one, now)).count();
        assert_eq!(recorded, 5);
        assert!(strangers.admit(other, now));
        assert!(strangers.admit(one, now.plus(Duration::from_secs(1))));
    }

    #[test]
    fn many_addresses_together_are_bounded_as_well() {
        let strangers = Strangers::default();
        let now = Timestamp::from_micros(0);
        let recorded =
            (0..=255).filter(|last| strangers.admit(Some(IpAddr::from([192, 0, 2, *last])), now)).count();
        assert_eq!(recorded, 50);
    }
}
