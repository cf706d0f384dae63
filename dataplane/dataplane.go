package dataplane

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/dataplane/wireguard"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/packetfilter"
	"github.com/seed94491740/tsnode/transport"
)

// DefaultMTU is the inner MTU of a tailnet in bytes (SVC-38).
const DefaultMTU = 1280

// A Link is the netstack's side of the overlay (WG-59). If there are several,
// packets to one address go by the same, so that their order holds.
type Link interface {
	// Attach says that a drain loop runs; while none does, a write to the link
	// never waits (WG-83). detach ends it.
	Attach() (detach func())

	// Next fills b with packets that wait to go out and returns how many; it
	// does not block. They are borrowed until Done.
	Next(b []packet.Outbound) int

	// Done gives the n packets of the last Next back.
	Done(n int)

	// Ready is signalled when Next may have packets again.
	Ready() <-chan struct{}

	// Inject delivers one whole IP packet to the stack, which copies it.
	Inject(pkt []byte)
}

// A Delivery takes inbound packets for the stack. One receive goroutine uses it.
type Delivery interface {
	// Reserve returns memory for the next packet, cap >= n.
	Reserve(n int) []byte

	// Commit says that the memory last reserved holds m; it is not delivered yet.
	Commit(m packet.Merged)

	// Flush delivers what was committed.
	Flush()
}

// A Config is what a Dataplane needs of its surroundings.
type Config struct {
	Private key.NodePrivate
	MTU     int // inner MTU in bytes; 0 means DefaultMTU

	Links       []Link          // an outbound loop drains each (WG-78)
	NewDelivery func() Delivery // of the same stack; called once for each receiver
	Underlay    transport.Underlay

	Netmap *actor.Cell[*netmap.Netmap] // nil value: nothing passes yet
	Policy *actor.Cell[*Policy]        // nil cell or value: the zero Policy

	// Disco is our public disco key, zero for none. It is told to peers inside
	// the tunnel (PATH-22).
	Disco key.DiscoPublic

	// DirectUDP lists peers whose datagrams go straight to a UDP address, and
	// then to wherever the peer was last heard from by UDP. It bypasses path
	// discovery; tests and benchmarks use it.
	DirectUDP map[key.NodePublic]netip.AddrPort

	Flows  int   // UDP flows remembered at least; 0 means packetfilter.DefaultFlows
	Held   int64 // bytes of memory for packets that wait for others (WG-102); 0 means wireguard.HeldMemory
	Hooks  Hooks
	Logger *slog.Logger // nil discards

	// Tap holds who looks at the packets of the overlay; nil for nobody, then and
	// there.
	Tap *atomic.Pointer[Tap]
}

// Hooks tell other parts of a node what the pipeline meets. Each may be nil,
// must not block, and borrows its arguments. Those from receive goroutines may
// be called by several at once.
type Hooks struct {
	// Disco gets each disco frame; control is the bit of the Geneve header it
	// came behind, if any (PATH-61).
	Disco func(from transport.Endpoint, control bool, frame []byte)

	// STUN gets each STUN binding message.
	STUN func(from netip.AddrPort, message []byte)

	// Rejected is called when a peer says that it refused a flow of ours, to
	// fail a pending dial (SVC-36). Advisory rejects are left out.
	Rejected func(packet.Reject)

	// Pong is called for the answer to a SendPing.
	Pong func(from netip.Addr, data [8]byte, peerAPI uint16)

	// DiscoKey is called when a peer tells its disco key inside the tunnel, from
	// one of its own addresses (PATH-21).
	DiscoKey func(peer key.NodePublic, disco key.DiscoPublic)

	// Heard is called when an authenticated packet came from a new source, or
	// 10 s after the last call (WG-57).
	Heard func(peer key.NodePublic, from transport.Endpoint)

	// Sending is called when a datagram goes to a peer, and then at most every
	// 500 ms while more do (PATH-34).
	Sending func(peer key.NodePublic)

	// Unreachable is called when this host has no way to where a peer's
	// datagrams went; the path that was set is forgotten (PATH-59, PATH-60).
	Unreachable func(peer key.NodePublic, to transport.Endpoint)

	// PeerAt tells whose UDP address from is, as far as is known: a hint for when
	// we have restarted and peers have not noticed (WG-52).
	PeerAt func(from transport.Endpoint) (key.NodePublic, bool)

	// Policed is called after rules have come into force, or peers have gone, by
	// which a flow may be denied that was permitted when it began. Explain answers
	// by them.
	Policed func()

	// Up, GaveUp and Erased are the tunnel's session events (WG-57).
	Up             func(peer key.NodePublic, initiator bool)
	GaveUp, Erased func(peer key.NodePublic)
}

