//! Virtual time, under the names of `std::time`.

use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};
#[doc(no_inline)]
pub use std::time::Duration;

use crate::machine::Machine;

/// A time of the world that runs, in place of [`std::time::Instant`].
///
/// It goes on while all threads wait, and only then: whatever they compute takes no time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(Duration);

/// How long before its world the clock began, so that a program can subtract: a year.
const BEFORE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl Instant {
    /// The time in the world that runs on this thread.
    ///
    /// # Panics
    ///
    /// Where none does.
    #[must_use]
    pub fn now() -> Self {
        Self(BEFORE + Machine::current().now())
    }

    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub fn duration_since(&self, earlier: Self) -> Duration {
        self.saturating_duration_since(earlier)
    }

    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub fn saturating_duration_since(&self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// How long after `earlier` this is, if it is.
    #[must_use]
    pub fn checked_duration_since(&self, earlier: Self) -> Option<Duration> {
        self.0.checked_sub(earlier.0)
    }

    /// How much time has passed since.
    ///
    /// # Panics
    ///
    /// As [`now`](Self::now).
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Self::now() - *self
    }

    /// Later by `duration`, unless no clock can reach that.
    #[must_use]
    pub fn checked_add(&self, duration: Duration) -> Option<Self> {
        self.0.checked_add(duration).map(Self)
    }

    /// Earlier by `duration`, unless that is more than a year before the world.
    #[must_use]
    pub fn checked_sub(&self, duration: Duration) -> Option<Self> {
        self.0.checked_sub(duration).map(Self)
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Instant({:?})", self.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0 - duration)
    }
}

impl SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.saturating_duration_since(earlier)
    }
}
