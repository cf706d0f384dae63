package dataplane

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A cable is a link without a stack: tests put packets in and look at what comes
// out.
type cable struct {
	ready    chan struct{}
	attached atomic.Int32
	panics   atomic.Int32  // how many calls of Next will panic
	arrived  chan struct{} // unless nil, signalled when something was delivered

	mu       sync.Mutex
	queue    []packet.Outbound
	out      int // taken by Next and not given back
	received [][]byte
	injected [][]byte
}

func newCable() *cable { return &cable{ready: make(chan struct{}, 1)} }

func (c *cable) Attach() (detach func()) {
	c.attached.Add(1)
	return func() { c.attached.Add(-1) }
}

func (c *cable) Next(b []packet.Outbound) int {
	if c.panics.Load() > 0 && c.panics.Add(-1) >= 0 {
		panic("cable: as ordered")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := copy(b, c.queue)
	c.queue = c.queue[n:]
	c.out += n
	return n
}

func (c *cable) Done(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out -= n
}

func (c *cable) Ready() <-chan struct{} { return c.ready }

func (c *cable) Inject(pkt []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.injected = append(c.injected, bytes.Clone(pkt))
}

// put queues packets as an application would.
func (c *cable) put(pkts ...[]byte) {
	c.mu.Lock()
	for _, p := range pkts {
		c.queue = append(c.queue, packet.Outbound{Head: p})
	}
	c.mu.Unlock()
	select {
	case c.ready <- struct{}{}:
	default:
	}
}

// take returns what was delivered since the last take.
func (c *cable) take() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	got := c.received
	c.received = nil
	return got
}

func (c *cable) takeInjected() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	got := c.injected
	c.injected = nil
	return got
}

// A cableEnd is the cable's Delivery.
type cableEnd struct {
	c         *cable
	mem       []byte
	committed [][]byte
}

func (e *cableEnd) Reserve(n int) []byte {
	if cap(e.mem) < n {
		e.mem = make([]byte, n)
	}
	return e.mem[:n]
}

func (e *cableEnd) Commit(m packet.Merged) {
	e.committed = append(e.committed, bytes.Clone(e.mem[:m.Len]))
}

func (e *cableEnd) Flush() {
	e.c.mu.Lock()
	defer e.c.mu.Unlock()
	e.c.received = append(e.c.received, e.committed...)
	if len(e.committed) > 0 && e.c.arrived != nil {
		select {
		case e.c.arrived <- struct{}{}:
		default:
		}
	}
	e.committed = e.committed[:0]
}

// A datagram is on its way between nodes.
type datagram struct {
	from transport.Endpoint
	b    []byte
}

// A wire joins nodes by relay (any region reaches a node by its key) and by UDP.
type wire struct {
	byKey map[key.NodePublic]*testNode
	byUDP map[netip.AddrPort]*testNode
}

// A testNode is a Dataplane on a wire, with a supervisor of the plainest kind.
type testNode struct {
	t        testing.TB
	d        *Dataplane
	cable    *cable
	wire     *wire
	key      key.NodePublic
	addr     netip.Addr
	udp      netip.AddrPort
	netmap   *actor.Cell[*netmap.Netmap]
	policy   *actor.Cell[*Policy]
	in       chan datagram
	restarts atomic.Int32

	mu   sync.Mutex
	sent []transport.Endpoint // where datagrams went
	seen []string             // calls of hooks
}

func (n *testNode) Send(to transport.Endpoint, bursts []packet.Burst) error {
	n.mu.Lock()
	n.sent = append(n.sent, to)
	n.mu.Unlock()
	peer, from := n.wire.byUDP[to.Addr], transport.Endpoint{Addr: n.udp}
	if to.IsDERP() {
		peer, from = n.wire.byKey[to.Key], transport.Endpoint{Region: to.Region, Key: n.key}
	}
	if peer == nil {
		return fmt.Errorf("nobody at %+v: %w", to, transport.ErrUnreachable)
	}
	for _, b := range bursts {
		for i := range b.Count {
			peer.in <- datagram{from, bytes.Clone(b.Datagram(i))}
		}
	}
	return nil
}

func (n *testNode) note(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.seen = append(n.seen, fmt.Sprintf(format, args...))
}

// hooks returns the calls of hooks since the last time.
func (n *testNode) hooks() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	got := n.seen
	n.seen = nil
	return got
}

// run starts the services, each restarted when it ends, and the reader of the
// wire.
func (n *testNode) run(ctx context.Context, wg *sync.WaitGroup) {
	for _, s := range n.d.Services() {
		wg.Go(func() {
			for ctx.Err() == nil {
				// A supervisor takes every end of a service as a reason to start it
				// again; which one it was does not matter.
				_ = actor.Guard(ctx, s.Serve)
				n.restarts.Add(1)
			}
		})
	}
	r := n.d.NewReceiver()
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case m := <-n.in:
				r.Receive(m.from, m.b, 0, 0)
				r.Flush()
			}
		}
	})
}

const openRules = `*`

