package disco

import (
	"net/netip"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport"
)

// An admitWorld is a state machine that knows two peers whose private keys the
// test has.
type admitWorld struct {
	t       *testing.T
	st      *paths
	secrets *secrets
	own     key.DiscoPrivate
	b, c    key.DiscoPrivate
	prober  *Prober // whose counters, addresses and status it writes
	now     time.Time
}

var (
	addrB = netip.MustParseAddrPort("192.0.2.2:1")
	addrX = netip.MustParseAddrPort("203.0.113.66:6")
)

func newAdmitWorld(t *testing.T) *admitWorld {
	w := &admitWorld{t: t, own: key.NewDisco(), b: key.NewDisco(), c: key.NewDisco(), now: time.Unix(1e9, 0)}
	w.prober = idleProber()
	w.secrets = newSecrets(w.own)
	w.st = newPaths(surroundings{
		node: nodeKey("self"), newTx: NewTxID, pick: func(int) int { return 0 }, count: &w.prober.count, book: &w.prober.book, status: &w.prober.status,
		heard: func(key.NodePublic) (time.Time, transport.Endpoint) { return time.Time{}, transport.Endpoint{} },
	})
	w.st.onNetmap(&netmap.Netmap{Peers: []*netmap.Peer{
		{ID: 1, Key: nodeKey("b"), Disco: w.b.Public(), HomeDERP: 1, Endpoints: []netip.AddrPort{addrB}},
		{ID: 2, Key: nodeKey("c"), Disco: w.c.Public(), HomeDERP: 1},
		{ID: 3, Key: nodeKey("p"), WireGuardOnly: true},
	}}, w.now)
	return w
}

func (w *admitWorld) frame(by key.DiscoPrivate, to key.DiscoPublic, m Message) []byte {
	shared := by.Shared(to)
	return Seal(by.Public(), &shared, m)
}

// receive returns what one frame makes the state machine do.
func (w *admitWorld) receive(from transport.Endpoint, control bool, frame []byte) []action {
	w.st.onFrame(from, control, frame, w.secrets, w.now)
	w.st.settle(w.now)
	return w.st.take()
}

func overDERP(k key.NodePublic) transport.Endpoint { return transport.Endpoint{Region: 1, Key: k} }

