package disco

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport"
)

// A natKind is how a node of the wire reaches the others.
type natKind uint8

const (
	noNAT     natKind = iota // a public address, no firewall
	easyNAT                  // one mapping for all destinations, open to addresses that were sent to
	hardNAT                  // one mapping for each destination, open to that alone
	noUDP                    // nothing over UDP
	natsCount                // number of kinds
)

func (k natKind) String() string {
	return [natsCount]string{"no NAT", "easy NAT", "hard NAT", "no UDP"}[k]
}

const wireDelay = 10 * time.Millisecond // one way, over UDP and over DERP

// A wire joins two probers in a synctest bubble: an internet and a relay in
// memory.
type wire struct {
	t     *testing.T
	start time.Time
	a, b  *wireNode

	listed bool // the network map has the endpoints of both

	mu      sync.Mutex
	blocked bool    // nothing over UDP
	loss    float64 // share of what UDP loses, each way
	random  *rand.Rand
}

// A wireNode is a prober with a data plane that only counts.
type wireNode struct {
	w      *wire
	name   string
	prober *Prober
	disco  key.DiscoPrivate
	peer   *wireNode
	cancel context.CancelFunc

	endpoints *actor.Cell[wireEndpoints]
	crash     error // what the next packet makes Serve fail with; w.mu, as all below

	kind     natKind
	ip       netip.Addr
	mappings map[netip.AddrPort]netip.AddrPort // by destination; of an easy NAT the zero one
	opened   map[netip.AddrPort]bool
	lastPort uint16

	path     *Path
	told     time.Time // when the prober last heard of our sending
	heardAt  time.Time
	heardOf  transport.Endpoint
	arrivals []arrival
	expired  int
}

type wireEndpoints struct {
	addrs []netip.AddrPort
	at    time.Time
}

// An arrival is a data packet that came.
type arrival struct {
	at   time.Time
	seq  int
	from transport.Endpoint
}

// onWire runs f with two probers, who know each other, inside a bubble.
func onWire(t *testing.T, a, b natKind, listed bool, f func(*testing.T, *wire)) {
	synctest.Test(t, func(t *testing.T) {
		w := &wire{t: t, listed: listed, start: time.Now(), random: rand.New(rand.NewPCG(1, 2))}
		w.a, w.b = w.newNode("a", a, "192.0.2.1"), w.newNode("b", b, "198.51.100.1")
		w.a.peer, w.b.peer = w.b, w.a
		var done sync.WaitGroup
		for _, n := range []*wireNode{w.a, w.b} {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			n.prober = n.newProber()
			done.Go(func() {
				for ctx.Err() == nil {
					_ = n.prober.Serve(ctx)
				}
			})
			n.cancel = cancel
		}
		synctest.Wait()
		f(t, w)
		w.a.cancel()
		w.b.cancel()
		done.Wait()
		time.Sleep(time.Second) // what is on its way arrives
	})
}

func (w *wire) newNode(name string, kind natKind, ip string) *wireNode {
	n := &wireNode{w: w, name: name, kind: kind, ip: netip.MustParseAddr(ip), disco: key.NewDisco()}
	n.endpoints = actor.NewCell(wireEndpoints{})
	n.rebind()
	return n
}

// rebind makes new sockets, and a new mapping that STUN tells of.
func (n *wireNode) rebind() {
	n.mappings, n.opened = make(map[netip.AddrPort]netip.AddrPort), make(map[netip.AddrPort]bool)
	n.lastPort += 1000
	n.gather()
}

func (n *wireNode) gather() {
	stun := netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, 1}), 3478)
	n.endpoints.Store(wireEndpoints{[]netip.AddrPort{n.source(stun)}, time.Now()})
}

func (n *wireNode) key() key.NodePublic { return nodeKey(n.name) }

func (n *wireNode) newProber() *Prober {
	peer := &netmap.Peer{ID: 1, Key: n.peer.key(), Disco: n.peer.disco.Public(), HomeDERP: 1}
	if n.w.listed {
		peer.Endpoints = n.peer.endpoints.Get().addrs
	}
	return NewProber(Config{
		Disco: n.disco, Node: n.key(), Netmap: actor.NewCell(&netmap.Netmap{Peers: []*netmap.Peer{peer}}),
		Endpoints: func() ([]netip.AddrPort, time.Time, <-chan struct{}) {
			e, changed := n.endpoints.Load()
			return e.addrs, e.at, changed
		},
		WantEndpoints: func() { time.AfterFunc(5*wireDelay, n.lockedGather) },
		Send:          n.send,
		SetPath: func(_ key.NodePublic, p *Path) {
			n.w.mu.Lock()
			defer n.w.mu.Unlock()
			n.path = p
		},
		Heard: func(key.NodePublic) (time.Time, transport.Endpoint) {
			n.w.mu.Lock()
			defer n.w.mu.Unlock()
			return n.heardAt, n.heardOf
		},
		Expire: func(key.NodePublic) { n.expired++ },
	})
}

