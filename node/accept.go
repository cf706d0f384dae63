package node

import (
	"net"
	"net/netip"

	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/netstack"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/peerapi"
)

// A listener accepts connections of netstack and notes who has opened them.
type listener struct {
	inner *netstack.Listener
	node  *runtime
}

var _ peerapi.Listener = (*listener)(nil)

// Accept returns the next connection, a *netstack.Conn. One that a change of policy
// has overtaken on its way here is reset: enforce cannot have seen it.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.inner.AcceptTCP()
		if err != nil {
			return nil, err
		}
		if l.node.admit(c) {
			return c, nil
		}
		if c.SetLinger(0) == nil {
			c.Close()
		}
	}
}

// Close ends Accept.
func (l *listener) Close() error { return l.inner.Close() }

// Addr returns where the listener listens, a *net.TCPAddr.
func (l *listener) Addr() net.Addr { return l.inner.Addr() }

// Notify has f called when a connection comes.
func (l *listener) Notify(f func()) { l.inner.Notify(f) }

// An opener is who has opened a connection, at that time: another node may have the
// address later (SVC-120). It is the note of those whose address is a node's own.
type opener struct {
	peer  *netmap.Peer
	users map[netmap.UserID]netmap.UserProfile
	caps  netmap.CapMap
}

// admit notes who has opened a connection. It reports false when the policy denies
// it.
func (r *runtime) admit(c *netstack.Conn) bool {
	nm, p := r.netmap(), r.plane.Load()
	if nm == nil || p == nil || p.data.Applied().Get() == nil {
		return true
	}
	from, to := addrPortOf(c.RemoteAddr()), addrPortOf(c.LocalAddr())
	if r.denies(p.data, packet.TCP, from, to) {
		return false
	}
	peer := nm.Self
	if !nm.Self.HasAddr(from.Addr()) {
		owner, ok := p.data.NodeOf(from.Addr())
		if !ok || !owner.HasAddr(from.Addr()) { // as behind a subnet router
			return true
		}
		peer = owner
	}
	c.Note = &opener{peer, nm.Users, p.data.Caps(from.Addr(), to.Addr())}
	return true
}

// openerOf returns who has opened a connection; nil for one that was not admitted,
// or is not from an address of a node.
func openerOf(c net.Conn) *opener {
	accepted, ok := c.(*netstack.Conn)
	if !ok {
		return nil
	}
	o, _ := accepted.Note.(*opener)
	return o
}

// addrPortOf returns the address of a TCP or UDP socket; not valid for others.
func addrPortOf(a net.Addr) netip.AddrPort {
	if a, ok := a.(interface{ AddrPort() netip.AddrPort }); ok {
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
