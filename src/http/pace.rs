//! How fast an address may go: requests per second, and attempts to guess a token or a password.
//!
//! Asked by `auth.rs`. An address of IPv6 counts as its network of 64 bits, which is what one customer gets. What is kept
//! is bounded: where too many addresses come at once, some of them are forgotten, and begin anew.

use crate::auth::allowance::Bucket;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

/// Addresses that are kept: some 100 bytes each.
const MOST_ADDRESSES: usize = 10_000;
/// Wrong tokens and passwords from one address in [`ATTEMPTS_SPAN`]: more than anybody mistypes, too few to find any.
const ATTEMPTS: u32 = 10;
const ATTEMPTS_SPAN: Duration = Duration::from_mins(1);
/// How often those are looked for that need not be kept any more.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Paces {
    /// Requests per second; 0: no limit.
    rate: f64,
    requests: Mutex<ByAddress<Bucket>>,
    attempts: Mutex<ByAddress<Attempts>>,
}

/// Failed attempts since the first of them.
struct Attempts {
    since: Instant,
    count: u32,
}

impl Paces {
    pub(super) fn new(rate: u32) -> Self {
        Self { rate: rate.into(), requests: Mutex::default(), attempts: Mutex::default() }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// How long to wait.
    pub(super) fn request(&self, client: IpAddr, now: Instant) -> Result<(), Duration> {
        if self.rate == 0.0 {
            return Ok(());
        }
        let mut requests = lock(&self.requests);
        let bucket =
            requests.entry(client, now, || Bucket::full(self.rate, now), |bucket| bucket.is_full(self.rate, now));
        bucket.take(1.0, self.rate, now)
    }

    /// Counts an attempt before it is known whether it is right, so that a thousand at once are a thousand.
    ///
    /// # Errors
    /// How long to wait.
    pub(super) fn attempt(&self, client: IpAddr, now: Instant) -> Result<(), Duration> {
        let over = |attempts: &Attempts| now.saturating_duration_since(attempts.since) >= ATTEMPTS_SPAN;
        let mut kept = lock(&self.attempts);
        let attempts = kept.entry(client, now, || Attempts { since: now, count: 0 }, over);
        if over(attempts) {
            *attempts = Attempts { since: now, count: 0 };
        }
        attempts.count = attempts.count.saturating_add(1);
        if attempts.count == ATTEMPTS + 1 {
            tracing::warn!(%client, "wrong tokens or passwords: {ATTEMPTS} in a minute, others are not looked at in it");
        }
        if attempts.count > ATTEMPTS {
            return Err((attempts.since + ATTEMPTS_SPAN).saturating_duration_since(now));
        }
        Ok(())
    }

    /// Whether attempts are looked at.
    ///
    /// # Errors
    /// How long to wait.
    pub(super) fn is_heard(&self, client: IpAddr, now: Instant) -> Result<(), Duration> {
        let kept = lock(&self.attempts);
        let Some(attempts) = kept.kept.get(&network(client)).filter(|attempts| attempts.count >= ATTEMPTS) else {
            return Ok(());
        };
        match (attempts.since + ATTEMPTS_SPAN).saturating_duration_since(now) {
            Duration::ZERO => Ok(()),
            wait => Err(wait),
        }
    }

    /// It was right.
    pub(super) fn forgive(&self, client: IpAddr) {
        if let Some(attempts) = lock(&self.attempts).kept.get_mut(&network(client)) {
            attempts.count = attempts.count.saturating_sub(1);
        }
    }
}

/// Something per address, for so many of them.
struct ByAddress<T> {
    kept: HashMap<IpAddr, T>,
    swept: Option<Instant>,
}

impl<T> Default for ByAddress<T> {
    fn default() -> Self {
        Self { kept: HashMap::new(), swept: None }
    }
}

impl<T> ByAddress<T> {
    /// That of an address, `new` if it has none. `idle`: one that says no more than a new one.
    fn entry(&mut self, client: IpAddr, now: Instant, new: impl FnOnce() -> T, idle: impl Fn(&T) -> bool) -> &mut T {
        let network = network(client);
        if self.kept.len() >= MOST_ADDRESSES && !self.kept.contains_key(&network) {
            if self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_EVERY) {
                self.swept = Some(now);
                self.kept.retain(|_, value| !idle(value));
            }
            if self.kept.len() >= MOST_ADDRESSES
                && let Some(any) = self.kept.keys().next().copied()
            {
                self.kept.remove(&any);
            }
        }
        self.kept.entry(network).or_insert_with(new)
    }
}

/// What counts as one.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while it is held")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn guesses_have_to_wait() {
        let (paces, start) = (Paces::new(0), clock::instant());
        let (one, other) = (address("10.0.0.1"), address("10.0.0.2"));
        for _ in 0..ATTEMPTS {
            assert_eq!(paces.attempt(one, start), Ok(()));
        }
        assert_eq!(paces.is_heard(one, start + Duration::from_secs(20)), Err(Duration::from_secs(40)));
        assert_eq!(paces.is_heard(other, start), Ok(()));
        assert_eq!(paces.is_heard(one, start + ATTEMPTS_SPAN), Ok(()));
        assert_eq!(paces.attempt(one, start + Duration::from_secs(20)), Err(Duration::from_secs(40)));
        assert_eq!(paces.attempt(other, start), Ok(()));
        assert_eq!(paces.attempt(one, start + ATTEMPTS_SPAN), Ok(()), "another minute");
        for _ in 0..2 * ATTEMPTS {
            assert_eq!(paces.attempt(other, start), Ok(()));
            paces.forgive(other);
        }
    }

    #[test]
    fn requests_by_address() {
        let (paces, start) = (Paces::new(2), clock::instant());
        let one = address("2001:db8::1");
        for _ in 0..20 {
            assert_eq!(paces.request(one, start), Ok(()));
        }
        assert!(paces.request(address("2001:db8::ffff"), start).is_err(), "the same network");
        assert!(paces.request(address("2001:db8:0:1::1"), start).is_ok(), "another one");
        assert!(paces.request(one, start + Duration::from_millis(500)).is_ok());
        let free = Paces::new(0);
        assert!((0..1_000).all(|_| free.request(one, start).is_ok()));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let (paces, start) = (Paces::new(1), clock::instant());
        let client = |n: u32| IpAddr::V4(n.into());
        for n in 0..2 * MOST_ADDRESSES as u32 {
            paces.request(client(n), start).unwrap();
            paces.attempt(client(n), start).unwrap();
        }
        assert!(lock(&paces.requests).kept.len() <= MOST_ADDRESSES);
        assert!(lock(&paces.attempts).kept.len() <= MOST_ADDRESSES);
        // Those that say nothing any more go first.
        paces.request(client(u32::MAX), start + ATTEMPTS_SPAN).unwrap();
        assert_eq!(lock(&paces.requests).kept.len(), 1);
    }
}
