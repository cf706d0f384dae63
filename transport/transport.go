// Package transport is the contract between the packet pipeline and the
// underlays that carry encrypted datagrams: UDP sockets and DERP relays.
package transport

import (
	"errors"
	"net/netip"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/packet"
)

// An Endpoint is where a datagram comes from or goes to: a UDP address,
// possibly through a peer relay (VNI not zero), or a DERP region and the node
// key of the peer there. The zero Endpoint is none.
type Endpoint struct {
	Addr   netip.AddrPort // UDP; invalid for DERP
	VNI    uint32         // Geneve virtual network identifier of a peer relay
	Region uint16         // DERP region; 0 for UDP
	Key    key.NodePublic // peer's node key, with Region
}

// IsDERP reports whether the endpoint is behind a relay.
func (e Endpoint) IsDERP() bool { return e.Region != 0 }

// IsZero reports whether there is no endpoint.
func (e Endpoint) IsZero() bool { return e == Endpoint{} }

// An Underlay sends encrypted datagrams.
type Underlay interface {
	// Send queues or sends bursts to one endpoint. It never blocks on a peer or
	// a relay: what cannot be sent is dropped and counted. The bursts are
	// borrowed until Send returns. An error that is ErrUnreachable asks the
	// caller to forget the path.
	Send(to Endpoint, bursts []packet.Burst) error
}

// ErrUnreachable says that this host has no way to an endpoint now (PATH-59,
// PATH-60): its peer is better reached by another path.
var ErrUnreachable = errors.New("endpoint unreachable from this host")

// A Receiver takes what one receive goroutine reads. It is used by that
// goroutine alone.
type Receiver interface {
	// Receive takes one read: a single datagram (segment 0) or several of
	// segment bytes each, the last maybe shorter. more is how many bytes of the
	// same batch are still to come, as a hint. b is borrowed until Receive
	// returns.
	Receive(from Endpoint, b []byte, segment, more int)

	// Flush delivers what Receive has gathered; called at the end of a batch.
	Flush()
}