func (n *wireNode) lockedGather() {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	n.gather()
}

// source returns where a packet to that destination seems to come from.
func (n *wireNode) source(to netip.AddrPort) netip.AddrPort {
	if n.kind != hardNAT {
		to = netip.AddrPort{}
	}
	if _, ok := n.mappings[to]; !ok {
		n.lastPort++
		n.mappings[to] = netip.AddrPortFrom(n.ip, n.lastPort)
	}
	return n.mappings[to]
}

// admits reports whether a packet gets through to the node.
func (n *wireNode) admits(from, to netip.AddrPort) bool {
	switch n.kind {
	case noNAT:
		return n.mappings[netip.AddrPort{}] == to
	case easyNAT:
		return n.mappings[netip.AddrPort{}] == to && n.opened[netip.AddrPortFrom(from.Addr(), 0)]
	case hardNAT:
		return n.mappings[from] == to
	}
	return false
}

func (n *wireNode) send(to transport.Endpoint, frame []byte) error {
	n.w.mu.Lock()
	crash := n.crash
	n.w.mu.Unlock()
	if crash != nil {
		panic(crash)
	}
	frame = append([]byte(nil), frame...)
	n.carry(to, func(from transport.Endpoint) { n.peer.prober.Receive(from, false, frame) })
	return nil
}

// carry has arrive called at the other side, if the packet gets there.
func (n *wireNode) carry(to transport.Endpoint, arrive func(from transport.Endpoint)) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if to.IsDERP() {
		time.AfterFunc(wireDelay, func() { arrive(transport.Endpoint{Region: 1, Key: n.key()}) })
		return
	}
	src := n.source(to.Addr)
	n.opened[netip.AddrPortFrom(to.Addr.Addr(), 0)] = true
	if n.w.blocked || n.kind == noUDP || n.w.random.Float64() < n.w.loss {
		return
	}
	time.AfterFunc(wireDelay, func() {
		n.w.mu.Lock()
		admitted := n.peer.admits(src, to.Addr)
		n.w.mu.Unlock()
		if admitted {
			arrive(direct(src))
		}
	})
}

// data sends a packet along the path of the moment, as the data plane does.
func (n *wireNode) data(seq int, arrived func()) {
	n.w.mu.Lock()
	if now := time.Now(); now.Sub(n.told) >= 500*time.Millisecond {
		n.told = now
		n.prober.Sending(n.peer.key())
	}
	path := Path{Best: transport.Endpoint{Region: 1, Key: n.peer.key()}}
	if n.path != nil {
		path = *n.path
	}
	n.w.mu.Unlock()
	for _, to := range []transport.Endpoint{path.Best, path.Also} {
		if !to.IsZero() {
			n.carry(to, func(from transport.Endpoint) { n.peer.arrive(seq, from, arrived) })
		}
	}
}

func (n *wireNode) arrive(seq int, from transport.Endpoint, arrived func()) {
	n.w.mu.Lock()
	news := n.heardOf != from
	n.heardAt, n.heardOf = time.Now(), from
	n.arrivals = append(n.arrivals, arrival{time.Now(), seq, from})
	n.w.mu.Unlock()
	if news {
		n.prober.HeardFrom(n.peer.key(), from)
	}
	if arrived != nil {
		time.AfterFunc(time.Microsecond, arrived) // a netstack's answer takes its time
	}
}

func (n *wireNode) current() *Path {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	return n.path
}

// direct reports whether data goes over UDP alone.
func (n *wireNode) direct() bool {
	p := n.current()
	return p != nil && p.Also.IsZero()
}

// within waits until ok, at most for limit, and returns how long it took.
func (w *wire) within(limit time.Duration, ok func() bool) (time.Duration, bool) {
	start := time.Now()
	for time.Since(start) <= limit {
		synctest.Wait()
		if ok() {
			return time.Since(start), true
		}
		time.Sleep(time.Millisecond) // fake time
	}
	return limit, false
}

// set changes the wire.
func (w *wire) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}
