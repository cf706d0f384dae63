package node

import (
	"net"
	"net/netip"
	"sync"

	"github.com/seed94491740/tsnode/packet"
)

// A behalf knows for which peer this node has sockets of the host: their address
// is what a service behind the node sees (SVC-54).
type behalf struct {
	mu    sync.Mutex
	peers map[hostSocket]netip.AddrPort
}

// A hostSocket is a socket of the host's network.
type hostSocket struct {
	proto packet.Proto
	addr  netip.AddrPort
}

// note remembers the peer of a socket until forget is called.
func (b *behalf) note(proto packet.Proto, socket net.Addr, peer netip.AddrPort) (forget func()) {
	s := hostSocket{proto, addrPortOf(socket)}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.peers == nil {
		b.peers = make(map[hostSocket]netip.AddrPort)
	}
	b.peers[s] = peer
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.peers, s)
	}
}

// of returns the peer for which the node has a socket.
func (b *behalf) of(proto packet.Proto, socket netip.AddrPort) (peer netip.AddrPort, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	peer, ok = b.peers[hostSocket{proto, socket}]
	return peer, ok
}
