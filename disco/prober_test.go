package disco

import (
	"net/netip"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport"
)

// idleProber returns a prober that Serve does not run.
func idleProber() *Prober {
	return NewProber(Config{Disco: key.NewDisco(), Node: nodeKey("self"), Netmap: actor.NewCell[*netmap.Netmap](nil)})
}

// TestFullInbox: what does not fit is dropped and counted, and a flood of frames
// leaves room for what the data plane says.
func TestFullInbox(t *testing.T) {
	p := idleProber()
	for range frameRoom + 10 {
		p.Receive(direct(addrB), false, []byte("frame"))
	}
	for range eventRoom {
		p.Sending(nodeKey("b"))
	}
	c := p.Stats()
	if c[DroppedFull] != 10 || c[DroppedEvents] != 0 {
		t.Errorf("%d frames and %d events dropped, want 10 and none", c[DroppedFull], c[DroppedEvents])
	}
	p.Unreachable(nodeKey("b"), direct(addrB))
	p.Learned(nodeKey("b"), discoKey(1))
	p.HeardFrom(nodeKey("b"), direct(addrB))
	p.Rebound()
	if c := p.Stats(); c[DroppedEvents] != 4 {
		t.Errorf("%d events dropped, want 4", c[DroppedEvents])
	}
}

// TestBorrowedFrame: a frame is the caller's again when Receive returns, whatever
// its size, and its source is unmapped.
func TestBorrowedFrame(t *testing.T) {
	p := idleProber()
	for _, size := range []int{0, 1, usualFrame, usualFrame + 1, MaxPing, 5} {
		frame := run(1, size)
		p.Receive(direct(netip.MustParseAddrPort("[::ffff:192.0.2.2]:1")), true, frame)
		clear(frame)
		f := <-p.frames
		if string(f.frame()) != string(run(1, size)) || !f.control || f.from != direct(addrB) {
			t.Errorf("%d bytes: %d bytes from %+v, control %v", size, len(f.frame()), f.from, f.control)
		}
		f.free()
	}
}

// TestNoAllocations: what the packet path calls costs none, nor does handling it
// while a path is trusted.
func TestNoAllocations(t *testing.T) {
	p := idleProber()
	k, from, frame := nodeKey("b"), direct(addrB), run(1, PingFrame)
	if n := testing.AllocsPerRun(1000, func() {
		p.Sending(k)
		free(<-p.events)
		p.Receive(from, false, frame)
		(<-p.frames).free()
		p.PeerAt(from)
		p.Status(k)
	}); n > 0 && !raceEnabled {
		t.Errorf("%v allocations by the data plane, want none", n)
	}
	w := newAdmitWorld(t)
	w.trust(addrB)
	if n := testing.AllocsPerRun(1000, func() {
		w.st.onData(k, w.now)
		w.st.settle(w.now)
	}); n > 0 {
		t.Errorf("%v allocations for data sent, want none", n)
	}
}

// trust makes an address of b the path to it.
func (w *admitWorld) trust(a netip.AddrPort) {
	w.st.onData(nodeKey("b"), w.now)
	for _, s := range w.st.peers[nodeKey("b")].sent {
		w.st.onMessage(direct(a), w.b.Public(), &Pong{TxID: s.id}, w.now)
	}
	w.st.settle(w.now)
	w.st.take()
}

// TestPeerAt: attribution follows who was seen last, and goes with the record
// (PATH-17, PATH-18).
func TestPeerAt(t *testing.T) {
	w := newAdmitWorld(t)
	at := func(from transport.Endpoint) key.NodePublic {
		w.st.settle(w.now)
		k, _ := w.prober.PeerAt(from)
		return k
	}
	w.st.onHeardFrom(nodeKey("b"), direct(addrX), w.now)
	if at(direct(addrX)) != nodeKey("b") || at(overDERP(nodeKey("c"))) != nodeKey("c") {
		t.Error("not where it was heard from")
	}
	if _, ok := w.prober.PeerAt(transport.Endpoint{Addr: addrX, VNI: 1}); ok {
		t.Error("a peer relay's address is attributed to a peer")
	}
	w.st.onHeardFrom(nodeKey("c"), direct(addrX), w.now)
	if at(direct(addrX)) != nodeKey("c") {
		t.Error("not who was heard from there last")
	}
	w.now = w.now.Add(forgetAfter)
	w.st.advance(w.now)
	if len(w.st.peers) != 0 || at(direct(addrX)) != (key.NodePublic{}) || w.prober.book.len() != 0 {
		t.Errorf("%d records and %d addresses after %v of silence", len(w.st.peers), w.prober.book.len(), forgetAfter)
	}
}

func TestCounterNames(t *testing.T) {
	seen := make(map[string]bool)
	for c := range Counts + 1 {
		if name := c.String(); name == "" || seen[name] {
			t.Errorf("counter %d is called %q", c, name)
		} else {
			seen[name] = true
		}
	}
}

func BenchmarkSending(b *testing.B) {
	p := idleProber()
	k := nodeKey("b")
	b.ReportAllocs()
	for b.Loop() {
		p.Sending(k)
		free(<-p.events)
	}
}

func BenchmarkReceive(b *testing.B) {
	own, peer := key.NewDisco(), key.NewDisco()
	p, secrets := idleProber(), newSecrets(own)
	st := newPaths(surroundings{node: nodeKey("self"), newTx: NewTxID, count: &p.count, book: &p.book, status: &p.status,
		heard: func(key.NodePublic) (time.Time, transport.Endpoint) { return time.Time{}, transport.Endpoint{} }})
	now := time.Unix(1e9, 0)
	st.onNetmap(&netmap.Netmap{Peers: []*netmap.Peer{{ID: 1, Key: nodeKey("b"), Disco: peer.Public(), HomeDERP: 1}}}, now)
	shared := peer.Shared(own.Public())
	frame := Seal(peer.Public(), &shared, &Pong{TxID: NewTxID(), Src: addrB})
	b.ReportAllocs()
	for b.Loop() {
		p.Receive(direct(addrB), false, frame)
		f := <-p.frames
		st.onFrame(f.from, f.control, f.frame(), secrets, now)
		f.free()
		st.settle(now)
	}
}
