package netstack

import (
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// A nic is what the links of one stack share: they are one interface to it.
type nic struct {
	mtu        uint32
	gsoMax     uint32
	dispatcher atomic.Pointer[stack.NetworkDispatcher]
	windows    closedWindows
	budget     *budget                    // nil without a limit
	forward    atomic.Pointer[forwarding] // nil while nothing is forwarded
	pending    pendingListeners
}

func newNIC(mtu int) *nic { return &nic{mtu: uint32(mtu), gsoMax: gsoMaxSize(mtu)} }

// gsoMaxSize makes the largest super-packet such that its sealed pieces fit one
// sendmsg (wireguard.md section 7.1). gVisor takes 161 bytes off for headers.
func gsoMaxSize(mtu int) uint32 {
	const overhead, geneve, udpMax, headers, reserved = 32, 8, 65507, 72, 161
	piece := (mtu+15)/16*16 + overhead + geneve
	return uint32(min(64, udpMax/piece)*(mtu-headers) + reserved)
}

// spread returns which of n links carries a packet: always the same for one
// destination address, so that order holds within each flow (WG-78). A peer has
// one address of each family, unless it is a router.
func spread(p *stack.PacketBuffer, n int) int {
	if n == 1 {
		return 0
	}
	return scatter(lowest(p.NetworkHeader().Slice()), n)
}

// scatter spreads the last bytes of addresses over n.
func scatter(low uint64, n int) int {
	const golden = 0x9e3779b97f4a7c15 // 2^64 / golden ratio: neighbours part
	i, _ := bits.Mul64(low*golden, uint64(n))
	return int(i)
}

// linkTo returns the link that carries what goes to an address.
func (s *Stack) linkTo(to netip.Addr) *Link {
	b := to.As16()
	low := binary.BigEndian.Uint64(b[8:])
	if to.Is4() {
		low &= math.MaxUint32
	}
	return s.links[scatter(low, len(s.links))]
}

// lowest returns the last bytes of the destination address, 0 when there is
// none: what comes before them is the same for all nodes of a tailnet.
func lowest(h []byte) uint64 {
	const dst4, end4, dst6, end6 = 16, 20, 32, 40 // RFC 791 section 3.1, RFC 8200 section 3
	switch {
	case len(h) >= end4 && h[0]>>4 == 4:
		return uint64(binary.BigEndian.Uint32(h[dst4:]))
	case len(h) >= end6:
		return binary.BigEndian.Uint64(h[dst6:])
	}
	return 0
}
