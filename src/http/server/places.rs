//! Who may be connected: counts connections, in all and by address, and decides which gives way.
//!
//! Used by the accept loop in `server.rs`. Where all places are taken, the connection that has been
//! without a request for the longest time is closed for the new one: of the same address where that address has
//! its fill, of all where the service has. It loses nothing but a pause. Where every connection
//! has a request under way, the new one is refused: what was begun is worth more than what was not.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Which limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    Service,
    Address(IpAddr),
}

/// A place, and the limit that made another connection give way for it.
pub(super) struct Taken {
    pub(super) place: Place,
    pub(super) instead_of_another: Option<Full>,
}

pub(super) struct Places {
    connections: usize,
    /// 0: not limited.
    per_address: usize,
    loopback_counts: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Grows with every connection and every pause; gives their order.
    next: u64,
    held: HashMap<u64, Holder>,
    /// Connections without a request, by the beginning of their pause.
    unused: BTreeMap<u64, u64>,
    addresses: HashMap<IpAddr, Address>,
}

struct Holder {
    address: Option<IpAddr>,
    /// Its key in `unused`.
    pause: Option<u64>,
    shed: Arc<Notify>,
}

#[derive(Default)]
struct Address {
    held: usize,
    /// The part of `State::unused` that is this address's.
    unused: BTreeSet<u64>,
}

impl Places {
    pub(super) fn new(connections: usize, per_address: usize, loopback_counts: bool) -> Arc<Self> {
        Arc::new(Self { connections, per_address, loopback_counts, state: Mutex::default() })
    }

    /// A place for a new connection, which has no request yet. It counts for no address if none is given.
    pub(super) fn take(self: &Arc<Self>, ip: Option<IpAddr>) -> Result<Taken, Full> {
        let address = ip.and_then(|ip| self.counted(ip));
        let mut state = self.state();
        let mut instead_of_another = None;
        if let Some(address) = address {
            instead_of_another = state.room_for(address, self.per_address)?;
        }
        if state.held.len() >= self.connections {
            let oldest = state.unused.keys().next().copied().ok_or(Full::Service)?;
            state.shed(oldest);
            instead_of_another = Some(Full::Service);
        }
        let shed = Arc::new(Notify::new());
        let id = state.next();
        state.held.insert(id, Holder { address: None, pause: None, shed: Arc::clone(&shed) });
        state.pause(id);
        if let Some(address) = address {
            state.label(id, address);
        }
        Ok(Taken { place: Place { places: Arc::clone(self), id, shed }, instead_of_another })
    }

    /// Closes the connection that has been without a request for the longest time, if there is one.
    pub(super) fn shed_oldest(&self) -> bool {
        let mut state = self.state();
        let oldest = state.unused.keys().next().copied();
        oldest.inspect(|&oldest| state.shed(oldest)).is_some()
    }

