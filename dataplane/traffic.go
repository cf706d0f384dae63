package dataplane

import (
	"sync/atomic"

	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/transport"
)

// A PathKind is the way a datagram took, as the metrics of SVC-172 tell them
// apart.
type PathKind uint8

// Kinds of paths.
const (
	DirectIPv4 PathKind = iota
	DirectIPv6
	DERP
	PeerRelayIPv4
	PeerRelayIPv6
	PathKinds // number of kinds
)

var pathKindNames = [PathKinds]string{"direct_ipv4", "direct_ipv6", "derp", "peer_relay_ipv4", "peer_relay_ipv6"}

// String returns the label of the metric.
func (k PathKind) String() string {
	if k < PathKinds {
		return pathKindNames[k]
	}
	return "unknown"
}

// KindOf returns the kind of path that leads to or from an endpoint.
func KindOf(e transport.Endpoint) PathKind {
	four := e.Addr.Addr().Unmap().Is4()
	switch {
	case e.IsDERP():
		return DERP
	case e.VNI != 0 && four:
		return PeerRelayIPv4
	case e.VNI != 0:
		return PeerRelayIPv6
	case four:
		return DirectIPv4
	}
	return DirectIPv6
}

// Traffic counts tunnel datagrams and their bytes, underlay headers left out.
type Traffic struct{ Datagrams, Bytes uint64 }

// A meter counts the traffic of one direction, by path. It is added to once for
// each batch.
type meter [PathKinds]struct{ datagrams, bytes atomic.Uint64 }

func (m *meter) add(e transport.Endpoint, datagrams, bytes int) {
	c := &m[KindOf(e)]
	c.datagrams.Add(uint64(datagrams))
	c.bytes.Add(uint64(bytes))
}

func (m *meter) addBursts(e transport.Endpoint, bursts []packet.Burst) {
	datagrams, bytes := 0, 0
	for i := range bursts {
		b := &bursts[i]
		datagrams += b.Count
		bytes += len(b.Buf) - b.Count*b.Room
	}
	m.add(e, datagrams, bytes)
}

func (m *meter) load() (t [PathKinds]Traffic) {
	for i := range t {
		t[i] = Traffic{m[i].datagrams.Load(), m[i].bytes.Load()}
	}
	return t
}
