package host

// Network returns the monitored network as others should look at it: interfaces
// and the default route are as the monitor has last seen them, and asked of the
// host only before its first look. All parts of a node ask when it starts and
// after each change, and an answer of the host costs 40 kB of garbage.
func (m *Monitor) Network() Network { return seen{m.network, m} }

// seen is a network that a monitor looks at.
type seen struct {
	Network
	monitor *Monitor
}

// Interfaces returns what the monitor has seen. The slice is shared.
func (s seen) Interfaces() ([]Interface, error) {
	if l := s.monitor.link.Get(); l.Interfaces != nil {
		return l.Interfaces, nil
	}
	return s.Network.Interfaces()
}

// DefaultRoute returns what the monitor has seen; where that is no route, the
// host tells why.
func (s seen) DefaultRoute() (Route, error) {
	if l := s.monitor.link.Get(); l.Default != (Route{}) {
		return l.Default, nil
	}
	return s.Network.DefaultRoute()
}