    /// Under which address a connection is counted, if it is.
    fn counted(&self, ip: IpAddr) -> Option<IpAddr> {
        let ip = ip.to_canonical();
        if self.per_address == 0 || (ip.is_loopback() && !self.loopback_counts) {
            return None;
        }
        Some(match ip {
            IpAddr::V4(_) => ip,
            // The smallest network that is given to one customer.
            IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) & !u128::from(u64::MAX)).into(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held; if something did, counting on is better than serving nobody.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Sees that one more fits under an address; returns the limit that made another give way.
    fn room_for(&mut self, address: IpAddr, per_address: usize) -> Result<Option<Full>, Full> {
        let Some(here) = self.addresses.get(&address).filter(|here| here.held >= per_address) else { return Ok(None) };
        let oldest = here.unused.first().copied().ok_or(Full::Address(address))?;
        self.shed(oldest);
        Ok(Some(Full::Address(address)))
    }

    /// Counts a holder that counted for nobody under an address.
    fn label(&mut self, id: u64, address: IpAddr) {
        let Some(holder) = self.held.get_mut(&id).filter(|holder| holder.address.is_none()) else { return };
        holder.address = Some(address);
        let here = self.addresses.entry(address).or_default();
        here.held += 1;
        here.unused.extend(holder.pause);
    }

    fn pause(&mut self, id: u64) {
        let pause = self.next();
        let Some(holder) = self.held.get_mut(&id).filter(|holder| holder.pause.is_none()) else { return };
        holder.pause = Some(pause);
        self.unused.insert(pause, id);
        if let Some(address) = holder.address.and_then(|address| self.addresses.get_mut(&address)) {
            address.unused.insert(pause);
        }
    }

    /// Ends the pause of a holder; false if it holds no place any more.
    fn resume(&mut self, id: u64) -> bool {
        let Some(holder) = self.held.get_mut(&id) else { return false };
        if let Some(pause) = holder.pause.take() {
            self.unused.remove(&pause);
            if let Some(address) = holder.address.and_then(|address| self.addresses.get_mut(&address)) {
                address.unused.remove(&pause);
            }
        }
        true
    }

    fn release(&mut self, id: u64) {
        self.resume(id);
        let Some(address) = self.held.remove(&id).and_then(|holder| holder.address) else { return };
        if let Some(here) = self.addresses.get_mut(&address) {
            here.held -= 1;
            if here.held == 0 {
                self.addresses.remove(&address);
            }
        }
    }

    /// Takes the place of the connection with this pause and tells it.
    fn shed(&mut self, pause: u64) {
        let Some(&id) = self.unused.get(&pause) else { return };
        if let Some(holder) = self.held.get(&id) {
            holder.shed.notify_one();
        }
        self.release(id);
    }
}

/// The place of one connection, free again when dropped.
pub(super) struct Place {
    places: Arc<Places>,
    id: u64,
    shed: Arc<Notify>,
}

impl Place {
    /// Counts it, from now on, for the client that a proxy has named. Returns the limit that made another connection of
    /// this client give way, or what stands in the way.
    pub(super) fn belongs_to(&self, ip: IpAddr) -> Result<Option<Full>, Full> {
        let Some(address) = self.places.counted(ip) else { return Ok(None) };
        let mut state = self.places.state();
        let gave_way = state.room_for(address, self.places.per_address)?;
        state.label(self.id, address);
        Ok(gave_way)
    }

    /// A request has come. False if the place was given to another connection: then this one is about to be
    /// closed, and nothing may be done for it.
    pub(super) fn resume(&self) -> bool {
        self.places.state().resume(self.id)
    }

    /// The request is answered.
    pub(super) fn pause(&self) {
        self.places.state().pause(self.id);
    }

    /// Waits until the place is given to another connection.
    pub(super) async fn shed(&self) {
        self.shed.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.state().release(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn take(places: &Arc<Places>, from: IpAddr) -> Place {
        places.take(Some(from)).unwrap_or_else(|full| panic!("{full:?}")).place
    }

    fn is_shed(place: &Place) -> bool {
        place.shed().now_or_never().is_some()
    }

    #[test]
    fn the_oldest_unused_connection_gives_way() {
        let places = Places::new(3, 0, false);
        let [first, second, third] = [1, 2, 3].map(|n| take(&places, ip(n)));
        // The first had a request meanwhile, so its pause is the youngest.
        assert!(first.resume());
        first.pause();
        let fourth = places.take(Some(ip(4))).unwrap();
        assert_eq!(fourth.instead_of_another, Some(Full::Service));
        assert_eq!([&first, &second, &third].map(is_shed), [false, true, false]);
        assert!(!second.resume(), "a connection that gave way takes no more requests");
        // What is dropped twice, once shed and once gone, is counted once.
        drop(second);
        assert_eq!(places.state().held.len(), 3);
    }

    #[test]
    fn where_all_are_in_use_the_new_one_is_refused() {
        let places = Places::new(2, 0, false);
        let [first, second] = [1, 2].map(|n| take(&places, ip(n)));
        assert!(first.resume() && second.resume());
        assert_eq!(places.take(Some(ip(3))).err(), Some(Full::Service));
        assert!(!places.shed_oldest());
        drop(first);
        let third = places.take(Some(ip(3))).unwrap();
        assert_eq!(third.instead_of_another, None);
    }

    #[test]
    fn an_address_takes_its_share_and_only_from_itself() {
        let places = Places::new(10, 2, false);
        let other = take(&places, ip(9));
        let [first, second] = [1, 1].map(|n| take(&places, ip(n)));
        assert!(first.resume());
        let third = places.take(Some(ip(1))).unwrap();
        assert_eq!(third.instead_of_another, Some(Full::Address(ip(1))));
        assert_eq!([&other, &first, &second].map(is_shed), [false, false, true]);
        assert!(third.place.resume());
        assert_eq!(places.take(Some(ip(1))).err(), Some(Full::Address(ip(1))));
        assert!(places.take(Some(ip(2))).is_ok());
        drop((first, second, third, other));
        let state = places.state();
        assert_eq!((state.held.len(), state.unused.len(), state.addresses.len()), (0, 0, 0));
    }

    #[test]
    fn a_connection_counts_for_whom_its_proxy_names() {
        let places = Places::new(10, 2, false);
        let named = || {
            let place = places.take(None).unwrap().place;
            place.belongs_to(ip(1)).map(|gave_way| (place, gave_way))
        };
        let unnamed = [0; 3].map(|_| places.take(None).unwrap().place);
        assert!(places.state().addresses.is_empty());
        let (first, _) = named().unwrap();
        let second = take(&places, ip(1));
        assert!(first.resume());
        let (third, gave_way) = named().unwrap();
        assert_eq!(gave_way, Some(Full::Address(ip(1))));
        assert_eq!([&first, &second].map(is_shed), [false, true]);
        assert!(third.resume());
        assert_eq!(named().err(), Some(Full::Address(ip(1))));
        // The pause of a place that was named later is one of its address too.
        third.pause();
        assert!(named().is_ok());
        assert!(is_shed(&third));
        drop((first, second, third, unnamed));
        let state = places.state();
        assert_eq!((state.held.len(), state.unused.len(), state.addresses.len()), (0, 0, 0));
    }

    #[test]
    fn which_addresses_count_as_one() {
        let check = |per_address, loopback_counts, ip: &str, expected: Option<&str>| {
            let counted = Places::new(1, per_address, loopback_counts).counted(ip.parse().unwrap());
            assert_eq!(counted, expected.map(|ip| ip.parse().unwrap()), "{ip}");
        };
        check(1, false, "10.0.0.1", Some("10.0.0.1"));
        check(1, false, "::ffff:10.0.0.1", Some("10.0.0.1"));
        check(1, false, "2001:db8:1:2:3:4:5:6", Some("2001:db8:1:2::"));
        check(1, false, "127.0.0.1", None);
        check(1, false, "::1", None);
        check(1, false, "::ffff:127.0.0.1", None);
        check(1, true, "127.0.0.1", Some("127.0.0.1"));
        check(0, true, "10.0.0.1", None);
    }

    #[test]
    fn the_oldest_is_shed_on_demand() {
        let places = Places::new(2, 0, false);
        let [first, second] = [1, 2].map(|n| take(&places, ip(n)));
        assert!(places.shed_oldest());
        assert_eq!([is_shed(&first), is_shed(&second)], [true, false]);
    }
}
