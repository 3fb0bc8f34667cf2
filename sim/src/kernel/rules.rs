//! The rules of kernels that differ from Linux.
//!
//! The code that a rule changes asks for it by name, at the place where it would make a difference:
//! [`Base::applies`](super::base::Base::applies). A failure lists the rules that made one.

use crate::kernels::Kernel;

/// A rule that Linux does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    // Pollers.
    AddReplaces,
    FailedModifyDeletes,
    CloseDeletes,
    UnknownIsNotFound,
    NoneIsSilent,
    HangUpsAreAskedFor,
    NoPriority,
    PriorityReportsEnd,
    OneshotReportsOne,
    InterestsComeApart,
    SharedWakesAll,
    AcceptIsEdge,
    ResetIsUnheard,
    /// The last rule that pollers have over any sockets.
    WakersTakeSockets,
    // Sockets, as pollers see them.
    OwnShutdownIsEnd,
    UnconnectedIsSilent,
    RoomIsEdge,
    // Sockets: accepting.
    AcceptedAreNonblocking,
    AcceptLosesClient,
    AcceptOfResetAborts,
    FullQueueResets,
    FullUnixQueueRefuses,
    ClosedListenerEnds,
    // Sockets: connecting.
    ConnectIsConnected,
    ReconnectIsRefused,
    ReconnectReturnsError,
    ReconnectIsInvalid,
    ReconnectFailsLater,
    WriteNeedsConnection,
    // Sockets: how connections end.
    WriteLeavesError,
    ResetComesBeforeEnd,
    CloseNeverResets,
    PairsNeverReset,
    ReadShutdownDiscards,
    ReadShutdownDrops,
    ReadShutdownResets,
    ShutdownOnce,
    ShutdownOfEndedIsInvalid,
    PairShutdownNeedsPeer,
    PeerOfEndedIsInvalid,
    OptionsOfEndedAreInvalid,
    TcpOptionsNeedConnection,
    // Sockets: addresses.
    ReusedPortIsOnes,
    ListenersNest,
    Ipv6Only,
    UnixPathsAreShort,
    // Sockets: datagrams.
    ConnectedSendsToPeer,
    DatagramsAreShort,
}

/// Those of every system with kqueue, in the kernel or in the selector of `pollio`.
const KQUEUE: &[Rule] = &[
    // The selector deletes all filters of a number and adds new ones.
    Rule::AddReplaces,
    Rule::FailedModifyDeletes,
    // `knote_fdclose`, kern_event.c.
    Rule::CloseDeletes,
    // A filter reports what it is for: `filt_soread`, `filt_sowrite`, uipc_socket.c.
    Rule::NoneIsSilent,
    Rule::HangUpsAreAskedFor,
    // Each filter is a separate event.
    Rule::OneshotReportsOne,
    Rule::InterestsComeApart,
    Rule::SharedWakesAll,
    // `filt_sowrite`, uipc_socket.c: `SBS_CANTSENDMORE`.
    Rule::OwnShutdownIsEnd,
    // The same: `SS_ISCONNECTED`.
    Rule::UnconnectedIsSilent,
    // `unp_connect`, or `unp_connectat`, uipc_usrreq.c: `sonewconn` returns no socket.
    Rule::FullUnixQueueRefuses,
    // `sockaddr_un`, sys/un.h: `sun_path` has 104 bytes. The standard library counts the NUL.
    Rule::UnixPathsAreShort,
];