// testNodes makes two nodes that know each other: 100.64.0.1 with peerAPI and
// 100.64.0.2. edit may change what they are made of.
func testNodes(t testing.TB, edit func(i int, c *Config)) (nodes [2]*testNode, stop func()) {
	w := &wire{byKey: map[key.NodePublic]*testNode{}, byUDP: map[netip.AddrPort]*testNode{}}
	private := [2]key.NodePrivate{key.NewNode(), key.NewNode()}
	for i := range nodes {
		n := &testNode{
			t: t, cable: newCable(), wire: w, key: private[i].Public(), in: make(chan datagram, 4096),
			addr: netip.AddrFrom4([4]byte{100, 64, 0, byte(i + 1)}), udp: netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), 41641),
			netmap: actor.NewCell[*netmap.Netmap](nil), policy: actor.NewCell(&Policy{PeerAPI4: 4000, PeerAPI6: 6000}),
		}
		c := Config{
			Private: private[i], Links: []Link{n.cable}, NewDelivery: func() Delivery { return &cableEnd{c: n.cable} }, Underlay: n, Netmap: n.netmap, Policy: n.policy,
			Disco: key.DiscoPublicFromRaw([32]byte{0xd0, byte(i + 1)}),
			Hooks: Hooks{
				Rejected: func(r packet.Reject) { n.note("rejected %v to %v: %v", r.Src, r.Dst, r.Reason) },
				Pong:     func(from netip.Addr, data [8]byte, port uint16) { n.note("pong %v %s %d", from, data[:], port) },
				DiscoKey: func(_ key.NodePublic, k key.DiscoPublic) {
					raw := k.Raw()
					n.note("disco %x", raw[:2])
				},
				Disco: func(from transport.Endpoint, control bool, b []byte) {
					n.note("frame of %d from region %d vni %d, control %v", len(b), from.Region, from.VNI, control)
				},
				STUN: func(from netip.AddrPort, b []byte) { n.note("stun %d", len(b)) },
			},
		}
		if edit != nil {
			edit(i, &c)
		}
		d, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		n.d = d
		nodes[i], w.byKey[n.key], w.byUDP[n.udp] = n, n, n
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, n := range nodes {
		n.run(ctx, &wg)
	}
	return nodes, func() { cancel(); wg.Wait() }
}

// self returns the node's own record, and how others see it.
func (n *testNode) self() *netmap.Peer {
	six := netip.AddrFrom16([16]byte{0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0, 15: n.addr.As4()[3]})
	addrs := []netip.Prefix{netip.PrefixFrom(n.addr, 32), netip.PrefixFrom(six, 128)}
	return &netmap.Peer{
		ID: netmap.NodeID(n.addr.As4()[3]), StableID: netmap.StableID(n.addr.String()), Key: n.key, Addresses: addrs, AllowedIPs: addrs, HomeDERP: int(n.addr.As4()[3]),
	}
}

// learn gives n a network map with peers and the open rule.
func (n *testNode) learn(peers ...*netmap.Peer) { n.learnRules(openRules, peers...) }

// learnRules does so with all ports open to src, to nobody when it is empty.
func (n *testNode) learnRules(src string, peers ...*netmap.Peer) {
	nm := &netmap.Netmap{Self: n.self(), Peers: peers}
	if src != "" {
		nm.Filter = []netmap.FilterRule{{SrcIPs: []string{src}, DstPorts: []netmap.NetPortRange{{IP: "*", Ports: netmap.PortRange{Last: 65535}}}}}
	}
	n.netmap.Store(nm)
}

// pair runs a test on two nodes with open rules, in a bubble of fake time.
func pair(t *testing.T, edit func(i int, c *Config), test func(t *testing.T, a, b *testNode)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		nodes, stop := testNodes(t, edit)
		defer stop()
		nodes[0].learn(nodes[1].self())
		nodes[1].learn(nodes[0].self())
		quiet()
		test(t, nodes[0], nodes[1])
	})
}

// quiet waits until everything that was begun is done. The time it lets pass is
// for a network map that waits for the tunnel; no timer of the tunnel is shorter.
func quiet() {
	time.Sleep(300 * time.Millisecond)
	synctest.Wait()
}

// send puts packets on n's link and waits until everything is quiet.
func (n *testNode) send(pkts ...[]byte) {
	n.cable.put(pkts...)
	quiet()
}

// wantReceived expects exactly these packets, in order.
func (n *testNode) wantReceived(t *testing.T, what string, pkts ...[]byte) {
	t.Helper()
	if got := n.cable.take(); !slices.EqualFunc(got, pkts, bytes.Equal) {
		t.Errorf("%s: %v received\n%x\nwant\n%x", what, n.addr, got, pkts)
	}
}

// wantHooks expects exactly these calls of hooks.
func (n *testNode) wantHooks(t *testing.T, what string, calls ...string) {
	t.Helper()
	if got := n.hooks(); !slices.Equal(got, calls) {
		t.Errorf("%s: hooks of %v\n got %q\nwant %q", what, n.addr, got, calls)
	}
}

// tcpPacket returns a TCP packet with valid checksums.
func tcpPacket(src, dst string, flags uint8, payload ...byte) []byte {
	t := make([]byte, 20, 20+len(payload))
	t[12], t[13] = 5<<4, flags
	return ipPacket(packet.TCP, src, dst, append(t, payload...))
}

// udpPacket returns a UDP packet with valid checksums.
func udpPacket(src, dst string, payload ...byte) []byte {
	t := make([]byte, 8, 8+len(payload))
	t[4], t[5] = byte((8+len(payload))>>8), byte(8+len(payload))
	return ipPacket(packet.UDP, src, dst, append(t, payload...))
}

func ipPacket(proto packet.Proto, from, to string, t []byte) []byte {
	src, dst := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	t[0], t[1], t[2], t[3] = byte(src.Port()>>8), byte(src.Port()), byte(dst.Port()>>8), byte(dst.Port())
	b, err := packet.AppendIP(nil, src.Addr(), dst.Addr(), proto, len(t))
	if err != nil {
		panic(err)
	}
	b = append(b, t...)
	var h packet.Header
	h.Parse(b)
	h.SetChecksum(b)
	return b
}