// TestRefusals: none of these frames is answered, changes a path or leaves a
// record (PATH-05, PATH-12, acceptance scenario 9).
func TestRefusals(t *testing.T) {
	w := newAdmitWorld(t)
	stranger := key.NewDisco()
	us := w.own.Public()
	ping, call := &Ping{TxID: NewTxID(), NodeKey: nodeKey("b")}, &CallMeMaybe{Endpoints: []netip.AddrPort{addrX}}
	good := w.frame(w.b, us, ping)
	forged := append([]byte(nil), good...)
	forged[len(forged)-1] ^= 1
	zero := append([]byte(magic), make([]byte, key.Size+Overhead)...)
	for _, tt := range []struct {
		name    string
		from    transport.Endpoint
		control bool
		frame   []byte
		want    Counter
	}{
		{"ping of an unknown key", direct(addrX), false, w.frame(stranger, us, ping), DroppedUnknown},
		{"ping with our own key", direct(addrX), false, w.frame(w.own, us, ping), DroppedUnknown},
		{"zero key", direct(addrX), false, zero, DroppedMalformed},
		{"no frame", direct(addrX), false, []byte("nothing"), DroppedMalformed},
		{"sealed to another", direct(addrX), false, w.frame(w.b, stranger.Public(), ping), DroppedUnopened},
		{"one bit changed", direct(addrX), false, forged, DroppedUnopened},
		{"cut", direct(addrX), false, good[:60], DroppedUnopened},
		{"with control bit", direct(addrX), true, good, DroppedRelay},
		{"ping over DERP from a stranger's node", overDERP(nodeKey("z")), false, good, DroppedRefused},
		{"ping over DERP from a plain WireGuard peer", overDERP(nodeKey("p")), false, good, DroppedRefused},
		{"call over UDP", direct(addrB), false, w.frame(w.b, us, call), DroppedRefused},
		{"call from another peer's node", overDERP(nodeKey("c")), false, w.frame(w.b, us, call), DroppedRefused},
		{"call from a stranger's node", overDERP(nodeKey("z")), false, w.frame(w.b, us, call), DroppedRefused},
		{"pong that nobody asked for", direct(addrB), false, w.frame(w.b, us, &Pong{TxID: NewTxID(), Src: addrB}), DroppedUnasked},
		{"source without address", transport.Endpoint{}, false, good, DroppedRefused},
		{"bind", direct(addrB), false, w.frame(w.b, us, &Bind{BindStep{RemoteKey: us}}), DroppedRelay},
		{"challenge", direct(addrB), false, w.frame(w.b, us, &Challenge{BindStep{RemoteKey: us}}), DroppedRelay},
		{"answer", direct(addrB), false, w.frame(w.b, us, &Answer{BindStep{RemoteKey: us}}), DroppedRelay},
		{"call via a relay", overDERP(nodeKey("b")), false, w.frame(w.b, us, &CallMeMaybeVia{relayed}), DroppedRelay},
		{"allocate request", overDERP(nodeKey("b")), false, w.frame(w.b, us, &AllocateRequest{Clients: relayed.Clients}), DroppedRelay},
		{"allocate response", overDERP(nodeKey("b")), false, w.frame(w.b, us, &AllocateResponse{RelayEndpoint: relayed}), DroppedRelay},
	} {
		before := w.prober.count[tt.want].Load()
		if done := w.receive(tt.from, tt.control, tt.frame); len(done) != 0 {
			t.Errorf("%s: %+v", tt.name, done)
		}
		if n := w.prober.count[tt.want].Load() - before; n != 1 {
			t.Errorf("%s: %v counted %d times", tt.name, tt.want, n)
		}
	}
	if len(w.st.peers) != 0 || w.prober.book.len() != 0 || len(w.secrets.kept) > 1 {
		t.Errorf("%d records, %d addresses, %d shared keys left behind", len(w.st.peers), w.prober.book.len(), len(w.secrets.kept))
	}
	if done := w.receive(direct(addrX), false, good); len(done) != 2 {
		t.Errorf("the good ping: %+v", done)
	}
}

// TestNotRunning: without a node key nothing is admitted (PATH-12, step 1).
func TestNotRunning(t *testing.T) {
	w := newAdmitWorld(t)
	w.st.node = key.NodePublic{}
	if done := w.receive(direct(addrB), false, w.frame(w.b, w.own.Public(), &Ping{TxID: NewTxID()})); len(done) != 0 {
		t.Errorf("%+v", done)
	}
}

// TestRelayedPing: a ping that came through a peer relay is answered there, with
// the same VNI, and its source is no candidate (PATH-14).
func TestRelayedPing(t *testing.T) {
	w := newAdmitWorld(t)
	from := transport.Endpoint{Addr: addrX, VNI: 7}
	done := w.receive(from, false, w.frame(w.b, w.own.Public(), &Ping{TxID: NewTxID(), NodeKey: nodeKey("b")}))
	if len(done) != 1 || done[0].(sending).to != from {
		t.Fatalf("%+v", done)
	}
	if p := w.st.peers[nodeKey("b")]; p.find(addrX) != nil || w.prober.book.len() != 0 {
		t.Error("the relay's address was learned")
	}
}

// TestPaddedPing: pings of any size have the usual pong (PATH-49).
func TestPaddedPing(t *testing.T) {
	w := newAdmitWorld(t)
	for i, padding := range []int{0, 1, 1400, MaxPing - PingFrame} {
		from := direct(netip.AddrPortFrom(addrX.Addr(), uint16(1+i)))
		done := w.receive(from, false, w.frame(w.b, w.own.Public(), &Ping{TxID: NewTxID(), NodeKey: nodeKey("b"), Padding: padding}))
		pong := w.frame(w.own, w.b.Public(), done[0].(sending).msg)
		if len(pong) != Overhead+headerSize+pongSize {
			t.Errorf("padding of %d bytes: pong of %d", padding, len(pong))
		}
	}
}

