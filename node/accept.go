package node

import (
	"net"
	"net/netip"

	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/netstack"
	"github.com/seed94491740/tsnode/packet"
)

// A listener accepts connections of netstack and notes whose they are.
type listener struct {
	net.Listener
	node *runtime
}

// Accept returns the next connection, an *acceptedConn. One that a change of
// policy has overtaken on its way here is reset: enforce cannot have seen it.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		inner := c.(*netstack.Conn)
		a := &acceptedConn{Conn: inner}
		if l.node.admit(a) {
			return a, nil
		}
		if inner.SetLinger(0) == nil {
			inner.Close()
		}
	}
}

// An acceptedConn is a connection that a peer has opened, and who that was at
// that time: another node may have the address later (SVC-120).
type acceptedConn struct {
	*netstack.Conn
	peer  *netmap.Peer // nil: nobody's own address, as behind a subnet router
	users map[netmap.UserID]netmap.UserProfile
	caps  netmap.CapMap
}

// admit notes whose connection it is. It reports false when the policy denies
// it.
func (r *runtime) admit(c *acceptedConn) bool {
	nm, p := r.netmap(), r.plane.Load()
	if nm == nil || p == nil || p.data.Applied().Get() == nil {
		return true
	}
	from, to := addrPortOf(c.RemoteAddr()), addrPortOf(c.LocalAddr())
	if r.denies(p.data, packet.TCP, from, to) {
		return false
	}
	c.users, c.caps = nm.Users, p.data.Caps(from.Addr(), to.Addr())
	if nm.Self.HasAddr(from.Addr()) {
		c.peer = nm.Self
	} else if owner, ok := p.data.NodeOf(from.Addr()); ok && owner.HasAddr(from.Addr()) {
		c.peer = owner
	}
	return true
}

// addrPortOf returns the address of a TCP or UDP socket; not valid for others.
func addrPortOf(a net.Addr) netip.AddrPort {
	if a, ok := a.(interface{ AddrPort() netip.AddrPort }); ok {
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
