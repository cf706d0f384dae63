package disco

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport"
)

// A fuzzWorld is a state machine under arbitrary events, and what must hold of
// it. Peers b and c speak disco and share no key, p is a plain WireGuard peer.
type fuzzWorld struct {
	t       *testing.T
	st      *paths
	secrets *secrets
	now     time.Time
	count   counters
	book    addrBook
	status  statusBook
	heardAt time.Time
	heardOf transport.Endpoint

	asked  map[TxID]fuzzPing       // pings sent
	ponged map[netip.AddrPort]bool // addresses that answered one in time
	paths  map[key.NodePublic]*Path
}

type fuzzPing struct {
	to    netip.AddrPort
	disco key.DiscoPublic
	at    time.Time
}

var fuzzNames = []string{"b", "c", "p", "stranger"}

func newFuzzWorld(t *testing.T) *fuzzWorld {
	w := &fuzzWorld{
		t: t, now: time.Unix(1e9, 0), asked: make(map[TxID]fuzzPing), ponged: make(map[netip.AddrPort]bool),
		paths: make(map[key.NodePublic]*Path), secrets: newSecrets(privateKey(t, privateA)),
	}
	w.book.shard, w.status.shard = shardOfAddr, shardOfKey
	w.st = newPaths(surroundings{
		node: nodeKey("self"), newTx: NewTxID, pick: func(int) int { return 0 }, count: &w.count, book: &w.book, status: &w.status,
		heard: func(key.NodePublic) (time.Time, transport.Endpoint) { return w.heardAt, w.heardOf },
	})
	w.setMap(0)
	return w
}

func (w *fuzzWorld) setMap(bits byte) {
	nm := new(netmap.Netmap)
	for i, name := range fuzzNames[:3] {
		n := &netmap.Peer{ID: netmap.NodeID(i), Key: nodeKey(name), HomeDERP: int(bits & 3), Endpoints: []netip.AddrPort{w.addr(bits), w.addr(bits + 1)}}
		n.WireGuardOnly = name == "p"
		n.Disco = key.DiscoPublicFromRaw(namedKey("disco", name+string('0'+bits>>6)))
		if bits>>2&3 != byte(i) {
			nm.Peers = append(nm.Peers, n)
		}
	}
	w.st.onNetmap(nm, w.now)
}

func (w *fuzzWorld) addr(b byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, b}), uint16(1+b&1))
}

func (w *fuzzWorld) from(b byte) transport.Endpoint {
	if b&3 == 0 {
		return transport.Endpoint{Region: uint16(1 + b>>6), Key: nodeKey(fuzzNames[b>>2&3])}
	}
	return direct(w.addr(b))
}

// event does what three bytes say.
func (w *fuzzWorld) event(op, x, y byte) {
	k := nodeKey(fuzzNames[x&3])
	switch op % 12 {
	case 0:
		w.now = w.now.Add(time.Duration(x) * time.Duration(y) * time.Millisecond)
	case 1:
		w.st.onData(k, w.now)
	case 2, 3:
		w.message(x, y)
	case 4:
		w.st.onUnreachable(k, w.from(y))
	case 5:
		w.heardAt, w.heardOf = w.now, w.from(y)
		w.st.onHeardFrom(k, w.from(y), w.now)
	case 6:
		w.st.onRebound(w.now)
	case 7:
		w.setMap(x)
	case 8:
		w.st.onOptions(Options{SilentDisco: x&1 != 0, OnlyTCP443: x&2 != 0, ProbeMTU: x&4 != 0, NoHeartbeat: x&8 != 0}, w.now)
	case 9:
		w.st.onQuestion(k, int(y)<<8, &question{answer: make(chan userAnswer, 1)}, w.now)
	case 10:
		w.st.onLearned(k, key.DiscoPublicFromRaw(namedKey("disco", fuzzNames[x&3]+string('0'+y&3))), w.now)
	case 11:
		w.st.onEndpoints([]netip.AddrPort{w.addr(x)}, w.now, w.now)
		w.st.onEcho(k, w.addr(y), time.Duration(x)*time.Millisecond, w.now)
	}
}

// message lets a message come in from a peer that is proven: an answer to one of
// our pings, or something else.
func (w *fuzzWorld) message(x, y byte) {
	sender := key.DiscoPublicFromRaw(namedKey("disco", fuzzNames[x&1]+string('0'+x>>6)))
	if !w.st.roster.knows(sender) {
		return
	}
	var m Message = &CallMeMaybe{Endpoints: []netip.AddrPort{w.addr(y), w.addr(y + 7)}}
	switch x >> 1 & 3 {
	case 0:
		m = &Ping{TxID: TxID{y}, NodeKey: nodeKey(fuzzNames[y&3])}
	case 1, 2:
		id := w.anyPing(y)
		p := w.asked[id]
		if w.now.Sub(p.at) < pingTimeout && owner(p.disco) == owner(sender) {
			w.ponged[p.to] = true
		}
		m = &Pong{TxID: id}
	}
	w.st.onMessage(w.from(y), sender, m, w.now)
}