// TestRates: pongs and calls of one peer are limited, and so is what one call can
// list (PATH-16).
func TestRates(t *testing.T) {
	w := newAdmitWorld(t)
	pongs := 0
	for range 3 * pongRate {
		pongs += len(w.receive(overDERP(nodeKey("c")), false, w.frame(w.c, w.own.Public(), &Ping{TxID: NewTxID()})))
	}
	if pongs != pongRate {
		t.Errorf("%d pongs at once, want %d", pongs, pongRate)
	}
	var list []netip.AddrPort
	for i := range 3 * maxListed {
		list = append(list, netip.AddrPortFrom(addrX.Addr(), uint16(1+i)))
	}
	for i := range 3 * callRate {
		w.receive(overDERP(nodeKey("c")), false, w.frame(w.c, w.own.Public(), &CallMeMaybe{Endpoints: list[i:]}))
	}
	if n := w.prober.count[CallsHeard].Load(); n != callRate {
		t.Errorf("%d calls at once, want %d", n, callRate)
	}
	if n := len(w.st.peers[nodeKey("c")].candidates); n != maxListed {
		t.Errorf("%d candidates of one call, want %d", n, maxListed)
	}
	w.now = w.now.Add(time.Second)
	if done := w.receive(overDERP(nodeKey("c")), false, w.frame(w.c, w.own.Public(), &Ping{TxID: NewTxID()})); len(done) != 1 {
		t.Errorf("a second later: %+v", done)
	}
}

// TestBounds: pings from ever new addresses take neither memory without end, nor
// the place of what the map and the peer's call list, nor of the best path.
func TestBounds(t *testing.T) {
	w := newAdmitWorld(t)
	us := w.own.Public()
	w.receive(overDERP(nodeKey("b")), false, w.frame(w.b, us, &CallMeMaybe{Endpoints: []netip.AddrPort{addrX}}))
	for i := range 1000 {
		w.now = w.now.Add(time.Second / pongRate)
		w.receive(direct(netip.AddrPortFrom(addrX.Addr(), uint16(1000+i))), false, w.frame(w.b, us, &Ping{TxID: NewTxID()}))
		w.st.advance(w.now)
	}
	p := w.st.peers[nodeKey("b")]
	if len(p.candidates) != maxCandidates || p.find(addrB) == nil || p.find(addrX) == nil {
		t.Errorf("%d candidates, want %d, of the map %v, of the call %v", len(p.candidates), maxCandidates, p.find(addrB) != nil, p.find(addrX) != nil)
	}
	if w.prober.book.len() > maxMapped || len(p.source.mapped) > maxMapped {
		t.Errorf("%d addresses attributed", w.prober.book.len())
	}
	if limit := int(pingTimeout/time.Second)*pongRate + maxCandidates; len(p.sent) > limit {
		t.Errorf("%d pings without answer, want at most %d", len(p.sent), limit)
	}
}

// TestSecretsAreBounded: shared keys are few, and go with their peers (PATH-04).
func TestSecretsAreBounded(t *testing.T) {
	s := newSecrets(key.NewDisco())
	for i := range maxSecrets {
		s.kept[key.DiscoPublicFromRaw(namedKey("disco", string(rune('0'+i))))] = new(key.DiscoShared)
	}
	k := key.NewDisco().Public()
	if a, b := s.with(k), s.with(k); a != b || len(s.kept) != maxSecrets {
		t.Errorf("%d keys kept, the same key twice: %v", len(s.kept), a == b)
	}
	s.keep(func(d key.DiscoPublic) bool { return d == k })
	if len(s.kept) != 1 {
		t.Errorf("%d keys kept, want that of the only peer", len(s.kept))
	}
}
