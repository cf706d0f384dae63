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

// peer returns the peer for which the node has a socket at an address with a port,
// of TCP or else of UDP (SVC-117).
func (b *behalf) peer(text string) (peer netip.AddrPort, ok bool) {
	addr, err := netip.ParseAddrPort(text)
	if err != nil {
		return peer, false
	}
	addr = unmapped(addr)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, proto := range []packet.Proto{packet.TCP, packet.UDP} {
		if peer, ok = b.peers[hostSocket{proto, addr}]; ok {
			return peer, true
		}
	}
	return peer, false
}