/// Those of Apple systems: XNU 11417 (macOS 15.4), files below `bsd/kern` and `bsd/netinet`.
const APPLE: &[Rule] = &[
    // `knote_fdfind`, kern_event.c.
    Rule::UnknownIsNotFound,
    // `filt_soread_common`, uipc_socket.c.
    Rule::PriorityReportsEnd,
    // `sowwakeup`, uipc_socket2.c, with every acknowledgement.
    Rule::RoomIsEdge,
    // `accept_nocancel`, uipc_syscalls.c. The standard library calls accept4(2) on the BSDs, where nothing is
    // inherited.
    Rule::AcceptedAreNonblocking,
    // The same: it takes the client from the queue before it allocates the descriptor.
    Rule::AcceptLosesClient,
    // `soconnectlock`, uipc_socket.c.
    Rule::ConnectIsConnected,
    // `tcp_usr_connect`, tcp_usrreq.c: `INPCB_STATE_DEAD`.
    Rule::ReconnectReturnsError,
    // `sosendcheck`, uipc_socket.c, looks at `SS_CANTSENDMORE` first, then at the error, then at `SS_ISCONNECTED`.
    Rule::WriteNeedsConnection,
    Rule::WriteLeavesError,
    // `tcp_input`, tcp_input.c, sets `ECONNRESET` in `CLOSE_WAIT` too, and `soreceive` looks at it before the end.
    Rule::ResetComesBeforeEnd,
    // `unp_disconnect`, uipc_usrreq.c.
    Rule::PairsNeverReset,
    // `uipc_abort` and `unp_drop`, uipc_usrreq.c: the error goes to the end in the queue.
    Rule::ClosedListenerEnds,
    // `sorflush`, uipc_socket.c.
    Rule::ReadShutdownDiscards,
    // `tcp_input`, tcp_input.c: `close_it`.
    Rule::ReadShutdownResets,
    // `soshutdown` and `soshutdownlock_final`, uipc_socket.c.
    Rule::ShutdownOnce,
    Rule::PairShutdownNeedsPeer,
    // `getpeername`, uipc_syscalls.c.
    Rule::PeerOfEndedIsInvalid,
    // `sosetoptlock`, uipc_socket.c.
    Rule::OptionsOfEndedAreInvalid,
    // `in_pcblookup_hash`, in_pcb.c.
    Rule::ReusedPortIsOnes,
    // `in_pcbbind`, in_pcb.c.
    Rule::ListenersNest,
    // `udp_output`, udp_usrreq.c.
    Rule::ConnectedSendsToPeer,
    // `udp_sendspace`, udp_usrreq.c.
    Rule::DatagramsAreShort,
];

/// FreeBSD 13.0, files below `sys/kern` and `sys/netinet`.
const FREEBSD: &[Rule] = &[
    // `kqueue_add_filteropts`, kern_event.c: no EVFILT_EXCEPT.
    Rule::NoPriority,
    // `kern_accept4`, uipc_syscalls.c, ends in KNOTE.
    Rule::AcceptIsEdge,
    // `sorflush`, uipc_socket.c.
    Rule::ResetIsUnheard,
    // `sowwakeup`, tcp_input.c, with every acknowledgement.
    Rule::RoomIsEdge,
    // `tcp_usr_accept`, tcp_usrreq.c.
    Rule::AcceptOfResetAborts,
    // `syncache_socket`, tcp_syncache.c, and `tcp_input`, tcp_input.c: `tcp_sc_rst_sock_fail`.
    Rule::FullQueueResets,
    // `soconnectat`, uipc_socket.c.
    Rule::ConnectIsConnected,
    // `tcp_usr_connect`, tcp_usrreq.c: `INP_DROPPED`.
    Rule::ReconnectIsRefused,
    // `sosend_generic`, uipc_socket.c.
    Rule::WriteNeedsConnection,
    Rule::WriteLeavesError,
    // `tcp_do_segment`, tcp_input.c, and `soreceive_generic`, uipc_socket.c.
    Rule::ResetComesBeforeEnd,
    // `tcp_disconnect`, tcp_usrreq.c.
    Rule::CloseNeverResets,
    // `unp_disconnect`, uipc_usrreq.c.
    Rule::PairsNeverReset,
    // `sorflush`, uipc_socket.c.
    Rule::ReadShutdownDiscards,
    // `tcp_do_segment`, tcp_input.c: `SBS_CANTRCVMORE`.
    Rule::ReadShutdownDrops,
    // `soshutdown`, uipc_socket.c.
    Rule::PairShutdownNeedsPeer,
    // `tcp_default_ctloutput`, tcp_usrreq.c: `INP_WLOCK_RECHECK`.
    Rule::TcpOptionsNeedConnection,
    // `in_pcblookup_hash_locked`, in_pcb.c. `SO_REUSEPORT_LB` does spread.
    Rule::ReusedPortIsOnes,
    // `in_pcbbind_setup`, in_pcb.c.
    Rule::ListenersNest,
    // `ip6_v6only`, in6_proto.c.
    Rule::Ipv6Only,
    // `udp_output`, udp_usrreq.c.
    Rule::ConnectedSendsToPeer,
    // `udp_sendspace`, udp_usrreq.c.
    Rule::DatagramsAreShort,
];

