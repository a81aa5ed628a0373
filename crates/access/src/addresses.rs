//! What clients without a key have taken, each by its address.
//!
//! Whoever has a network of IPv6 has 2^64 addresses in it, so those of one /64 count as one. Addresses of which nothing
//! is to be remembered are forgotten when there are many; where there are too many in spite of that, more are not
//! counted: a flood from everywhere is not for a limit on each to stop.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::limits::{Limits, Usage};

/// Most addresses that are remembered.
const MOST: usize = 10_000;

/// What each address has taken. Times as for [`Usage`].
#[derive(Clone, Debug)]
pub struct Addresses {
    limits: Limits,
    usage: HashMap<IpAddr, Usage>,
    most: usize,
}

impl Addresses {
    /// Nothing yet; each may take so much.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            usage: HashMap::new(),
            most: MOST,
        }
    }

    /// The limits are others from now on. What was taken stays taken.
    pub fn limit(&mut self, limits: Limits, now: Duration) {
        self.limits = limits;
        for usage in self.usage.values_mut() {
            usage.limit(limits, now);
        }
    }

    /// What this one has taken; `None`: there are too many, and it is not counted.
    pub fn of(&mut self, address: IpAddr, now: Duration) -> Option<&mut Usage> {
        let address = network(address);
        if self.usage.len() >= self.most && !self.usage.contains_key(&address) {
            self.usage.retain(|_, usage| !usage.is_idle(now));
            if self.usage.len() >= self.most {
                return None;
            }
        }
        let limits = self.limits;
        let usage = self.usage.entry(address);
        Some(usage.or_insert_with(|| Usage::new(limits, now)))
    }
}

/// The address by which a client counts.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address => address,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn one_session() -> Addresses {
        Addresses::new(Limits {
            sessions: Some(1),
            ..Limits::default()
        })
    }

    fn begin(addresses: &mut Addresses, text: &str) -> bool {
        let usage = addresses.of(address(text), NOW);
        usage.is_none_or(|usage| usage.begin_session().is_ok())
    }

    #[test]
    fn each_address_has_its_own_limits() {
        let mut addresses = one_session();
        assert!(begin(&mut addresses, "192.0.2.1"));
        assert!(!begin(&mut addresses, "192.0.2.1"));
        assert!(
            !begin(&mut addresses, "::ffff:192.0.2.1"),
            "the same, in IPv6"
        );
        assert!(begin(&mut addresses, "192.0.2.2"));
        addresses
            .of(address("192.0.2.1"), NOW)
            .unwrap()
            .end_session();
        assert!(begin(&mut addresses, "192.0.2.1"));
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one() {
        let mut addresses = one_session();
        assert!(begin(&mut addresses, "2001:db8:1:2::1"));
        assert!(!begin(&mut addresses, "2001:db8:1:2:ffff::9"));
        assert!(begin(&mut addresses, "2001:db8:1:3::1"));
    }

    #[test]
    fn other_limits_hold_for_those_that_are_there() {
        let mut addresses = one_session();
        assert!(begin(&mut addresses, "192.0.2.1"));
        addresses.limit(
            Limits {
                sessions: Some(2),
                ..Limits::default()
            },
            NOW,
        );
        assert!(begin(&mut addresses, "192.0.2.1"));
        assert!(!begin(&mut addresses, "192.0.2.1"));
    }

    #[test]
    fn many_addresses_take_no_more_memory_and_those_who_talk_are_remembered() {
        let mut addresses = one_session();
        addresses.most = 100;
        assert!(begin(&mut addresses, "192.0.2.1"));
        for n in 0..10_000_u32 {
            addresses.of(IpAddr::from(n.to_be_bytes()), NOW);
            assert!(addresses.usage.len() <= 100);
        }
        assert!(!begin(&mut addresses, "192.0.2.1"));
        // All of them talk: one more is let in uncounted.
        for n in 0..200_u32 {
            assert!(begin(
                &mut addresses,
                &Ipv6Addr::from(u128::from(n) << 64).to_string()
            ));
        }
        assert_eq!(addresses.usage.len(), 100);
    }

    #[test]
    fn who_has_used_up_its_requests_is_not_forgotten() {
        let mut addresses = Addresses::new(Limits {
            requests_per_minute: Some(1),
            ..Limits::default()
        });
        addresses.most = 2;
        let mut ask = |text: &str, at: u64| {
            let now = Duration::from_secs(at);
            addresses
                .of(address(text), now)
                .is_none_or(|usage| usage.request(now).is_ok())
        };
        assert!(ask("192.0.2.1", 0));
        assert!(ask("192.0.2.2", 0));
        assert!(ask("192.0.2.3", 0), "there is no room for it");
        assert!(!ask("192.0.2.1", 30));
        assert!(ask("192.0.2.3", 61));
        assert!(!ask("192.0.2.3", 62));
    }
}