// A Dataplane is the packet pipeline of one node. Its services do the work;
// everything else about it may be used from any goroutine.
type Dataplane struct {
	config  Config
	engine  *wireguard.Engine
	filter  *packetfilter.Filter
	table   atomic.Pointer[table]        // written by the peers service
	applied *actor.Cell[*netmap.Netmap]  // what table was made from
	inboxes []chan answer                // of the outbound loops; those to peers are in the first; outlive a restart
	pulse   actor.Pulse                  // of the peers service
	errands chan []byte                  // ICMP for our own stack; outlives a restart
	errand  atomic.Pointer[actor.Worker] // brings them; nil before the first Serve of outbound
	binding sync.Mutex                   // guards peer.tunnel against a change of masquerade
	limits  limits
	early   early
	count   counters
}

// New returns a Dataplane in which nothing passes. It starts nothing: run its
// Services.
func New(c Config) (*Dataplane, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	d := &Dataplane{
		config: c, filter: packetfilter.New(c.Flows), applied: actor.NewCell[*netmap.Netmap](nil),
		errands: make(chan []byte, maxErrands), limits: newLimits(), pulse: actor.NewPulse("dataplane.peers"),
	}
	for range c.Links {
		d.inboxes = append(d.inboxes, make(chan answer, maxAnswers))
	}
	d.table.Store(emptyTable())
	var err error
	d.engine, err = wireguard.New(wireguard.Config{
		Private: c.Private, MTU: c.MTU, Send: d.sendOne, Reply: d.reply, PeerAt: d.peerAt, Events: &events{d}, Logger: c.Logger,
		Late: &lateSink{sink{d: d, delivery: c.NewDelivery()}}, Held: c.Held,
	})
	d.config.Private = key.NodePrivate{} // the engine alone needs it
	return d, err
}

