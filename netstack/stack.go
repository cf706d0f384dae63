package netstack

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

// DefaultMTU is the inner MTU of a tailnet in bytes (SVC-38).
const DefaultMTU = 1280

// maxMTU is the longest IPv4 packet in bytes.
const maxMTU = 65535

const nicID = 1 // the stack has one interface

// closePatience is how long Close waits for gVisor; it takes milliseconds.
const closePatience = 5 * time.Second

// The largest buffers of a TCP connection, in bytes (SVC-48).
const (
	ReceiveMemory = 8 << 20
	SendMemory    = 6 << 20
)

// TCP buffers in bytes: least, default and largest. gVisor allocates
// on demand, so an idle connection costs little of them.
var (
	receiveBuffer = tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: 1 << 20, Max: ReceiveMemory}
	sendBuffer    = tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: 1 << 20, Max: SendMemory}
)

// Recovery says how TCP finds out which segments are lost (SVC-49).
type Recovery int

// Ways of TCP to find losses; the package comment has the figures.
const (
	DefaultRecovery Recovery = iota // SACKRecovery
	SACKRecovery                    // three later segments arrived: RFC 6675
	RACKRecovery                    // by time: RACK-TLP, RFC 8985
)

// A Config is what a Stack needs of its surroundings.
type Config struct {
	MTU        int          // inner MTU in bytes, 1280 to 65535; 0 means DefaultMTU
	Links      int          // how many outbound loops share what is sent, by destination (WG-78); 0 means 1
	Recovery   Recovery     // loss detection of TCP
	Congestion string       // congestion control of TCP: "reno" or "cubic"; "" has each connection choose
	Buffers    int64        // bytes that sockets may hold together; 0 means as many as their own limits allow
	Logger     *slog.Logger // nil discards

	// Beside says that the stack has its addresses together with the operating
	// system, whose packets from them it takes. What it sends to them goes out.
	Beside bool

	clock tcpip.Clock // of TCP; nil is the system's
}

// A Stack is the TCP, UDP and ICMP end of the overlay. It may be used from any
// goroutine.
type Stack struct {
	gv    *stack.Stack
	links []*Link
	log   *slog.Logger

	budget    *budget // of TCP; nil without a limit
	quota     *quota  // of UDP and raw sockets; nil without a limit
	addresses addresses
	udp       udpPorts
	ipID      atomic.Uint32 // of the next IPv4 packet that we make: RFC 6864 section 4.3
	lingering lingering
	unheard   atomic.Pointer[packetHandler] // nil before Unheard
	resetting atomic.Int32                  // requests that are being answered with a reset
	adapts    bool                          // connections choose their congestion control
	count     counters

	done     chan struct{} // closed by Close
	closing  sync.Once
	closeErr error
}

// counters count what was dropped above the link.
type counters struct {
	udpLost      atomic.Uint64
	udpOverflow  atomic.Uint64
	udpNobody    atomic.Uint64
	udpMalformed atomic.Uint64
	icmpLost     atomic.Uint64
	icmpOverflow atomic.Uint64

	tcpPendingBusy atomic.Uint64
	tcpUnanswered  atomic.Uint64
}

// Stats are counters since the stack was made.
type Stats struct {
	LinkDropped    uint64 // outbound packets that found the link queue full
	UDPLost        uint64 // of those, datagrams
	UDPOverflow    uint64 // inbound datagrams that found their socket's buffer full
	UDPNobody      uint64 // inbound datagrams to ports without a socket (SVC-59)
	Misdelivered   uint64 // inbound packets to an address that is not the stack's, or from one that nobody has
	Malformed      uint64 // inbound packets, segments and datagrams with headers or checksums that are wrong
	ICMPLost       uint64 // of LinkDropped, messages of raw sockets
	ICMPOverflow   uint64 // inbound messages that found their raw socket's buffer full
	TCPRefused     uint64 // connections for which Config.Buffers had no room
	TCPPendingBusy uint64 // connections refused because a PendingListener had too many, or too many of their peer
	TCPUnanswered  uint64 // connections refused without a reset, as too many were being reset
	TCPLingerCut   uint64 // connections whose TIME-WAIT was cut short for newer ones
	TCPRetransmits uint64 // segments sent again
	TCPTimeouts    uint64 // retransmission timeouts

	Buffers int64 // bytes of Config.Buffers that sockets may fill now; 0 without a limit
}

