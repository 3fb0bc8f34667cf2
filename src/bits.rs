//! Sets of bits: the common part of [`Interest`](crate::Interest) and [`Readiness`](crate::Readiness).

use std::fmt::{self, Formatter};

/// Gives a `struct Name(u8)` the operations of a set, and a `Debug` that names its members.
macro_rules! bit_set {
    ($name:ident { $($flag:ident)* }) => {
        impl $name {
            /// Whether no bit is set.
            #[must_use]
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// Whether all bits of `other` are set.
            #[must_use]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// The bits of both: `|`, in a constant.
            #[must_use]
            pub const fn union(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        impl std::ops::BitOr for $name {
            type Output = Self;

            fn bitor(self, other: Self) -> Self {
                self.union(other)
            }
        }

        impl std::ops::BitOrAssign for $name {
            fn bitor_assign(&mut self, other: Self) {
                *self = self.union(other);
            }
        }

        impl std::ops::BitAnd for $name {
            type Output = Self;

            fn bitand(self, other: Self) -> Self {
                Self(self.0 & other.0)
            }
        }

        /// The bits of the left side that the right side does not have.
        impl std::ops::Sub for $name {
            type Output = Self;

            fn sub(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }
        }

        impl std::ops::SubAssign for $name {
            fn sub_assign(&mut self, other: Self) {
                *self = *self - other;
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let names = [$((Self::$flag.0, stringify!($flag))),*];
                $crate::bits::write_names(f, stringify!($name), &names, self.0)
            }
        }
    };
}

pub(crate) use bit_set;

/// Writes `Set(FIRST | SECOND)`, the names of the bits that are set, or `Set(NONE)`.
pub(crate) fn write_names(
    f: &mut Formatter<'_>,
    set: &str,
    names: &[(u8, &str)],
    bits: u8,
) -> fmt::Result {
    write!(f, "{set}(")?;
    if bits == 0 {
        f.write_str("NONE")?;
    }
    let mut separator = "";
    for (_, name) in names.iter().filter(|(bit, _)| bits & bit != 0) {
        write!(f, "{separator}{name}")?;
        separator = " | ";
    }
    f.write_str(")")
}
