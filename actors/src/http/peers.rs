//! How many connections each peer has open, and how many there are in all.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;

/// The open connections of one listener.
#[derive(Debug, Default)]
pub(super) struct Peers {
    /// Most of one peer; 0 for no such bound.
    most: usize,
    /// Whose number is not bounded: proxies, who speak for others.
    exempt: Vec<IpNet>,
    counts: Mutex<HashMap<IpAddr, usize>>,
    open: AtomicUsize,
    refused: AtomicU64,
}

/// A connection's place among them, for as long as it is open.
#[derive(Debug)]
pub(super) struct Turn {
    peers: Arc<Peers>,
    counted_as: Option<IpAddr>,
}

impl Peers {
    pub(super) fn new(most: usize, exempt: Vec<IpNet>) -> Self {
        Self {
            most,
            exempt,
            ..Self::default()
        }
    }

    /// Lets a connection of `peer` in, unless that one has its fill.
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr) -> Option<Turn> {
        let peer = peer.to_canonical();
        let counted_as = (self.most > 0 && !self.exempt.iter().any(|net| net.contains(&peer))).then(|| network(peer));
        if let Some(network) = counted_as {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(network).or_default();
            if *count >= self.most {
                self.refused.fetch_add(1, Relaxed);
                return None;
            }
            *count += 1;
        }
        self.open.fetch_add(1, Relaxed);
        Some(Turn {
            peers: self.clone(),
            counted_as,
        })
    }

    /// Connections that are open.
    pub(super) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Connections that were closed at once, since the start.
    pub(super) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.peers.open.fetch_sub(1, Relaxed);
        let Some(network) = self.counted_as else { return };
        let mut counts = self.peers.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&network);
            }
        }
    }
}

/// Who counts as one: an address, and of IPv6 the network of 64 bits that one customer has all of.
fn network(peer: IpAddr) -> IpAddr {
    match peer {
        IpAddr::V4(_) => peer,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_peer_has_its_fill_until_it_lets_go() {
        let peers = Arc::new(Peers::new(2, vec!["10.0.0.0/8".parse().expect("a network")]));
        let first = peers.enter(ip("192.0.2.1")).expect("room");
        let _second = peers
            .enter(ip("::ffff:192.0.2.1"))
            .expect("the same peer, written as IPv6");
        assert!(peers.enter(ip("192.0.2.1")).is_none());
        assert_eq!((peers.open(), peers.refused()), (2, 1));
        let _other = peers.enter(ip("192.0.2.2")).expect("somebody else has room");
        drop(first);
        let _again = peers.enter(ip("192.0.2.1")).expect("room again");
        let proxied: Vec<_> = (0..5).filter_map(|_| peers.enter(ip("10.1.2.3"))).collect();
        assert_eq!(proxied.len(), 5, "a proxy speaks for others");
    }

    #[test]
    fn neighbours_in_an_ipv6_network_are_one_and_nothing_is_left_behind() {
        let peers = Arc::new(Peers::new(1, Vec::new()));
        let turn = peers.enter(ip("2001:db8::1")).expect("room");
        assert!(peers.enter(ip("2001:db8::ffff:2")).is_none());
        let other = peers.enter(ip("2001:db8:0:1::1")).expect("another network");
        drop((turn, other));
        assert_eq!(peers.open(), 0);
        assert!(peers.counts.lock().expect("not poisoned").is_empty());
        let unbounded = Arc::new(Peers::new(0, Vec::new()));
        let turns: Vec<_> = (0..9).filter_map(|_| unbounded.enter(ip("192.0.2.1"))).collect();
        assert_eq!(turns.len(), 9);
    }
}
