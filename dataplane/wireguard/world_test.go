package wireguard

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

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
