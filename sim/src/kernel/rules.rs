//! Where kernels differ from Linux: which kernel has which rule.
//!
//! The code that a rule changes asks for it by name, where it would make a difference:
//! [`Base::applies`](super::base::Base::applies). A failure lists those that did.

use crate::kernels::Kernel;

/// A rule that Linux does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    AcceptedAreNonblocking,
}

/// Those of Apple systems.
const APPLE: &[Rule] = &[
    // `accept`, uipc_syscalls.c. The standard library calls accept4(2) on the BSDs, where nothing is inherited.
    Rule::AcceptedAreNonblocking,
];

const FREEBSD: &[Rule] = &[];

const NETBSD: &[Rule] = &[];

const OPENBSD: &[Rule] = &[];

const DRAGONFLY: &[Rule] = &[];

const fn rules_of(kernel: Kernel) -> &'static [Rule] {
    match kernel {
        Kernel::Linux => &[],
        Kernel::Apple => APPLE,
        Kernel::FreeBsd => FREEBSD,
        Kernel::NetBsd => NETBSD,
        Kernel::OpenBsd => OPENBSD,
        Kernel::DragonFly => DRAGONFLY,
    }
}

impl Rule {
    /// What a report says.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::AcceptedAreNonblocking => "an accepted socket is non-blocking if its listener is",
        }
    }

    const fn bit(self) -> u64 {
        1 << self as u64
    }
}

/// The rules of one kernel.
pub(super) struct Rules {
    kernel: Kernel,
    rules: u64,
    applied: u64,
}

impl Rules {
    pub(super) fn new(kernel: Kernel) -> Self {
        let rules = rules_of(kernel).iter().fold(0, |rules, rule| rules | rule.bit());
        Self { kernel, rules, applied: 0 }
    }

    pub(super) const fn kernel(&self) -> Kernel {
        self.kernel
    }

    pub(super) const fn has(&self, rule: Rule) -> bool {
        self.rules & rule.bit() != 0
    }

    pub(super) const fn set_applied(&mut self, rule: Rule) {
        self.applied |= rule.bit();
    }

    /// Those that made a difference so far.
    pub(super) fn applied(&self) -> impl Iterator<Item = Rule> {
        let rules = rules_of(self.kernel).iter().copied();
        rules.filter(|rule| self.applied & rule.bit() != 0)
    }
}
