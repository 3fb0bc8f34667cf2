//! The addresses of the sockets of one protocol.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::ids::SocketId;

#[derive(Default)]
pub(super) struct Addresses {
    /// By port, the IP of each socket with that port.
    taken: BTreeMap<u16, Vec<(IpAddr, SocketId)>>,
    given_out: u16,
}

/// The first port that is assigned.
const FIRST_PORT: u16 = 49_152;

impl Addresses {
    pub(super) fn take(&mut self, address: SocketAddr, socket: SocketId) {
        self.taken.entry(address.port()).or_default().push((address.ip(), socket));
    }

    pub(super) fn release(&mut self, address: SocketAddr, socket: SocketId) {
        if let Some(owners) = self.taken.get_mut(&address.port()) {
            owners.retain(|(_, owner)| *owner != socket);
            if owners.is_empty() {
                self.taken.remove(&address.port());
            }
        }
    }

    /// A free port, if there is one.
    pub(super) fn free_port(&mut self) -> Option<u16> {
        let count = u16::MAX - FIRST_PORT + 1;
        (0..count).find_map(|_| {
            let port = FIRST_PORT + self.given_out % count;
            self.given_out = self.given_out.wrapping_add(1);
            (!self.taken.contains_key(&port)).then_some(port)
        })
    }

    /// The sockets that receive at an address, in the order of their binding: those at exactly this one come first,
    /// then those at all interfaces. Those of IPv6 also receive at IPv4 if they have both families.
    pub(super) fn receivers(
        &self,
        address: SocketAddr,
        takes: impl Fn(SocketId) -> bool,
        has_both_families: impl FnOnce() -> bool,
    ) -> Vec<SocketId> {
        let all: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let at = |ip| {
            let owners = self.owners(SocketAddr::new(ip, address.port()));
            owners.filter(|id| takes(*id)).collect::<Vec<_>>()
        };
        let ips = [address.ip(), all];
        if let Some(sockets) = ips.into_iter().map(at).find(|sockets| !sockets.is_empty()) {
            return sockets;
        }
        let sockets = at(Ipv6Addr::UNSPECIFIED.into());
        if sockets.is_empty() || has_both_families() { sockets } else { Vec::new() }
    }

    /// The sockets at exactly this address.
    fn owners(&self, address: SocketAddr) -> impl Iterator<Item = SocketId> {
        self.at(address.port())
            .filter(move |(ip, _)| *ip == address.ip())
            .map(|(_, socket)| *socket)
    }

    /// The sockets whose address includes this one, or is included in it.
    pub(super) fn rivals(&self, address: SocketAddr) -> impl Iterator<Item = &(IpAddr, SocketId)> {
        let ip = address.ip();
        let is_rival =
            move |other: &IpAddr| ip == *other || covers(ip, *other) || covers(*other, ip);
        self.at(address.port()).filter(move |(other, _)| is_rival(other))
    }

    fn at(&self, port: u16) -> std::slice::Iter<'_, (IpAddr, SocketId)> {
        self.taken.get(&port).map(Vec::as_slice).unwrap_or_default().iter()
    }
}

/// Whether an address of all interfaces has this one in it: that of IPv6 has those of IPv4, as ipv6(7) says.
fn covers(all: IpAddr, ip: IpAddr) -> bool {
    all.is_unspecified() && (all.is_ipv6() || ip.is_ipv4())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_out_that_nobody_has() {
        let mut addresses = Addresses::default();
        let socket = SocketId(0);
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        addresses.take(at(FIRST_PORT), socket);
        while let Some(port) = addresses.free_port() {
            assert_eq!(addresses.owners(at(port)).count(), 0);
            addresses.take(at(port), socket);
        }
        assert_eq!(addresses.taken.len(), usize::from(u16::MAX - FIRST_PORT) + 1);
        addresses.release(at(60_000), socket);
        assert_eq!(addresses.free_port(), Some(60_000));
    }
}
