package wireguard

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/packet"
)

// An engineNode is one end of a tunnel in a world: an Engine, or upstream's
// Device.
type engineNode interface {
	take(b []byte)       // a datagram arrives
	send(pkts ...[]byte) // the application sends packets
	close()
}

// An engineWorld is two nodes, "a" and "b", with a wire between them, in a bubble
// of fake time. The wire may lose, delay and duplicate, by the kind of message.
type engineWorld struct {
	t     *testing.T
	start time.Time
	keys  map[string]key.NodePrivate
	delay time.Duration

	mu       sync.Mutex
	nodes    map[string]engineNode
	lines    []engineLine
	got      map[string][][]byte // packets that arrived at each node's application
	recorded map[string][][]byte // datagrams by kind and direction, such as "a>b initiation"
	rule     func(route, kind string) []time.Duration
	flights  []engineFlight
	sent     chan struct{} // flights has changed
	closed   chan struct{}
}

// An engineLine is something that was seen at a time.
type engineLine struct {
	at   time.Duration
	text string
}

const engineRTT = 60 * time.Millisecond

// engineTest runs a test in a world with nodes made by the functions given.
func engineTest(t *testing.T, a, b func(w *engineWorld, name string) engineNode, test func(w *engineWorld)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newEngineWorld(t)
		defer w.close()
		w.put("a", a(w, "a"))
		w.put("b", b(w, "b"))
		go w.carry()
		synctest.Wait()
		test(w)
	})
}

func newEngineWorld(t *testing.T) *engineWorld {
	return &engineWorld{
		t: t, start: time.Now(), delay: engineRTT / 2, nodes: map[string]engineNode{},
		got: map[string][][]byte{}, recorded: map[string][][]byte{}, sent: make(chan struct{}, 1), closed: make(chan struct{}),
		keys: map[string]key.NodePrivate{
			"a": key.NodePrivateFromRaw([32]byte(bytes.Repeat([]byte{0x10}, 32))),
			"b": key.NodePrivateFromRaw([32]byte(bytes.Repeat([]byte{0x20}, 32))),
		},
	}
}

func (w *engineWorld) put(name string, n engineNode) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.nodes[name] = n
}

func (w *engineWorld) node(name string) engineNode {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.nodes[name]
}

func (w *engineWorld) close() {
	close(w.closed)
	for _, name := range []string{"a", "b"} {
		if n := w.node(name); n != nil {
			n.close()
		}
	}
	synctest.Wait()
}

func (w *engineWorld) now() time.Duration { return time.Since(w.start) }

// sleep lets time pass and waits until all that is due has happened.
func (w *engineWorld) sleep(d time.Duration) {
	w.fence()
	time.Sleep(d)
	synctest.Wait()
}

// fence orders what the test has written before what the wire reads.
func (w *engineWorld) fence() {
	w.mu.Lock()
	defer w.mu.Unlock()
}

// until lets time pass up to an age of the world.
func (w *engineWorld) until(at time.Duration) { w.sleep(at - w.now()) }

func other(name string) string { return map[string]string{"a": "b", "b": "a"}[name] }

// strangerIndex is the index of those who flood; what is sent to it is stray.
const strangerIndex = 1

// engineKind names a datagram.
func engineKind(b []byte) string {
	t, err := messageType(b)
	switch {
	case err != nil:
		return "junk"
	case t == typeInitiation:
		return "initiation"
	case t == typeResponse:
		return "response"
	case t == typeCookieReply && engineReceiver(b) == strangerIndex:
		return "stray"
	case t == typeCookieReply:
		return "cookie"
	case len(b) == keepaliveSize:
		return "keepalive"
	}
	return "data"
}

// transmit carries a datagram from a node to the other.
func (w *engineWorld) transmit(from string, b []byte) {
	to, kind := other(from), engineKind(b)
	route := from + ">" + to
	delays := []time.Duration{w.delay}
	w.mu.Lock()
	rule := w.rule
	w.recorded[route+" "+kind] = append(w.recorded[route+" "+kind], bytes.Clone(b))
	w.mu.Unlock()
	if rule != nil {
		delays = rule(route, kind)
	}
	text := route + " " + kind
	if len(delays) == 0 {
		text += " lost"
	}
	w.note("%s", text)
	w.mu.Lock()
	for _, d := range delays {
		w.flights = append(w.flights, engineFlight{time.Now().Add(d), to, bytes.Clone(b)})
	}
	slices.SortStableFunc(w.flights, func(x, y engineFlight) int { return x.at.Compare(y.at) })
	w.mu.Unlock()
	select {
	case w.sent <- struct{}{}:
	default:
	}
}