/// NetBSD 7.99.34, files below `sys/kern` and `sys/netinet`.
const NETBSD: &[Rule] = &[
    // `kfilter_byfilter`, kern_event.c: no EVFILT_EXCEPT, and before NetBSD 10 no EVFILT_USER.
    Rule::NoPriority,
    Rule::WakersTakeSockets,
    // `soaccept`: ran.
    Rule::AcceptIsEdge,
    // `sorflush`, uipc_socket.c.
    Rule::ResetIsUnheard,
    // `soaccept`, uipc_socket.c: `PR_ABRTACPTDIS`.
    Rule::AcceptOfResetAborts,
    // `syn_cache_get`, tcp_input.c: `resetandabort`.
    Rule::FullQueueResets,
    // `soconnect`, uipc_socket.c.
    Rule::ConnectIsConnected,
    // `tcp_getpcb`, tcp_usrreq.c.
    Rule::ReconnectIsInvalid,
    // `sosend`, uipc_socket.c.
    Rule::WriteNeedsConnection,
    Rule::WriteLeavesError,
    // `tcp_input`, tcp_input.c, and `soreceive`, uipc_socket.c.
    Rule::ResetComesBeforeEnd,
    // `tcp_disconnect1`, tcp_usrreq.c.
    Rule::CloseNeverResets,
    // `unp_disconnect1`, uipc_usrreq.c.
    Rule::PairsNeverReset,
    // `unp_abort` and `unp_drop`, uipc_usrreq.c: the error goes to the end in the queue.
    Rule::ClosedListenerEnds,
    // `sorflush`, uipc_socket.c.
    Rule::ReadShutdownDiscards,
    // `tcp_input`, tcp_input.c: `SS_CANTRCVMORE`.
    Rule::ReadShutdownDrops,
    // `soshutdown`, uipc_socket.c, and `tcp_getpcb`, tcp_usrreq.c.
    Rule::ShutdownOfEndedIsInvalid,
    // `tcp_ctloutput`, tcp_usrreq.c.
    Rule::TcpOptionsNeedConnection,
    // `in_pcblookup_bind`, in_pcb.c.
    Rule::ReusedPortIsOnes,
    // `in_pcbbind_port`, in_pcb.c.
    Rule::ListenersNest,
    // `ip6_v6only`, in6_proto.c.
    Rule::Ipv6Only,
    // `udp_send`, udp_usrreq.c.
    Rule::ConnectedSendsToPeer,
    // `udp_sendspace`, udp_usrreq.c.
    Rule::DatagramsAreShort,
];

/// OpenBSD, files of 2000 to 2015 below `sys/kern` and `sys/netinet`.
const OPENBSD: &[Rule] = &[
    // `soaccept`, uipc_socket.c: `PR_ABRTACPTDIS`.
    Rule::AcceptOfResetAborts,
    // `soconnect`, uipc_socket.c.
    Rule::ConnectIsConnected,
    // `tcp_usrreq`, tcp_usrreq.c.
    Rule::ReconnectIsInvalid,
    // `sosend`, uipc_socket.c.
    Rule::WriteNeedsConnection,
    Rule::WriteLeavesError,
    // `tcp_input`, tcp_input.c, and `soreceive`, uipc_socket.c.
    Rule::ResetComesBeforeEnd,
    // `tcp_disconnect`, tcp_usrreq.c.
    Rule::CloseNeverResets,
    // `unp_disconnect`, uipc_usrreq.c.
    Rule::PairsNeverReset,
    // `unp_drop`, uipc_usrreq.c: the error goes to the end in the queue.
    Rule::ClosedListenerEnds,
    // `sorflush`, uipc_socket.c.
    Rule::ReadShutdownDiscards,
    // `soshutdown`, uipc_socket.c, and `tcp_usrreq`, tcp_usrreq.c.
    Rule::ShutdownOfEndedIsInvalid,
    // `tcp_ctloutput`, tcp_usrreq.c.
    Rule::TcpOptionsNeedConnection,
    // `in_pcbbind`, in_pcb.c.
    Rule::ListenersNest,
    // `tcp_attach`, tcp_usrreq.c.
    Rule::Ipv6Only,
];

