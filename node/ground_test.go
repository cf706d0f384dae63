package node

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/dataplane"
	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/internal/simnet"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/transport"
)

// A ground is a tailnet on a simulated internet.
type ground struct {
	t       testing.TB
	net     *simnet.Internet
	server  *simnet.Host // control, relay and STUN
	tailnet *devnet.Net
	members []*member
}

// newGround starts a tailnet whose server is 10 ms away from everybody.
func newGround(t testing.TB, c devnet.Config) *ground {
	t.Helper()
	g := &ground{t: t, net: simnet.New(1)}
	g.server = g.net.AddHost("server", simnet.HostConfig{Link: simnet.Conditions{Delay: 10 * time.Millisecond}})
	c.Network, c.HostName, c.Listen = g.server, "devnet.test", netip.AddrPortFrom(netip.IPv6Unspecified(), 0).String()
	g.net.SetName(c.HostName, g.server.Addrs()...)
	tailnet, err := devnet.Start(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	g.tailnet = tailnet
	return g
}

// close ends all that the ground has started.
func (g *ground) close() {
	var closing sync.WaitGroup
	for _, m := range g.members {
		closing.Go(func() { m.Close() })
	}
	closing.Wait()
	if err := g.tailnet.Close(); err != nil {
		g.t.Errorf("devnet: %v", err)
	}
	g.net.Close()
}

// onGround runs a test in a bubble, on a ground of its own.
func onGround(t *testing.T, test func(t *testing.T, g *ground)) {
	t.Helper()
	synctestGround(t, devnet.Config{}, test)
}

func synctestGround(t *testing.T, c devnet.Config, test func(t *testing.T, g *ground)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := newGround(t, c)
		defer g.close()
		test(t, g)
	})
}

// A member is a node without netstack on a host of the ground.
type member struct {
	*Node
	g    *ground
	tube *tube
	host *simnet.Host
	addr netip.Addr
}

// join starts a node on a host and waits until it runs.
func (g *ground) join(h *simnet.Host, edit ...func(*Node)) *member {
	g.t.Helper()
	m := g.start(h, edit...)
	m.up()
	return m
}

// start starts a node on a host.
func (g *ground) start(h *simnet.Host, edit ...func(*Node)) *member {
	m := &member{g: g, tube: newTube(), host: h}
	m.Node = &Node{
		Hostname: fmt.Sprintf("n%d", len(g.members)), ControlURL: g.tailnet.URL(), Network: h,
		AuthKey: g.tailnet.AuthKey(devnet.KeyOptions{}),
		Proxy:   func(*http.Request) (*url.URL, error) { return nil, nil },
		seams:   seams{overlay: &overlay{links: []dataplane.Link{m.tube}, newDelivery: func() dataplane.Delivery { return &tubeEnd{tube: m.tube} }}},
	}
	for _, f := range edit {
		f(m.Node)
	}
	g.members = append(g.members, m)
	return m
}

// up waits until the member runs.
func (m *member) up() {
	m.g.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	st, err := m.Up(ctx)
	if err != nil {
		m.g.t.Fatal(err)
	}
	m.addr = st.TailscaleIPs[0]
}

// path is where m's packets for another member go; also is set while they go two
// ways.
func (m *member) path(to *member) (best, also transport.Endpoint) {
	peer, ok := m.run.peerFor(to.addr)
	if !ok {
		return best, also
	}
	st, _ := m.run.plane.Load().data.Peer(peer.Key)
	return st.Path.Best, st.Path.Also
}

// direct reports whether m's packets for another member go over UDP alone.
func (m *member) direct(to *member) bool {
	best, also := m.path(to)
	return best.Addr.IsValid() && also.IsZero()
}

// A tube is an overlay that ends in a test: it sends what flows want to send and
// notes what comes.
type tube struct {
	ready chan struct{}

	mu    sync.Mutex
	queue []packet.Outbound
	flows map[uint16]*flowLog // by destination port
}

func newTube() *tube { return &tube{ready: make(chan struct{}, 1), flows: make(map[uint16]*flowLog)} }

