package dataplane

import (
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/seed94491740/tsnode/dataplane/wireguard"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/transport"
)

// A Path is where a peer's datagrams go. It is immutable.
type Path struct {
	Best transport.Endpoint
	Also transport.Endpoint // zero, or a second way that gets the same datagrams
}

// Room returns how many bytes each datagram needs in front for this path: those
// of a Geneve header if either way leads through a peer relay (WG-60).
func (p *Path) room() int {
	if p.Best.VNI != 0 || p.Also.VNI != 0 {
		return geneveHeader
	}
	return 0
}

// SetPath makes p the path of the peer with key k; nil goes back to the path
// that the network map gives. The choice among paths is the caller's. It reports
// false when there is no such peer.
func (d *Dataplane) SetPath(k key.NodePublic, p *Path) bool {
	peer := d.peer(k)
	if peer == nil {
		return false
	}
	peer.path.Store(p)
	return true
}

// current returns the path of a peer: what was set, else the first endpoint of a
// plain WireGuard peer, else its home relay, else the relay it was last heard
// through (PATH-65). It is zero when there is none.
func (p *peer) current() Path {
	if path := p.path.Load(); path != nil {
		return *path
	}
	node := p.node.Load()
	if node.WireGuardOnly {
		if len(node.Endpoints) == 0 {
			return Path{}
		}
		return Path{Best: transport.Endpoint{Addr: node.Endpoints[0]}}
	}
	region := node.HomeDERP
	if region <= 0 {
		region = int(p.region.Load())
	}
	if region <= 0 || region > math.MaxUint16 {
		return Path{}
	}
	return Path{Best: transport.Endpoint{Region: uint16(region), Key: p.key}}
}

// learn remembers where an authenticated packet of the peer came from. A UDP
// source becomes the path only of peers that the configuration lists: nothing
// proves yet that the peer can be reached there.
func (d *Dataplane) learn(p *peer, src *wireguard.Source) {
	if src.Region != 0 {
		p.region.Store(uint32(src.Region))
		return
	}
	if _, listed := d.config.DirectUDP[p.key]; listed {
		p.path.Store(&Path{Best: endpointOf(src)})
	}
}

func endpointOf(s *wireguard.Source) transport.Endpoint {
	return transport.Endpoint{Addr: s.Addr, VNI: s.VNI, Region: s.Region, Key: s.Key}
}

// sendingEvery is how often Hooks.Sending is called for a peer that much is sent
// to. It is half of the second of silence that makes a path suspect (PATH-36).
const sendingEvery = wireguard.Tick(500 * time.Millisecond)

// sending tells the path layer that something goes to p.
func (d *Dataplane) sending(p *peer, now wireguard.Tick) {
	noted := p.noted.Load()
	if noted != 0 && now-wireguard.Tick(noted) < sendingEvery {
		return
	}
	if p.noted.CompareAndSwap(noted, int64(now)) && d.config.Hooks.Sending != nil {
		d.config.Hooks.Sending(p.key)
	}
}

// lost forgets the path of p that led to an endpoint out of this host's reach.
func (d *Dataplane) lost(p *peer, to transport.Endpoint) {
	if path := p.path.Load(); path != nil && (path.Best == to || path.Also == to) {
		p.path.CompareAndSwap(path, nil)
	}
	if d.config.Hooks.Unreachable != nil {
		d.config.Hooks.Unreachable(p.key, to)
	}
}

// A sender hands bursts to the underlay. It is used by one goroutine.
type sender struct {
	d    *Dataplane
	flat []packet.Burst // scratch: datagrams without their room
}

// send sends bursts to p along a path; p is nil when they answer a stranger. The
// bursts are borrowed.
func (s *sender) send(p *peer, path *Path, bursts []packet.Burst) {
	if path.Best.IsZero() {
		s.d.count.dropped.add(NoPath, count(bursts))
		return
	}
	s.sendTo(p, path.Best, bursts)
	if !path.Also.IsZero() {
		s.sendTo(p, path.Also, bursts)
	}
}

func (s *sender) sendTo(p *peer, to transport.Endpoint, bursts []packet.Burst) {
	out := bursts
	switch {
	case to.VNI != 0:
		for i := range bursts {
			putGeneve(&bursts[i], to.VNI)
		}
	case len(bursts) > 0 && bursts[0].Room > 0:
		out = s.flatten(bursts)
	}
	if err := s.d.config.Underlay.Send(to, out); err != nil {
		s.d.count.dropped.add(SendFailed, count(out))
		if p != nil && errors.Is(err, transport.ErrUnreachable) {
			s.d.lost(p, to)
		}
		return
	}
	s.d.count.sent.addBursts(to, out)
}

// flatten returns every datagram as a burst of its own without room.
func (s *sender) flatten(bursts []packet.Burst) []packet.Burst {
	s.flat = s.flat[:0]
	for _, b := range bursts {
		for i := range b.Count {
			d := b.Datagram(i)
			s.flat = append(s.flat, packet.Burst{Buf: d, Size: len(d), Count: 1})
		}
	}
	return s.flat
}

func count(bursts []packet.Burst) (n int) {
	for _, b := range bursts {
		n += b.Count
	}
	return n
}

// Geneve carries WireGuard and disco through a peer relay; RFC 8926 section 3.4
// as doc/protocol/paths.md section 2.3 uses it.
const (
	geneveHeader    = 8
	geneveDisco     = 0x7a11
	geneveWireGuard = 0x7a12
)

// putGeneve writes the header in front of each datagram of b (PATH-11).
func putGeneve(b *packet.Burst, vni uint32) {
	for i := range b.Count {
		h := b.Buf[i*(b.Room+b.Size):][:geneveHeader]
		h[0], h[1] = 0, 0
		binary.BigEndian.PutUint16(h[2:], geneveWireGuard)
		binary.BigEndian.PutUint32(h[4:], vni<<8)
	}
}

// withRoom returns a copy of b whose datagrams have room for a Geneve header.
func withRoom(b packet.Burst) packet.Burst {
	out := packet.Burst{Room: geneveHeader, Size: b.Size, Count: b.Count}
	for i := range b.Count {
		out.Buf = append(out.Buf, make([]byte, geneveHeader)...)
		out.Buf = append(out.Buf, b.Datagram(i)...)
	}
	return out
}
