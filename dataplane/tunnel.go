package dataplane

import (
	"github.com/seed94491740/tsnode/dataplane/wireguard"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
)

// bound returns the tunnel's record of p, nil while the engine has not made it
// yet.
func (d *Dataplane) bound(p *peer) *wireguard.Peer {
	if wp := p.tunnel.Load(); wp != nil {
		return wp
	}
	return d.bind(p)
}

// bind finds the tunnel's record and tells it the masquerade addresses. The lock
// orders that with a new word of the server about them; it is taken once for
// each peer that is used.
func (d *Dataplane) bind(p *peer) *wireguard.Peer {
	wp := d.engine.Peer(p.key)
	if wp == nil || peerOf(wp) != p {
		return nil
	}
	d.binding.Lock()
	defer d.binding.Unlock()
	if masquerades(p.node.Load()) {
		d.setMasquerade(wp, p.node.Load())
	}
	p.tunnel.Store(wp)
	return wp
}

// rebind tells the tunnel's record of p, if it is in use, the masquerade
// addresses anew.
func (d *Dataplane) rebind(p *peer, node *netmap.Peer) {
	d.binding.Lock()
	defer d.binding.Unlock()
	p.node.Store(node)
	if wp := p.tunnel.Load(); wp != nil {
		d.setMasquerade(wp, node)
	}
}

func (d *Dataplane) setMasquerade(wp *wireguard.Peer, n *netmap.Peer) {
	wp.SetMasquerade(n.MasqV4, n.MasqV6)
}

// masquerades reports whether a peer knows us by other addresses (SVC-33).
func masquerades(n *netmap.Peer) bool { return n.MasqV4.IsValid() || n.MasqV6.IsValid() }

// sendOne sends a burst of the engine's own: a handshake, a keepalive, packets
// that had to wait for a key. It goes where the peer's data would go, or back to
// where the peer's message came from (WG-32).
func (d *Dataplane) sendOne(wp *wireguard.Peer, via *wireguard.Source, b packet.Burst) {
	p := peerOf(wp)
	if p == nil {
		return
	}
	d.sending(p, d.engine.Now())
	path := p.current()
	if via != nil {
		path = Path{Best: endpointOf(via)}
	}
	if path.room() > b.Room {
		b = withRoom(b)
	}
	s := sender{d: d}
	s.send(p, &path, []packet.Burst{b})
}

// reply sends a message to an exact source (WG-32).
func (d *Dataplane) reply(src *wireguard.Source, msg []byte) {
	path := Path{Best: endpointOf(src)}
	b := packet.Burst{Buf: msg, Size: len(msg), Count: 1}
	if path.room() > 0 {
		b = withRoom(b)
	}
	s := sender{d: d}
	s.send(nil, &path, []packet.Burst{b})
}

// peerAt asks the path layer whose address a source is.
func (d *Dataplane) peerAt(src *wireguard.Source) *wireguard.Peer {
	if d.config.Hooks.PeerAt == nil {
		return nil
	}
	k, ok := d.config.Hooks.PeerAt(endpointOf(src))
	if !ok {
		return nil
	}
	return d.engine.Peer(k)
}

// Events passes what happens in the tunnel on.
type events struct{ d *Dataplane }

// Up is part of wireguard.Events.
func (e *events) Up(wp *wireguard.Peer, initiator bool) {
	if e.d.config.Hooks.Up != nil {
		e.d.config.Hooks.Up(wp.Key(), initiator)
	}
}

// GaveUp is part of wireguard.Events.
func (e *events) GaveUp(wp *wireguard.Peer) { e.tell(e.d.config.Hooks.GaveUp, wp) }

// Erased is part of wireguard.Events.
func (e *events) Erased(wp *wireguard.Peer) { e.tell(e.d.config.Hooks.Erased, wp) }

func (e *events) tell(hook func(key.NodePublic), wp *wireguard.Peer) {
	if hook != nil {
		hook(wp.Key())
	}
}

// Heard is part of wireguard.Events.
func (e *events) Heard(wp *wireguard.Peer, src *wireguard.Source) {
	if p := peerOf(wp); p != nil {
		e.d.learn(p, src)
	}
	if e.d.config.Hooks.Heard != nil {
		e.d.config.Hooks.Heard(wp.Key(), endpointOf(src))
	}
}

// FirstPacket is part of wireguard.Events. It tells the peer our disco key from
// our address to the peer's first one (PATH-21, PATH-22).
func (e *events) FirstPacket(wp *wireguard.Peer, b []byte) int {
	p := peerOf(wp)
	if p == nil || e.d.config.Disco.IsZero() {
		return 0
	}
	node := p.node.Load()
	if node.WireGuardOnly || len(node.Addresses) == 0 {
		return 0
	}
	dst := node.Addresses[0].Addr()
	pkt, err := packet.AppendAdvert(b[:0], e.d.table.Load().own(dst), dst, e.d.config.Disco.Raw())
	if err != nil || len(pkt) > len(b) { // we have no address of that family
		return 0
	}
	return len(pkt)
}