// owner returns the first letter of the name of the peer whose disco key d is or
// was: a peer may have another key by the time it answers.
func owner(d key.DiscoPublic) byte {
	raw := d.Raw()
	return raw[0]
}

// anyPing returns a ping sent, chosen by n.
func (w *fuzzWorld) anyPing(n byte) (id TxID) {
	ids := make([]TxID, 0, len(w.asked))
	for id := range w.asked {
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return id
	}
	slices.SortFunc(ids, func(a, b TxID) int { return w.asked[a].at.Compare(w.asked[b].at) })
	return ids[max(0, len(ids)-1-int(n)%8)]
}

func (w *fuzzWorld) flush() {
	w.st.settle(w.now)
	for _, a := range w.st.take() {
		switch a := a.(type) {
		case sending:
			if m, ok := a.msg.(*Ping); ok {
				w.asked[m.TxID] = fuzzPing{a.to.Addr, a.disco, w.now}
			}
			if a.disco.IsZero() || !a.to.IsDERP() && (!a.to.Addr.IsValid() || w.st.options.OnlyTCP443) {
				w.t.Fatalf("%+v is to be sent to %+v", a.msg, a.to)
			}
		case routing:
			w.paths[a.peer] = a.path
		}
	}
}

// check checks what must hold at any time.
func (w *fuzzWorld) check() {
	for k, p := range w.paths {
		if p == nil || k == nodeKey("p") {
			continue
		}
		if !w.ponged[p.Best.Addr] {
			w.t.Fatalf("path %+v without a pong (PATH-18)", p)
		}
	}
	for _, p := range w.st.peers {
		if len(p.candidates) > maxCandidates || len(p.source.mapped) > maxMapped {
			w.t.Fatalf("%d candidates, %d addresses", len(p.candidates), len(p.source.mapped))
		}
		if !p.best.isZero() && p.find(p.best.addr) == nil {
			w.t.Fatalf("the path in use %v is no candidate (PATH-43)", p.best.addr)
		}
		if p.slot < 0 || !p.due.After(w.now) {
			w.t.Fatalf("due %v at %v, slot %d", p.due, w.now, p.slot)
		}
	}
	if w.status.len() != len(w.st.peers) || len(w.st.peers) > 3 {
		w.t.Fatalf("%d records, %d with status", len(w.st.peers), w.status.len())
	}
}

// FuzzPaths feeds events and messages of authenticated peers to the state machine:
// there is never a path without a pong, nothing grows without bound, and time goes
// on.
func FuzzPaths(f *testing.F) {
	f.Add([]byte{1, 0, 0, 2, 2, 1, 1, 0, 0, 0, 100, 100, 6, 0, 0, 7, 9, 9})
	f.Add([]byte{1, 2, 0, 11, 30, 0, 5, 2, 1, 8, 15, 0, 9, 0, 5, 10, 0, 2})
	f.Add(binary.BigEndian.AppendUint64(nil, 0x0206050203040209))
	f.Fuzz(func(t *testing.T, script []byte) {
		w := newFuzzWorld(t)
		script = script[:min(len(script), 3*200)]
		for ; len(script) >= 3 && len(w.asked) < 1000; script = script[3:] {
			w.event(script[0], script[1], script[2])
			w.flush()
			w.st.advance(w.now)
			w.flush()
			w.check()
		}
	})
}

// FuzzFrame feeds frames of anyone, from anywhere: they leave no path, and no
// record unless they open.
func FuzzFrame(f *testing.F) {
	b := privateKey(f, privateB)
	shared := b.Shared(privateKey(f, privateA).Public())
	f.Add(byte(0), unhex(f, frameAB))
	for i, v := range vectors {
		f.Add(byte(i), Seal(b.Public(), &shared, v.m))
	}
	f.Fuzz(func(t *testing.T, from byte, frame []byte) {
		w := newFuzzWorld(t)
		n := &netmap.Peer{ID: 1, Key: nodeKey("b"), Disco: b.Public(), HomeDERP: 1}
		w.st.onNetmap(&netmap.Netmap{Peers: []*netmap.Peer{n}}, w.now)
		w.st.onFrame(w.from(from), from&64 != 0, frame, w.secrets, w.now)
		w.flush()
		if _, err := Open(&shared, frame); err != nil && len(w.st.peers) > 0 {
			t.Fatal("a record of a frame that does not open")
		}
		if len(w.paths) > 0 {
			t.Fatal("a path without a pong")
		}
	})
}
