//! The kernels that a world can have.

use std::fmt;

/// The kernel of a [`World`](crate::World): by which rules its sockets and pollers behave.
///
/// [`check_on`](crate::check_on()) draws one for each seed, and [`World::run_on`](crate::World::run_on) takes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kernel {
    /// Linux and Android.
    Linux,
    /// XNU: macOS, iOS and the other systems of Apple.
    Apple,
    /// FreeBSD.
    FreeBsd,
    /// NetBSD.
    NetBsd,
    /// OpenBSD.
    OpenBsd,
    /// DragonFly BSD.
    DragonFly,
}

impl Kernel {
    /// All of them.
    pub const ALL: &[Self] =
        &[Self::Linux, Self::Apple, Self::FreeBsd, Self::NetBsd, Self::OpenBsd, Self::DragonFly];

    /// The one of a seed: they take turns. There is at least one.
    pub(crate) fn of_seed(kernels: &[Self], seed: u64) -> Self {
        kernels[usize::try_from(seed % kernels.len() as u64).unwrap_or(0)]
    }
}

/// Its name in reports: that of `cfg(target_os)`, and `apple`.
impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Linux => "linux",
            Self::Apple => "apple",
            Self::FreeBsd => "freebsd",
            Self::NetBsd => "netbsd",
            Self::OpenBsd => "openbsd",
            Self::DragonFly => "dragonfly",
        })
    }
}
