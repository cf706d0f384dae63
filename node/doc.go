// Package node is a node of a tailnet as a library: a program joins with an
// auth key, dials and listens on the tailnet, and needs neither a TUN device
// nor root.
//
//	n := &node.Node{Hostname: "hello", AuthKey: os.Getenv("TS_AUTHKEY")}
//	defer n.Close()
//	ln, err := n.Listen("tcp", ":80")
//	…
//	http.Serve(ln, handler)
//
// The zero Node is ready for use; Listen, Dial and Up start it. A process may
// have any number of nodes. The library keeps no global state and reads no
// environment variable, except through Node.Proxy.
//
// # Coming from tsnet
//
// Change the import and the type's name. Fields and methods that both have
// keep their names and signatures. What else changes:
//
//	tsnet                          here
//	Store ipn.StateStore           Store state.Store: Read and Write with a context
//	Dir == "": a user directory    Dir == "" and Store == nil: state in memory, the node is new on every start
//	environment TS_AUTHKEY etc.    not read; set AuthKey
//	Up returns *ipnstate.Status    Up returns *Status
//	LocalClient: *local.Client     LocalClient: *LocalClient with WhoIs and Status
//	Dial of other addresses        the same with DialMode: DialTailnetElseHost; else ErrNoRoute
//	preferences by LocalClient     fields AcceptRoutes, ExitNode, AdvertiseRoutes, …, and EditPreferences
//	login, logout by LocalClient   Login and Logout
//	CapturePcap writes pcap        pcapng that Wireshark reads without a dissector, until ctx ends; mode 0600
//	fallback handlers: any order   in the order of their registration
//	ListenPacket: one address      also ":port" on all own addresses, both families, and raw sockets: ip4:icmp
//	logs to the vendor             nothing is sent anywhere but to ControlURL and its relays
//
// ListenTLS, ListenFunnel, ListenService and CertDomains are not there yet.
//
// # Errors and when they come
//
//	what is wrong                    what says so                          when
//	bad auth key                     Up: ErrBadAuthKey; event Stopped      at the server's answer
//	ControlURL is no control server  event ControlProblem{ErrWrongControl} within 5 s; Up goes on until its context ends
//	control does not answer          event ControlProblem{ErrControlUnreachable}  within 5 s; Up goes on, then returns it
//	node key expired, no auth key    events KeyExpired, NeedsLogin; Dial: ErrNotRunning  at the server's answer
//	node removed from the tailnet    event Stopped{ErrNodeDeleted}; Dial: the same  within 1 s
//	name not known                   Dial: ErrNameNotFound                 at once
//	address of no node               Dial: ErrNoRoute                      at once
//	exit node not there              Dial: ErrNoExitNode; Status.Health    2 s
//	nothing listens at the peer      Dial: ErrRefused                      one round trip
//	policy denies, peer says so      Dial: ErrRejected                     one round trip
//	policy denies, peer is silent    Dial: ErrNoAnswer, *DialError tells   30 s, or the context
//	peer is offline                  Dial: ErrNoAnswer, *DialError tells   30 s, or the context
//	peer vanishes, nothing is sent   Read: syscall.ETIMEDOUT               7 minutes after its last word
//	Dial or Listen, and Node.TUN     ErrNoStack                            at once
//	TUN device is removed            Up: ErrDeviceGone; event Stopped      at once
//	node closed                      ErrClosed                             at once
//
// A TCP connection has the methods SetKeepAlive, SetKeepAlivePeriod and
// SetKeepAliveConfig of *net.TCPConn to find a vanished peer sooner, later or not at
// all. By default it asks after 5 minutes of silence: more often would keep the
// tunnel, and a phone at its other end, awake for an idle connection's sake.
//
// # Memory
//
// What a node holds has a bound, whatever happens around it:
//
//	packets on their way       16432.5 KiB  each node; most of it only once it is used
//	                           2576 KiB    each further loop; on two or three cores there is one
//	TCP, received, not read    8192 KiB    each connection, grown by use
//	TCP, sent, not acknowledged  6144 KiB  each connection, grown by use
//	UDP, received, not read    4096 KiB    each socket
//	peers                      3 kB        each peer of the network map, and 7 KiB with a session
//
// Node.MemoryLimit bounds the sum of all but the peers; doc/memory.md has the parts
// and says what gives way.
//
// # How long calls take
//
// Start returns within a second with or without a network. Close takes at most
// a second, and up to five more to log an ephemeral node out.
package node
