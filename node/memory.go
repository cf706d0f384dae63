package node

import (
	"fmt"

	"github.com/seed94491740/tsnode/dataplane/wireguard"
	"github.com/seed94491740/tsnode/netstack"
	"github.com/seed94491740/tsnode/packetfilter"
	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/udp"
)

// LeastMemoryLimit is the smallest Node.MemoryLimit, in bytes. It is enough for
// about a hundred connections.
const LeastMemoryLimit = 12 << 20

// countedRegions is for how many relay regions a limit sets memory aside: the home
// and another one.
const countedRegions = 2

// A MemoryStatus is what a node's packets and connections may take.
type MemoryStatus struct {
	Limit int64 // bytes; Node.MemoryLimit
	Used  int64 // bytes that may be filled now, the garbage collector's share included

	RefusedConnections uint64 // connections for which there was no memory
	DroppedDatagrams   uint64 // datagrams for which there was none, or none left to their socket
}

// heldShare is the part of a limit in which packets wait for those that they have
// overtaken, if that is less than without a limit.
const heldShare = 32

// pipelineMemory is what a node holds at most besides the buffers of sockets, held
// of it for packets that wait for those that they have overtaken, in bytes;
// doc/memory.md lists it.
func pipelineMemory(loops int, held int64) int64 {
	const (
		receiver = wireguard.OpenerMemory + netstack.DeliveryMemory
		loop     = wireguard.SealerMemory + netstack.LinkMemory + 2*(udp.ReadMemory+receiver) // IPv4 and IPv6
		region   = derp.RegionMemory + receiver
		shared   = wireguard.ParkedMemory + wireguard.HandshakeMemory + packetfilter.FlowMemory + receiver // the actor's, for what has waited in vain
	)
	return int64(loops)*loop + countedRegions*region + shared + held
}

// checkMemoryLimit returns why a limit cannot be, in bytes; 0 is none.
func checkMemoryLimit(limit int64) error {
	if limit != 0 && limit < LeastMemoryLimit {
		return fmt.Errorf("memory limit of %d bytes: want at least %d, or 0 for none", limit, LeastMemoryLimit)
	}
	return nil
}

// limitMemory shares out a limit that has been checked: half of what the pipeline leaves
// is for sockets, and as much for the garbage that Go lets a heap gather before it
// collects. A small limit is for few loops.
func (s *settings) limitMemory(limit int64) {
	if limit == 0 {
		return
	}
	s.held = min(limit/heldShare, wireguard.HeldMemory)
	for s.loops > 1 && pipelineMemory(s.loops, s.held) > limit/2 {
		s.loops--
	}
	s.memoryLimit, s.buffers = limit, (limit-pipelineMemory(s.loops, s.held))/2
}

// memory returns what the node's packets and connections may take now.
func (r *runtime) memory() MemoryStatus {
	if r.memoryLimit == 0 || r.stack == nil {
		return MemoryStatus{}
	}
	st := r.stack.Stats()
	return MemoryStatus{
		Limit: r.memoryLimit, Used: pipelineMemory(r.loops, r.held) + 2*st.Buffers,
		RefusedConnections: st.TCPRefused, DroppedDatagrams: st.UDPOverflow,
	}
}