/// DragonFly BSD 5.9, files below `sys/kern` and `sys/netinet`.
const DRAGONFLY: &[Rule] = &[
    // `tcp_usr_accept`, tcp_usrreq.c.
    Rule::AcceptOfResetAborts,
    // `soconnect`, uipc_socket.c.
    Rule::ConnectIsConnected,
    // `kern_connect`, uipc_syscalls.c, and `tcp_usr_preconnect` and `tcp_usr_connect`, tcp_usrreq.c.
    Rule::ReconnectFailsLater,
    // `sosendtcp`, uipc_socket.c.
    Rule::WriteNeedsConnection,
    Rule::WriteLeavesError,
    // `tcp_input`, tcp_input.c, and `sorecvtcp`, uipc_socket.c.
    Rule::ResetComesBeforeEnd,
    // `tcp_disconnect`, tcp_usrreq.c.
    Rule::CloseNeverResets,
    // `unp_disconnect`, uipc_usrreq.c.
    Rule::PairsNeverReset,
    // `uipc_abort` and `unp_drop`, uipc_usrreq.c: the error goes to the end in the queue.
    Rule::ClosedListenerEnds,
    // `sorflush`, uipc_socket.c.
    Rule::ReadShutdownDiscards,
    // `tcp_input`, tcp_input.c: `SS_CANTRCVMORE`.
    Rule::ReadShutdownDrops,
    // `soshutdown`, uipc_socket.c, and `tcp_usr_shutdown`, tcp_usrreq.c.
    Rule::ShutdownOfEndedIsInvalid,
    // `tcp_ctloutput`, tcp_usrreq.c.
    Rule::TcpOptionsNeedConnection,
    // `in_pcbbind`, in_pcb.c.
    Rule::ListenersNest,
    // `ip6_ctloutput`, ip6_output.c.
    Rule::Ipv6Only,
    // `udp_send`, udp_usrreq.c.
    Rule::ConnectedSendsToPeer,
    // `udp_sendspace`, udp_usrreq.c.
    Rule::DatagramsAreShort,
];

/// The rules of a kernel.
fn rules_of(kernel: Kernel) -> impl Iterator<Item = Rule> {
    let (shared, own): (&[_], &[_]) = match kernel {
        Kernel::Linux => (&[], &[]),
        Kernel::Apple => (KQUEUE, APPLE),
        Kernel::FreeBsd => (KQUEUE, FREEBSD),
        Kernel::NetBsd => (KQUEUE, NETBSD),
        Kernel::OpenBsd => (KQUEUE, OPENBSD),
        Kernel::DragonFly => (KQUEUE, DRAGONFLY),
    };
    shared.iter().chain(own).copied()
}

impl Rule {
    /// The words of a report.
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::AddReplaces => "an add replaces an existing registration",
            Self::FailedModifyDeletes => "an add or a modify that fails deletes the registration",
            Self::CloseDeletes => "a closed number is deleted, though a duplicate is open",
            Self::UnknownIsNotFound => "modify and delete of a number that is not open are ENOENT",
            Self::NoneIsSilent => "without interest nothing is reported",
            Self::HangUpsAreAskedFor => "a hang-up is reported in the directions asked for",
            Self::NoPriority => "there is no filter for out-of-band data",
            Self::PriorityReportsEnd => "PRIORITY reports the end",
            Self::OneshotReportsOne => "a oneshot reports one of its interests",
            Self::InterestsComeApart => "the interests of one descriptor are several events",
            Self::SharedWakesAll => "`exclusive` has no effect",
            Self::AcceptIsEdge => "an accept is an edge while clients are left",
            Self::ResetIsUnheard => "no edge of a reset after a shutdown of reading",
            Self::WakersTakeSockets => "wakers take two descriptors",
            Self::OwnShutdownIsEnd => "a shutdown of writing is write-closed at once",
            Self::UnconnectedIsSilent => "a socket that was never connected is not ready",
            Self::RoomIsEdge => "every acknowledgement is an edge of room",
            Self::AcceptedAreNonblocking => "an accepted socket is non-blocking if its listener is",
            Self::AcceptLosesClient => "accept without a descriptor closes the client",
            Self::AcceptOfResetAborts => "accept of a client that was reset is ECONNABORTED",
            Self::FullQueueResets => "a full queue resets the client",
            Self::FullUnixQueueRefuses => "connect to a Unix listener with a full queue is refused",
            Self::ClosedListenerEnds => {
                "a close of a Unix listener is an end, not a reset, for who is in its queue"
            }
            Self::ConnectIsConnected => {
                "connect of a connected socket is EISCONN the first time too"
            }
            Self::ReconnectIsRefused => "connect after one that failed is ECONNREFUSED",
            Self::ReconnectReturnsError => {
                "connect after one that failed is its error, then EINVAL"
            }
            Self::ReconnectIsInvalid => "connect after one that failed is EINVAL",
            Self::ReconnectFailsLater => "connect after one that failed fails later, with EINVAL",
            Self::WriteNeedsConnection => "a write before the connection is made is ENOTCONN",
            Self::WriteLeavesError => "a write after a reset is EPIPE, and leaves the error",
            Self::ResetComesBeforeEnd => "a reset after the peer's end is ECONNRESET",
            Self::CloseNeverResets => "a close with unread bytes is an end, not a reset",
            Self::PairsNeverReset => "a close of a Unix socket with unread bytes is no error",
            Self::ReadShutdownDiscards => "a shutdown of reading throws unread bytes away",
            Self::ReadShutdownDrops => "bytes after a shutdown of reading are thrown away",
            Self::ReadShutdownResets => "bytes after a shutdown of reading reset the connection",
            Self::ShutdownOnce => "shutdown of a direction that has ended is ENOTCONN",
            Self::ShutdownOfEndedIsInvalid => {
                "shutdown of a connection that has ended is EINVAL for writing only"
            }
            Self::PairShutdownNeedsPeer => {
                "shutdown of a Unix socket whose peer has closed is ENOTCONN"
            }
            Self::PeerOfEndedIsInvalid => {
                "the peer's address is EINVAL once both directions have ended"
            }
            Self::OptionsOfEndedAreInvalid => "options are EINVAL once both directions have ended",
            Self::TcpOptionsNeedConnection => {
                "options of TCP are ECONNRESET once the connection is gone"
            }
            Self::ReusedPortIsOnes => "of several listeners at one address, one takes all clients",
            Self::ListenersNest => "one listener can have an address, another one all addresses",
            Self::Ipv6Only => "a listener at all addresses of IPv6 has none of IPv4",
            Self::UnixPathsAreShort => "a path of a Unix socket over 103 bytes is InvalidInput",
            Self::ConnectedSendsToPeer => "send_to of a connected UDP socket is EISCONN",
            Self::DatagramsAreShort => "a datagram over 9,216 bytes is EMSGSIZE",
        }
    }
}

