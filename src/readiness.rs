//! What a wait finds: the bits of an event.

use crate::bits::bit_set;

/// What a wait found a descriptor to be ready for, as bits.
///
/// You read it through the predicates of [`Event`](crate::Event), such as
/// [`is_readable`](crate::Event::is_readable), where each bit is explained. A backend passes it to
/// [`Event::new`](crate::Event::new).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Readiness(u8);

impl Readiness {
    /// Ready for nothing.
    pub const NONE: Self = Self(0);
    /// A read would not block.
    pub const READABLE: Self = Self(1 << 0);
    /// A write would not block.
    pub const WRITABLE: Self = Self(1 << 1);
    /// Exceptional data can be read.
    pub const PRIORITY: Self = Self(1 << 2);
    /// The peer will send no more.
    pub const READ_CLOSED: Self = Self(1 << 3);
    /// Nothing more can be sent.
    pub const WRITE_CLOSED: Self = Self(1 << 4);
    /// An error is pending.
    pub const ERROR: Self = Self(1 << 5);
}

bit_set!(Readiness { READABLE WRITABLE PRIORITY READ_CLOSED WRITE_CLOSED ERROR });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_names_the_bits() {
        let both = Readiness::READABLE | Readiness::ERROR;
        assert_eq!(format!("{both:?}"), "Readiness(READABLE | ERROR)");
        assert_eq!(format!("{:?}", Readiness::NONE), "Readiness(NONE)");
    }

    #[test]
    fn a_set_adds_and_removes_bits() {
        let (one, other) = (Readiness::READABLE, Readiness::WRITABLE);
        let mut both = one;
        both |= other;
        assert_eq!(both, one | other);
        assert!(both.contains(one) && both.contains(other) && !one.contains(both));
        assert_eq!(both - one, other);
        assert_eq!(both & one, one);
        both -= other;
        both -= other;
        assert_eq!(both, one);
        assert!((both - one).is_empty());
        assert_eq!(both - one, Readiness::NONE);
        assert_eq!(Readiness::default(), Readiness::NONE);
    }
}
