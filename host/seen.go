package host

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// Network returns the monitored network as others should look at it: interfaces
// and the default route are as the monitor has last seen them, and asked of the
// host only before its first look. All parts of a node ask when it starts and
// after each change, and an answer of the host costs 40 kB of garbage.
func (m *Monitor) Network() Network { return &seen{m.network, m} }

// seen is a network that a monitor looks at.
type seen struct {
	network Network
	monitor *Monitor
}

// Interfaces returns what the monitor has seen. The slice is shared.
func (s *seen) Interfaces() ([]Interface, error) {
	if l := s.monitor.link.Get(); l.Interfaces != nil {
		return l.Interfaces, nil
	}
	return s.network.Interfaces()
}

// DefaultRoute returns what the monitor has seen; where that is no route, the
// host tells why.
func (s *seen) DefaultRoute() (Route, error) {
	if l := s.monitor.link.Get(); l.Default != (Route{}) {
		return l.Default, nil
	}
	return s.network.DefaultRoute()
}

// ListenUDP is that of the network, as all that follows.
func (s *seen) ListenUDP(ctx context.Context, family string, port uint16) (UDPConn, error) {
	return s.network.ListenUDP(ctx, family, port)
}

func (s *seen) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return s.network.Dial(ctx, network, address)
}

func (s *seen) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	return s.network.Listen(ctx, network, address)
}

func (s *seen) LookupNetIP(ctx context.Context, network, name string) ([]netip.Addr, error) {
	return s.network.LookupNetIP(ctx, network, name)
}

func (s *seen) Watch(ctx context.Context, changed func()) error { return s.network.Watch(ctx, changed) }

func (s *seen) Echo(ctx context.Context, to netip.Addr, payload []byte) (time.Duration, error) {
	return s.network.Echo(ctx, to, payload)
}

// Nameservers is for the function of that name.
func (s *seen) Nameservers() ([]netip.AddrPort, error) { return Nameservers(s.network) }