// An engineFlight is a datagram on its way.
type engineFlight struct {
	at time.Time
	to string
	b  []byte
}

// carry delivers datagrams, one after the other, in the order of their arrival.
func (w *engineWorld) carry() {
	for {
		wait := time.Hour
		w.mu.Lock()
		if len(w.flights) > 0 {
			f := w.flights[0]
			if wait = time.Until(f.at); wait <= 0 {
				w.flights = w.flights[1:]
				n := w.nodes[f.to]
				w.mu.Unlock()
				n.take(f.b)
				continue
			}
		}
		w.mu.Unlock()
		select {
		case <-w.closed:
			return
		case <-w.sent:
		case <-time.After(wait):
		}
	}
}

func (w *engineWorld) setRule(rule func(route, kind string) []time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rule = rule
}

// lose loses what matches, and passes everything else.
func (w *engineWorld) lose(match func(route, kind string) bool) {
	w.setRule(func(route, kind string) []time.Duration {
		if match(route, kind) {
			return nil
		}
		return []time.Duration{w.delay}
	})
}

func (w *engineWorld) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines = append(w.lines, engineLine{time.Since(w.start), fmt.Sprintf(format, args...)})
}

// deliver notes a packet that arrived at an application.
func (w *engineWorld) deliver(name string, pkt []byte) {
	w.mu.Lock()
	w.got[name] = append(w.got[name], bytes.Clone(pkt))
	w.mu.Unlock()
	w.note("%s gets %s", name, engineTextOf(pkt))
}

// arrived returns the texts of the packets that arrived at a node so far.
func (w *engineWorld) arrived(name string) (texts []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.got[name] {
		texts = append(texts, engineTextOf(p))
	}
	return texts
}

// times returns when lines with this text were seen.
func (w *engineWorld) times(text string) (at []time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.lines {
		if l.text == text {
			at = append(at, l.at)
		}
	}
	return at
}

// seen returns how often a line was seen.
func (w *engineWorld) seen(text string) int { return len(w.times(text)) }

// datagrams returns what went over the wire, such as "a>b initiation".
func (w *engineWorld) datagrams(what string) [][]byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.recorded[what])
}

// transcript returns what was seen; lines of the same time are sorted.
func (w *engineWorld) transcript() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	lines := slices.Clone(w.lines)
	slices.SortStableFunc(lines, func(x, y engineLine) int {
		if x.at != y.at {
			return int(x.at - y.at)
		}
		return strings.Compare(x.text, y.text)
	})
	var b strings.Builder
	for _, l := range lines {
		fmt.Fprintf(&b, "%9.3f %s\n", l.at.Seconds(), l.text)
	}
	return b.String()
}

// story is the transcript for an error: without data, and not its beginning.
func (w *engineWorld) story() string {
	var lines []string
	for line := range strings.Lines(w.transcript()) {
		repeated := len(lines) > 0 && lines[len(lines)-1] == line
		if !repeated && !strings.Contains(line, " data") && !strings.Contains(line, " gets ") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-40):], "")
}

// wantArrived expects exactly these packets at a node, in order.
func (w *engineWorld) wantArrived(name string, texts ...string) {
	w.t.Helper()
	if got := w.arrived(name); !slices.Equal(got, texts) {
		w.t.Errorf("%s got %q, want %q\n%s", name, got, texts, w.story())
	}
}

// wantTimes expects lines with a text at these times, each at most within later
// than said.
func (w *engineWorld) wantTimes(text string, within time.Duration, want ...time.Duration) {
	w.t.Helper()
	got := w.times(text)
	ok := len(got) == len(want)
	for i := 0; ok && i < len(got); i++ {
		ok = got[i] >= want[i] && got[i] <= want[i]+within
	}
	if !ok {
		w.t.Errorf("%q was seen at %v, want %v (+%v)\n%s", text, got, want, within, w.story())
	}
}

func engineAddr(name string) netip.Addr {
	return netip.AddrFrom4([4]byte{100, 64, 0, name[0] - 'a' + 1})
}

// enginePacket returns an IPv4 packet of an experimental protocol (RFC 3692)
// from a node to the other that carries a text.
func enginePacket(from, text string) []byte {
	b, err := packet.AppendIP(nil, engineAddr(from), engineAddr(other(from)), 253, len(text))
	if err != nil {
		panic(err)
	}
	return append(b, text...)
}

func engineTextOf(pkt []byte) string {
	if len(pkt) < 20 {
		return fmt.Sprintf("%x", pkt)
	}
	if len(pkt) > 40 {
		return fmt.Sprintf("%.5s...%d", pkt[20:], len(pkt))
	}
	return string(pkt[20:])
}

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
		Send: func(_ *Peer, b packet.Burst) {
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