func (*tube) Attach() (detach func())  { return func() {} }
func (*tube) Done(int)                 {}
func (t *tube) Ready() <-chan struct{} { return t.ready }
func (*tube) Inject([]byte)            {}

func (t *tube) Next(b []packet.Outbound) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := copy(b, t.queue)
	t.queue = t.queue[n:]
	return n
}

func (t *tube) put(pkt []byte) {
	t.mu.Lock()
	t.queue = append(t.queue, packet.Outbound{Head: pkt})
	t.mu.Unlock()
	select {
	case t.ready <- struct{}{}:
	default:
	}
}

// A tubeEnd is the tube's Delivery.
type tubeEnd struct {
	tube *tube
	mem  []byte
	got  [][]byte
}

func (e *tubeEnd) Reserve(n int) []byte {
	if cap(e.mem) < n {
		e.mem = make([]byte, n)
	}
	return e.mem[:n]
}

func (e *tubeEnd) Commit(m packet.Merged) { e.got = append(e.got, bytes.Clone(e.mem[:m.Len])) }

func (e *tubeEnd) Flush() {
	e.tube.mu.Lock()
	defer e.tube.mu.Unlock()
	for _, pkt := range e.got {
		var h packet.Header
		h.Parse(pkt)
		if f := e.tube.flows[h.Dst.Port()]; f != nil {
			f.note(binary.BigEndian.Uint32(pkt[h.Transport+8:]), time.Now())
		}
	}
	e.got = e.got[:0]
}

// A flowLog is what has arrived of a flow of numbered packets.
type flowLog struct {
	sent       int
	sentAt     []time.Time
	seen       map[uint32]int // by number, how often
	duplicates int
	arrived    []time.Time // first of each number, in the order of arrival
}

func (f *flowLog) note(seq uint32, now time.Time) {
	f.seen[seq]++
	if f.seen[seq] > 1 {
		f.duplicates++
		return
	}
	f.arrived = append(f.arrived, now)
}

// lost is how many packets sent by then have not arrived.
func (f *flowLog) lost() int { return f.sent - len(f.seen) }

// quiet is the longest time without an arrival from the first one on.
func (f *flowLog) quiet() (longest time.Duration) {
	for i := 1; i < len(f.arrived); i++ {
		longest = max(longest, f.arrived[i].Sub(f.arrived[i-1]))
	}
	return longest
}

// A testFlow sends numbered packets until stop.
type testFlow struct {
	*flowLog
	at   *tube
	port uint16
	stop func()
}

// send sends a numbered UDP packet every so often, from m to another member.
func (m *member) send(to *member, port uint16, every time.Duration) *testFlow {
	log := &flowLog{seen: make(map[uint32]int)}
	to.tube.mu.Lock()
	to.tube.flows[port] = log
	to.tube.mu.Unlock()
	done := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for seq := uint32(0); ; seq++ {
			to.tube.mu.Lock()
			log.sent++
			log.sentAt = append(log.sentAt, time.Now())
			to.tube.mu.Unlock()
			m.tube.put(numbered(m.addr, to.addr, port, seq))
			select {
			case <-tick.C:
			case <-done:
				return
			}
		}
	})
	var once sync.Once
	return &testFlow{log, to.tube, port, func() { once.Do(func() { close(done) }); sending.Wait() }}
}

// numbered returns a UDP packet that carries a number.
func numbered(src, dst netip.Addr, port uint16, seq uint32) []byte {
	udp := make([]byte, 8+4, 8+200)
	binary.BigEndian.PutUint16(udp, port)
	binary.BigEndian.PutUint16(udp[2:], port)
	binary.BigEndian.PutUint16(udp[4:], uint16(cap(udp)))
	binary.BigEndian.PutUint32(udp[8:], seq)
	udp = udp[:cap(udp)]
	pkt, err := packet.AppendIP(nil, src, dst, packet.UDP, len(udp))
	if err != nil {
		panic(err)
	}
	pkt = append(pkt, udp...)
	return pkt
}

func addrPort(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

// until waits for a condition in steps of 10 ms and returns how long it took.
func until(t testing.TB, limit time.Duration, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > limit {
			t.Errorf("not within %v", limit)
			return limit
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}