// complete checks the configuration and fills in the defaults.
func (c *Config) complete() error {
	switch {
	case c.Private.IsZero():
		return errors.New("dataplane: no private node key")
	case len(c.Links) == 0 || c.NewDelivery == nil:
		return errors.New("dataplane: no link to a stack")
	case c.Underlay == nil:
		return errors.New("dataplane: no underlay")
	case c.Netmap == nil:
		return errors.New("dataplane: no network map cell")
	}
	if c.MTU == 0 {
		c.MTU = DefaultMTU
	}
	if c.Policy == nil {
		c.Policy = actor.NewCell[*Policy](nil)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Tap == nil {
		c.Tap = new(atomic.Pointer[Tap])
	}
	return nil
}

// Services returns the actors of the pipeline: the tunnel's engine, the keeper
// of peers and routes, and the outbound loops. Each may fail and be started again
// alone; flows, sessions and routes outlive that.
func (d *Dataplane) Services() []actor.Service {
	return []actor.Service{&tunnelService{d.engine}, &peersService{d}, &outboundService{d}}
}

// tunnelService names the engine for the supervisor.
type tunnelService struct{ engine *wireguard.Engine }

func (*tunnelService) String() string { return "wireguard.Engine" }

// Serve runs the engine.
func (s *tunnelService) Serve(ctx context.Context) error { return s.engine.Serve(ctx) }

// Applied holds the network map that peers, routes and filter follow now; nil
// while nothing passes.
func (d *Dataplane) Applied() *actor.Cell[*netmap.Netmap] { return d.applied }

// Policy returns the policy that peers, routes and filter follow now; Applied changes
// with it.
func (d *Dataplane) Policy() *Policy { return d.table.Load().policy }

// Caps returns the capabilities that src has towards dst (SVC-118).
func (d *Dataplane) Caps(src, dst netip.Addr) netmap.CapMap { return d.filter.Caps(src, dst) }

// Owner returns the node key of the peer that an overlay address is routed to.
func (d *Dataplane) Owner(a netip.Addr) (key.NodePublic, bool) {
	if p := d.table.Load().routes.owner(a); p != nil {
		return p.key, true
	}
	return key.NodePublic{}, false
}

// NodeOf returns what the server says of the peer that an overlay address is
// routed to.
func (d *Dataplane) NodeOf(a netip.Addr) (*netmap.Peer, bool) {
	if p := d.table.Load().routes.owner(a); p != nil {
		return p.node.Load(), true
	}
	return nil, false
}

// Expire makes the next packet to a peer begin with a handshake, after the peer
// was found to have restarted (PATH-20, WG-51).
func (d *Dataplane) Expire(k key.NodePublic) {
	if wp := d.engine.Peer(k); wp != nil {
		d.engine.Expire(wp)
	}
}

// ExpireAll does so for every peer, after the host was asleep (WG-45).
func (d *Dataplane) ExpireAll() { d.engine.ExpireAll() }

// LastHeard returns when and from where the last authenticated packet of a peer
// came; the zero time when none did in its current session.
func (d *Dataplane) LastHeard(k key.NodePublic) (time.Time, transport.Endpoint) {
	wp := d.engine.Peer(k)
	if wp == nil {
		return time.Time{}, transport.Endpoint{}
	}
	at, src := wp.LastHeard(), wp.HeardFrom()
	if at == 0 || src == nil {
		return time.Time{}, transport.Endpoint{}
	}
	return d.wallClock(at), endpointOf(src)
}

// wallClock returns the time of a tick.
func (d *Dataplane) wallClock(t wireguard.Tick) time.Time {
	return time.Now().Add(-time.Duration(d.engine.Now() - t))
}

// A PeerStatus is what the pipeline knows of a peer at one moment.
type PeerStatus struct {
	Key              key.NodePublic
	Path             Path
	LastHandshake    time.Time // zero: never
	LastHeard        time.Time // last authenticated packet; zero: never
	LastSent         time.Time // last packet to it; zero: never
	TxBytes, RxBytes uint64    // of datagrams, tunnel overhead included
}

// Peer returns the status of a peer; false when there is no such peer, or it has
// no record in the tunnel yet.
func (d *Dataplane) Peer(k key.NodePublic) (PeerStatus, bool) {
	wp := d.engine.Peer(k)
	if wp == nil {
		return PeerStatus{}, false
	}
	s := PeerStatus{Key: k, LastHandshake: wp.LastHandshake(), TxBytes: wp.TxBytes(), RxBytes: wp.RxBytes()}
	if heard := wp.LastHeard(); heard != 0 {
		s.LastHeard = d.wallClock(heard)
	}
	if sent := wp.LastSent(); sent != 0 {
		s.LastSent = d.wallClock(sent)
	}
	if p := peerOf(wp); p != nil {
		s.Path = p.current()
	}
	return s, true
}

// peer returns our record of a peer the tunnel knows.
func (d *Dataplane) peer(k key.NodePublic) *peer {
	if wp := d.engine.Peer(k); wp != nil {
		return peerOf(wp)
	}
	return nil
}

// peerOf returns our record behind a tunnel's peer.
func peerOf(wp *wireguard.Peer) *peer {
	p, _ := wp.Owner.(*peer)
	return p
}
