//! Which address is whose.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::kernel::FileId;

#[derive(Default)]
pub(super) struct Addresses {
    /// By port: the IP of each socket that has it.
    taken: BTreeMap<u16, Vec<(IpAddr, FileId)>>,
    given_out: u16,
}

/// Ports from here on are given out.
const FIRST_PORT: u16 = 49_152;

impl Addresses {
    pub(super) fn take(&mut self, address: SocketAddr, file: FileId) {
        self.taken.entry(address.port()).or_default().push((address.ip(), file));
    }

    pub(super) fn release(&mut self, address: SocketAddr, file: FileId) {
        if let Some(owners) = self.taken.get_mut(&address.port()) {
            owners.retain(|(_, owner)| *owner != file);
            if owners.is_empty() {
                self.taken.remove(&address.port());
            }
        }
    }

    /// A port that nobody has, if there is one.
    pub(super) fn free_port(&mut self) -> Option<u16> {
        let count = u16::MAX - FIRST_PORT + 1;
        (0..count).find_map(|_| {
            let port = FIRST_PORT + self.given_out % count;
            self.given_out = self.given_out.wrapping_add(1);
            (!self.taken.contains_key(&port)).then_some(port)
        })
    }

    /// Who has this very address.
    pub(super) fn owners(&self, address: SocketAddr) -> impl Iterator<Item = FileId> {
        self.at(address.port()).filter(move |(ip, _)| *ip == address.ip()).map(|(_, file)| *file)
    }

    /// Who has an address that this one would be part of, or the other way round.
    pub(super) fn rivals(&self, address: SocketAddr) -> impl Iterator<Item = FileId> {
        let ip = address.ip();
        let is_rival =
            move |other: &IpAddr| ip == *other || covers(ip, *other) || covers(*other, ip);
        self.at(address.port()).filter(move |(other, _)| is_rival(other)).map(|(_, file)| *file)
    }

    fn at(&self, port: u16) -> std::slice::Iter<'_, (IpAddr, FileId)> {
        self.taken.get(&port).map(Vec::as_slice).unwrap_or_default().iter()
    }
}

/// Whether an address of all interfaces has this one in it: that of IPv6 has those of IPv4, as ipv6(7) says.
fn covers(all: IpAddr, ip: IpAddr) -> bool {
    all.is_unspecified() && (all.is_ipv6() || ip.is_ipv4())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::kernel::{Files, Kind};

    #[test]
    fn a_port_is_given_out_that_nobody_has() {
        let mut addresses = Addresses::default();
        let file = Files::default().add(Kind::Gate);
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        addresses.take(at(FIRST_PORT), file);
        while let Some(port) = addresses.free_port() {
            assert_eq!(addresses.owners(at(port)).count(), 0);
            addresses.take(at(port), file);
        }
        assert_eq!(addresses.taken.len(), usize::from(u16::MAX - FIRST_PORT) + 1);
        addresses.release(at(60_000), file);
        assert_eq!(addresses.free_port(), Some(60_000));
    }
}
