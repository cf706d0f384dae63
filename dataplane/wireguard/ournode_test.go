package wireguard

import (
	"context"
	"encoding/binary"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/packet"
)

// An ourNode is an Engine in a world, with a supervisor of the plainest kind.
type ourNode struct {
	w    *engineWorld
	name string
	e    *Engine
	src  *Source
	stop context.CancelFunc
	done chan struct{}

	mu     sync.Mutex // one user of the sealer, one of the opener
	sealer *Sealer
	opener *Opener
	mem    []byte
	queue  [][]byte

	first  string        // FirstPacket
	panics chan struct{} // each makes the next handshake message sent panic
	failUp atomic.Bool   // the next Up panics
}

// engineOurs makes a node with an Engine.
func engineOurs(w *engineWorld, name string) engineNode { return newOurNode(w, name) }

func newOurNode(w *engineWorld, name string) *ourNode {
	n := &ourNode{w: w, name: name, done: make(chan struct{}), panics: make(chan struct{}, 100)}
	n.src = &Source{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, other(name)[0]}), 41641)}
	e, err := New(Config{
		Private: w.keys[name], MTU: 1280, Events: n,
		Send: func(_ *Peer, _ *Source, b packet.Burst) {
			for i := range b.Count {
				n.transmit(b.Datagram(i))
			}
		},
		Reply:  func(_ *Source, msg []byte) { w.transmit(name, msg) },
		PeerAt: func(*Source) *Peer { return n.peer() },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	e.jitter = func(most time.Duration) Tick { return Tick(most / 2) }
	n.e, n.opener = e, e.NewOpener(n)
	n.sealer = e.NewSealer(func(_ *Peer, bursts []packet.Burst) {
		for _, b := range bursts {
			for i := range b.Count {
				w.transmit(name, b.Datagram(i))
			}
		}
	})
	e.Update(PeerDiff{Add: []NewPeer{{Key: w.keys[other(name)].Public()}}})
	n.run()
	return n
}

// run starts the engine, again whenever it ends by a panic.
func (n *ourNode) run() {
	ctx, cancel := context.WithCancel(context.Background())
	n.stop = cancel
	go func() {
		defer close(n.done)
		for ctx.Err() == nil {
			err := actor.Guard(ctx, n.e.Serve)
			if ctx.Err() == nil {
				n.w.note("%s restarts", n.name)
				if !strings.Contains(err.Error(), "as ordered") {
					n.w.t.Errorf("%s: %v", n.name, err)
					return
				}
			}
		}
	}()
}

func (n *ourNode) close() {
	n.stop()
	<-n.done
}

func (n *ourNode) peer() *Peer { return n.e.Peer(n.w.keys[other(n.name)].Public()) }

// transmit sends what the engine's own goroutines send.
func (n *ourNode) transmit(b []byte) {
	if b[0] < 4 {
		select {
		case <-n.panics:
			panic("as ordered")
		default:
		}
	}
	n.w.transmit(n.name, b)
}

func (n *ourNode) send(pkts ...[]byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]packet.Outbound, len(pkts))
	for i := range pkts {
		out[i].Head = pkts[i]
	}
	n.sealer.Seal(n.peer(), out, 0, n.e.Now())
}

func (n *ourNode) take(b []byte) {
	if len(b) > 0 && b[0] != 4 {
		n.e.Handshake(n.src, b)
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.opener.Open(n.src, b, 0, 0, n.e.Now())
	n.opener.Flush()
	for _, pkt := range n.queue {
		n.w.deliver(n.name, pkt)
	}
	n.queue = nil
}

// The node is its Sink.

func (n *ourNode) Owner(src netip.Addr) *Peer {
	if src == engineAddr(other(n.name)) {
		return n.peer()
	}
	return nil
}

func (n *ourNode) Verdict(*Peer, *packet.Header, []byte) Verdict { return Pass }

func (n *ourNode) Reserve(size int) []byte {
	n.mem = make([]byte, size)
	return n.mem
}

func (n *ourNode) Commit(_ *Peer, m packet.Merged) { n.queue = append(n.queue, n.mem[:m.Len]) }
func (n *ourNode) Flush()                          {}

// And it is told its Events.

func (n *ourNode) Up(_ *Peer, initiator bool) {
	role := "responder"
	if initiator {
		role = "initiator"
	}
	n.w.note("%s up as %s", n.name, role)
	if n.failUp.CompareAndSwap(true, false) {
		panic("as ordered")
	}
}

func (n *ourNode) GaveUp(*Peer) { n.w.note("%s gave up", n.name) }
func (n *ourNode) Erased(*Peer) { n.w.note("%s erased", n.name) }

func (n *ourNode) Heard(_ *Peer, src *Source) {
	n.w.note("%s heard from :%d", n.name, src.Addr.Port())
}

func (n *ourNode) FirstPacket(_ *Peer, b []byte) int {
	if n.first == "" {
		return 0
	}
	return copy(b, enginePacket(n.name, n.first))
}

// session returns the node's session, nil when there is none.
func (n *ourNode) session() *session { return n.peer().live() }

// keypairs returns how many keypairs and pending initiations are in the index
// table.
func (n *ourNode) keypairs() (keypairs, pendings int) {
	slots := *n.e.indices.slots.Load()
	for i := range slots {
		if slots[i].keypair.Load() != nil {
			keypairs++
		}
		if slots[i].pending.Load() != nil {
			pendings++
		}
	}
	return keypairs, pendings
}

// engineReceiver returns the receiver index of a transport message.
func engineReceiver(b []byte) uint32 { return binary.LittleEndian.Uint32(b[4:]) }
