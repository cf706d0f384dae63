package netstack

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"

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

const nicID = 1 // the stack has one interface

// TCP buffers in bytes (SVC-48): least, default and largest. gVisor allocates
// on demand, so an idle connection costs little of them.
var (
	receiveBuffer = tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: 1 << 20, Max: 8 << 20}
	sendBuffer    = tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: 1 << 20, Max: 6 << 20}
)

// A Config is what a Stack needs of its surroundings.
type Config struct {
	MTU    int          // inner MTU in bytes; 0 means DefaultMTU
	Logger *slog.Logger // nil discards
}

// A Stack is the TCP, UDP and ICMP end of the overlay. It may be used from any
// goroutine.
type Stack struct {
	gv   *stack.Stack
	link *Link
	log  *slog.Logger

	mu    sync.Mutex // guards addrs against two SetAddresses at once
	addrs map[netip.Addr]bool

	close sync.Once
}

// New returns a stack without addresses.
func New(c Config) (*Stack, error) {
	if c.MTU == 0 {
		c.MTU = DefaultMTU
	}
	if c.MTU < header.IPv6MinimumMTU || c.MTU > header.IPv4MaximumPayloadSize {
		return nil, fmt.Errorf("netstack: MTU %d is not between %d and 65535", c.MTU, header.IPv6MinimumMTU)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Stack{
		gv: stack.New(stack.Options{
			NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocolWithOptions(ipv6.Options{})},
			TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
			HandleLocal:        true, // a node can dial itself; SVC-55
		}),
		link:  newLink(c.MTU),
		log:   c.Logger,
		addrs: make(map[netip.Addr]bool),
	}
	if err := s.configure(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// configure sets the parameters of SVC-48 and attaches the link.
func (s *Stack) configure() error {
	sack := tcpip.TCPSACKEnabled(true)
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	recovery := tcpip.TCPRecovery(0)
	reno := tcpip.CongestionControlOption("reno")
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &recovery, &reno, &receiveBuffer, &sendBuffer} {
		if err := s.gv.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("netstack: set %T: %v", o, err)
		}
	}
	if err := s.gv.CreateNIC(nicID, &endpoint{s.link}); err != nil {
		return fmt.Errorf("netstack: create interface: %v", err)
	}
	s.gv.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nicID},
		{Destination: header.IPv6EmptySubnet, NIC: nicID},
	})
	return nil
}

// Link returns the stack's side of the packet pipeline.
func (s *Stack) Link() *Link { return s.link }

// SetAddresses makes addrs the stack's own addresses. Connections of those that
// go are left to time out.
func (s *Stack) SetAddresses(addrs []netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	want := make(map[netip.Addr]bool)
	var errs []error
	for _, a := range addrs {
		a = a.Unmap()
		want[a] = true
		if s.addrs[a] {
			continue
		}
		if err := s.gv.AddProtocolAddress(nicID, protocolAddress(a), stack.AddressProperties{}); err != nil {
			errs = append(errs, fmt.Errorf("netstack: add address %v: %v", a, err))
			continue
		}
		s.addrs[a] = true
	}
	for a := range s.addrs {
		if want[a] {
			continue
		}
		if err := s.gv.RemoveAddress(nicID, tcpip.AddrFromSlice(a.AsSlice())); err != nil {
			errs = append(errs, fmt.Errorf("netstack: remove address %v: %v", a, err))
		}
		delete(s.addrs, a)
	}
	return errors.Join(errs...)
}

func protocolAddress(a netip.Addr) tcpip.ProtocolAddress {
	return tcpip.ProtocolAddress{Protocol: protocolOf(a), AddressWithPrefix: tcpip.AddrFromSlice(a.AsSlice()).WithPrefix()}
}

func protocolOf(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

// Close aborts every connection, closes every socket and ends the stack's
// goroutines. It may be called more than once and never waits for the packet
// pipeline: link writes end at once.
func (s *Stack) Close() error {
	s.close.Do(func() {
		s.link.close()
		s.gv.Close()
		s.gv.RemoveNIC(nicID)
		s.gv.Wait()
	})
	return nil
}
