package node

import (
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/seed94491740/tsnode/packet"
)

// A behalf knows for which peers this node has sockets of the host: their address
// is what a service behind the node sees (SVC-54).
type behalf struct {
	mu    sync.Mutex
	peers map[hostSocket][]netip.AddrPort // seldom more than one of each
}

// A hostSocket is an address of sockets of the host's network. The system may give
// it to several that are connected to different hosts.
type hostSocket struct {
	proto packet.Proto
	addr  netip.AddrPort
}

// note remembers the peer of a socket until forget is called, once.
func (b *behalf) note(proto packet.Proto, socket net.Addr, peer netip.AddrPort) (forget func()) {
	s := hostSocket{proto, addrPortOf(socket)}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.peers == nil {
		b.peers = make(map[hostSocket][]netip.AddrPort)
	}
	b.peers[s] = append(b.peers[s], peer)
	return func() { b.forget(s, peer) }
}

func (b *behalf) forget(s hostSocket, peer netip.AddrPort) {
	b.mu.Lock()
	defer b.mu.Unlock()
	rest := b.peers[s]
	if i := slices.Index(rest, peer); i >= 0 {
		rest = slices.Delete(rest, i, i+1)
	}
	if len(rest) == 0 {
		delete(b.peers, s)
		return
	}
	b.peers[s] = rest
}

// peer returns the peer for which the node has a socket at an address with a port,
// of TCP or else of UDP (SVC-117). Where it has several there, of different nodes,
// nobody can tell which is meant, and it is none of them.
func (b *behalf) peer(text string) (peer netip.AddrPort, ok bool) {
	addr, err := netip.ParseAddrPort(text)
	if err != nil {
		return peer, false
	}
	addr = unmapped(addr)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, proto := range []packet.Proto{packet.TCP, packet.UDP} {
		peers := b.peers[hostSocket{proto, addr}]
		if len(peers) == 0 {
			continue
		}
		other := func(p netip.AddrPort) bool { return p.Addr() != peers[0].Addr() }
		return peers[0], !slices.ContainsFunc(peers, other)
	}
	return peer, false
}
