package simnet

import (
	"net/netip"
	"time"
)

// A Protocol is what a packet carries.
type Protocol uint8

// Protocols of the simulation.
const (
	UDP  Protocol = iota + 1
	TCP           // one segment
	Echo          // ICMP echo request or reply; its identifier is the port of both addresses
)

// String returns the protocol's name.
func (p Protocol) String() string { return [...]string{"none", "UDP", "TCP", "ICMP"}[p] }

// Bytes of headers.
const (
	header4   = 20 // IPv4 without options (RFC 791)
	header6   = 40 // IPv6 (RFC 8200)
	headerUDP = 8  // RFC 768
	headerTCP = 20 // without options (RFC 9293)
	headerICP = 8  // ICMP echo (RFC 792)
)

// headers returns the bytes of IP and transport header.
func headers(proto Protocol, six bool) int {
	n := header4
	if six {
		n = header6
	}
	switch proto {
	case UDP:
		return n + headerUDP
	case TCP:
		return n + headerTCP
	}
	return n + headerICP
}

// A parcel is a packet on its way. It belongs to the simulation from make to free.
type parcel struct {
	proto    Protocol
	reply    bool // of an Echo
	fragment bool // may be cut where it is too long; otherwise it is lost there
	hops     uint8
	changes  uint32 // of the network it is in when it was looked for
	src, dst netip.AddrPort
	payload  []byte
	segment  segment // of TCP

	// where it is
	in   *network
	from *port
	to   *port // nil: still to be looked for
}

// size returns the bytes of the IP packet. TCP segments are counted as one
// packet, however many they would be on a wire.
func (p *parcel) size() int { return headers(p.proto, p.dst.Addr().Is6()) + len(p.payload) }

// Parcels are used again, those for full segments of TCP and those for less
// apart from each other. So many of each are kept at most.
const (
	smallParcel = DefaultMTU
	maxSmall    = 4096
	maxLarge    = 128
)

// maxHops is how many networks a packet crosses before it is dropped: it runs
// in a circle.
const maxHops = 32

// make returns a packet with room for a payload of size bytes.
func (n *Internet) make(proto Protocol, src, dst netip.AddrPort, size int) *parcel {
	free, room := &n.small, smallParcel
	if size > smallParcel {
		free, room = &n.large, max(size, maxSegment)
	}
	var p *parcel
	if k := len(*free) - 1; k >= 0 {
		p, *free = (*free)[k], (*free)[:k]
	} else {
		p = new(parcel)
	}
	buf := p.payload
	if cap(buf) < size {
		buf = make([]byte, room)
	}
	*p = parcel{proto: proto, src: src, dst: dst, payload: buf[:size]}
	return p
}

// recycle takes back a packet that has arrived or is lost.
func (n *Internet) recycle(p *parcel) {
	switch {
	case cap(p.payload) <= smallParcel && len(n.small) < maxSmall:
		n.small = append(n.small, p)
	case cap(p.payload) > smallParcel && len(n.large) < maxLarge:
		n.large = append(n.large, p)
	}
}

// A Fate is what has become of a packet at some place.
type Fate uint8

// Fates of a packet. All but the first two mean that it is lost.
const (
	Sent         Fate = iota // by a host, onto its link
	Delivered                // to a socket of a host, or to its ICMP
	Lost                     // by chance: Conditions.Loss
	Cut                      // at a link with Conditions.Down, or pulled out
	Blocked                  // UDP at a link with Conditions.NoUDP
	TooLong                  // longer than a link's MTU, and not to be fragmented
	QueueFull                // of a link with Conditions.Bandwidth
	NoHost                   // nobody has the address, or not any more
	NoRoute                  // its host has no way there
	Firewalled               // by a Firewall
	NoMapping                // nothing inside is mapped to that port of a NAT
	Filtered                 // a NAT's mapping does not let this sender in
	NoHairpin                // from inside to the outer address of a NAT without hairpin
	MappingsFull             // a NAT has no room for another mapping
	NoSocket                 // the port is closed
	BufferFull               // of the socket it came to
	Looping                  // it runs in a circle
	fates
)

var fateNames = [fates]string{
	"sent", "delivered", "lost", "cut", "blocked", "too long", "queue full", "no host", "no route", "firewalled",
	"no mapping", "filtered", "no hairpin", "mappings full", "no socket", "buffer full", "looping",
}

// String returns the fate in words.
func (f Fate) String() string { return fateNames[f] }

// A Packet is what a tap sees.
type Packet struct {
	At       time.Duration // since New
	Where    string        // name of the host or router
	Fate     Fate
	Protocol Protocol
	Src, Dst netip.AddrPort // as they are at that place
	Payload  []byte         // borrowed until the tap returns
}

// SetTap has f called for each packet that is sent, delivered or lost, nil for
// none. It must be quick and call nothing of this package.
func (n *Internet) SetTap(f func(Packet)) {
	n.acquire()
	defer n.release()
	n.tap = f
}

// Counters count packets by fate. Those of a host are of its own packets and
// link; those of a router of what it and its links have dropped.
type Counters [fates]uint64

// Dropped returns how many packets were lost, in whatever way.
func (c *Counters) Dropped() (lost uint64) {
	for f := Lost; f < fates; f++ {
		lost += c[f]
	}
	return lost
}

// note counts what has become of p at some place.
func (n *Internet) note(p *parcel, at *node, f Fate) {
	at.counters[f]++
	if n.tap != nil {
		n.tap(Packet{time.Duration(n.at), at.name, f, p.proto, p.src, p.dst, p.payload})
	}
}

// drop ends the way of p.
func (n *Internet) drop(p *parcel, at *node, f Fate) {
	n.note(p, at, f)
	n.recycle(p)
}