// New returns a stack without addresses. Close must be called in the end.
func New(c Config) (*Stack, error) {
	if c.MTU == 0 {
		c.MTU = DefaultMTU
	}
	if c.MTU < header.IPv6MinimumMTU || c.MTU > maxMTU {
		return nil, fmt.Errorf("netstack: MTU %d: want %d to %d", c.MTU, header.IPv6MinimumMTU, maxMTU)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	quiet()
	s := &Stack{
		gv: stack.New(stack.Options{
			NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocolWithOptions(ipv6.Options{})},
			TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
			HandleLocal:        !c.Beside, // a node can dial itself; SVC-55
			Clock:              c.clock,
		}),
		log:  c.Logger,
		done: make(chan struct{}),

		adapts:    c.Congestion == "",
		lingering: lingering{limit: lingerLimit},
	}
	if err := s.configure(&c); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// configure sets the parameters of SVC-48 and attaches the link.
func (s *Stack) configure(c *Config) error {
	sack := tcpip.TCPSACKEnabled(true)
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	congestion := tcpip.CongestionControlOption(cmp.Or(c.Congestion, cubicControl))
	var recovery tcpip.TCPRecovery
	if c.Recovery == RACKRecovery {
		recovery = tcpip.TCPRACKLossDetection
	}
	receive, send := s.share(c)
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &recovery, &congestion, &receive, &send} {
		if err := s.gv.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("netstack: set %T to %v: %v", o, o, err)
		}
	}
	s.gv.SetTransportProtocolHandler(udp.ProtocolNumber, s.udpNobody)
	s.gv.SetTransportProtocolHandler(tcp.ProtocolNumber, s.tcpNobody)
	n := newNIC(c.MTU)
	n.budget = s.budget
	for range max(c.Links, 1) {
		s.links = append(s.links, newLink(n))
	}
	if err := s.gv.CreateNIC(nicID, &endpoint{n, s.links}); err != nil {
		return fmt.Errorf("netstack: create interface: %v", err)
	}
	s.gv.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nicID},
		{Destination: header.IPv6EmptySubnet, NIC: nicID},
	})
	return nil
}

// share makes of Config.Buffers what sockets share, and returns the sizes that
// TCP's buffers have until then.
func (s *Stack) share(c *Config) (tcpip.TCPReceiveBufferSizeRangeOption, tcpip.TCPSendBufferSizeRangeOption) {
	if c.Buffers == 0 {
		return receiveBuffer, sendBuffer
	}
	const udpShare = 4 // the part of the memory that datagrams may fill
	established := s.gv.Stats().TCP.CurrentEstablished
	s.quota = newQuota(c.Buffers / udpShare)
	s.budget = newBudget(c.Buffers-c.Buffers/udpShare, c.MTU, func() int { return int(established.Value()) })
	receive, send := receiveBuffer, sendBuffer
	receive.Default = leastBuffer // its largest stays: window scales follow it
	send.Default, send.Max = leastBuffer, leastBuffer
	return receive, send
}

// Links returns the stack's side of the packet pipeline. All packets to one
// address go out by the same link; inbound ones may come by any.
func (s *Stack) Links() []*Link { return s.links }

// Stats returns the counters.
func (s *Stack) Stats() Stats {
	gv := s.gv.Stats()
	t := gv.TCP
	return Stats{
		LinkDropped:  s.linkDropped(),
		UDPLost:      s.count.udpLost.Load(),
		UDPOverflow:  s.count.udpOverflow.Load(),
		UDPNobody:    s.count.udpNobody.Load(),
		Misdelivered: gv.IP.InvalidDestinationAddressesReceived.Value() + gv.IP.InvalidSourceAddressesReceived.Value(),
		Malformed: gv.IP.MalformedPacketsReceived.Value() + gv.IP.MalformedFragmentsReceived.Value() +
			t.InvalidSegmentsReceived.Value() + t.ChecksumErrors.Value() + s.count.udpMalformed.Load(),
		ICMPLost:       s.count.icmpLost.Load(),
		ICMPOverflow:   s.count.icmpOverflow.Load(),
		TCPRefused:     s.budget.refusals(),
		TCPPendingBusy: s.count.tcpPendingBusy.Load(),
		TCPUnanswered:  s.count.tcpUnanswered.Load(),
		TCPLingerCut:   s.lingering.cut.Load(),
		TCPRetransmits: t.Retransmits.Value(),
		TCPTimeouts:    t.Timeouts.Value(),
		Buffers:        s.budget.memory() + s.quota.memory(),
	}
}

// linkDropped returns how many packets found their queue full.
func (s *Stack) linkDropped() (n uint64) {
	for _, l := range s.links {
		n += l.Dropped()
	}
	return n
}

// SetAddresses makes addrs the stack's own addresses. The first of a family is
// the one that dials start from. Connections of addresses that go are left to
// time out; those of addresses that stay go on. The error names each address
// that is of no use; the others are set.
func (s *Stack) SetAddresses(addrs []netip.Addr) error { return s.addresses.set(s.gv, addrs) }

// Close aborts every connection, closes every socket and ends the stack's
// goroutines; what waits returns net.ErrClosed. It may be called more than once.
// It never waits for the packet pipeline: link writes end at once. The error says
// that gVisor did not end in time.
func (s *Stack) Close() error {
	s.closing.Do(func() {
		close(s.done)
		closeLinks(s.links)
		s.gv.RemoveNIC(nicID) // nothing more comes in
		s.closeErr = s.end()
	})
	return s.closeErr
}

// closeGVisor ends gVisor, and closes gone when nothing of it runs any more.
func (s *Stack) closeGVisor(gone chan<- struct{}) {
	defer close(gone)
	s.gv.Close()
	s.gv.Wait()
}

// end ends gVisor. An endpoint that is made at the same time, as by a listener's
// last handshake, escapes gVisor's Close, and Wait waits for it: so they are
// aborted until all are gone.
func (s *Stack) end() error {
	gone := make(chan struct{})
	go s.closeGVisor(gone)
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for began := time.Now(); time.Since(began) < closePatience; {
		select {
		case <-gone:
			return nil
		case <-again.C:
			for _, ep := range s.gv.RegisteredEndpoints() {
				ep.Abort()
			}
		}
	}
	return fmt.Errorf("netstack: sockets still open %v after Close", closePatience)
}