/// Rules of one kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct RuleSet(u64);

impl RuleSet {
    pub(super) const NONE: Self = Self(0);

    pub(super) fn of(kernel: Kernel) -> Self {
        let mut rules = Self::NONE;
        rules_of(kernel).for_each(|rule| rules.insert(rule));
        rules
    }

    pub(super) const fn has(self, rule: Rule) -> bool {
        self.0 >> rule as u64 & 1 != 0
    }

    pub(super) const fn insert(&mut self, rule: Rule) {
        self.0 |= 1 << rule as u64;
    }

    pub(super) const fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether its pollers are kqueues.
    pub(super) const fn is_kqueue(self) -> bool {
        self.has(Rule::AddReplaces)
    }
}

/// The rules of a world, and which of them made a difference so far.
pub(super) struct Rules {
    kernel: Kernel,
    rules: RuleSet,
    applied: RuleSet,
}

impl Rules {
    pub(super) fn new(kernel: Kernel) -> Self {
        Self { kernel, rules: RuleSet::of(kernel), applied: RuleSet::NONE }
    }

    pub(super) const fn kernel(&self) -> Kernel {
        self.kernel
    }

    pub(super) const fn set(&self) -> RuleSet {
        self.rules
    }

    pub(super) const fn has(&self, rule: Rule) -> bool {
        self.rules.has(rule)
    }

    /// Whether a socket that could not be connected never can be.
    pub(super) fn connects_once(&self) -> bool {
        [
            Rule::ReconnectIsRefused,
            Rule::ReconnectReturnsError,
            Rule::ReconnectIsInvalid,
            Rule::ReconnectFailsLater,
        ]
        .into_iter()
        .any(|rule| self.has(rule))
    }

    /// Leaves only the rules that pollers have over any sockets, also over those of Linux.
    pub(super) const fn remove_those_of_sockets(&mut self) {
        self.rules.0 &= (2 << Rule::WakersTakeSockets as u64) - 1;
    }

    pub(super) const fn set_applied(&mut self, rule: Rule) {
        self.applied.insert(rule);
    }

    /// Those that made a difference so far.
    pub(super) fn applied(&self) -> impl Iterator<Item = Rule> {
        self.of(self.applied)
    }

    /// Those of a set.
    pub(super) fn of(&self, set: RuleSet) -> impl Iterator<Item = Rule> + use<> {
        rules_of(self.kernel).filter(move |rule| set.has(*rule))
    }
}
