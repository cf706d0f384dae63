package derp_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/transport"
	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/derp/relay"
)

// patience bounds each wait of a test.
const patience = 10 * time.Second

// A site is a relay on loopback that can be stopped and started again on the
// same port, as another process would.
type site struct {
	tb   testing.TB
	node *netmap.DERPNode
	cert tls.Certificate

	server *relay.Server
	http   *http.Server
	ended  chan error
}

// newSite starts a relay for a region; it ends with the test.
func newSite(tb testing.TB, region int) *site {
	tb.Helper()
	cert, err := relay.SelfSigned("127.0.0.1")
	if err != nil {
		tb.Fatal(err)
	}
	st := &site{tb: tb, cert: cert, node: &netmap.DERPNode{
		Name: fmt.Sprint(region, "a"), RegionID: region, HostName: "127.0.0.1", CertName: derp.PinCertName(cert.Certificate[0]),
	}}
	st.start()
	tb.Cleanup(st.stop)
	return st
}

func (st *site) start() {
	st.tb.Helper()
	ln, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", st.node.DERPPort))
	if err != nil {
		st.tb.Fatal(err)
	}
	if st.node.DERPPort == 0 {
		st.node.DERPPort = ln.Addr().(*net.TCPAddr).Port
	}
	st.server = relay.New(key.NewNode(), relay.Options{})
	st.http = &http.Server{Handler: st.server.Handler(), ReadHeaderTimeout: patience}
	st.ended = make(chan error, 1)
	go func() { st.ended <- st.http.Serve(tls.NewListener(ln, st.server.TLSConfig(st.cert))) }()
}

func (st *site) stop() {
	if st.http == nil {
		return
	}
	st.http.Close()
	st.server.Close()
	<-st.ended
	st.http = nil
}

func (st *site) region() *netmap.Region {
	return &netmap.Region{RegionID: st.node.RegionID, RegionCode: "test", Nodes: []*netmap.DERPNode{st.node}}
}

func derpMap(sites ...*site) *netmap.DERPMap {
	dm := &netmap.DERPMap{Regions: map[int]*netmap.Region{}}
	for _, st := range sites {
		dm.Regions[st.node.RegionID] = st.region()
	}
	return dm
}

// An arrival is one received datagram.
type arrival struct {
	from transport.Endpoint
	data string
}

// A sink is the receiver of all regions of one node.
type sink struct {
	mu      sync.Mutex
	pending []arrival // received and not yet flushed
	arrived chan arrival
}

func (s *sink) Receive(from transport.Endpoint, b []byte, segment, more int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = append(s.pending, arrival{from, string(b)})
}

func (s *sink) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.pending {
		s.arrived <- a
	}
	s.pending = nil
}

// A node is one node's Regions with what it needs.
type node struct {
	*derp.Regions
	sink
	tb   testing.TB
	wait time.Duration // bounds what is awaited
	key  key.NodePublic
	home *actor.Cell[int]
	dmap *actor.Cell[*netmap.DERPMap]
}

// newNode runs the regions of a node until the test ends.
func newNode(tb testing.TB, home int, dm *netmap.DERPMap) *node {
	tb.Helper()
	private := key.NewNode()
	n := &node{tb: tb, wait: patience, key: private.Public(), home: actor.NewCell(home), dmap: actor.NewCell(dm)}
	n.arrived = make(chan arrival, 4096)
	n.Regions = derp.New(derp.Config{
		Network: host.OS{}, Private: private, Map: n.dmap, Home: n.home,
		NewReceiver: func() transport.Receiver { return &n.sink },
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Serve(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			tb.Errorf("Serve returned %v", err)
		}
	})
	return n
}

func burst(data string) []packet.Burst {
	return []packet.Burst{{Buf: []byte(data), Size: len(data), Count: 1}}
}

func (n *node) send(region int, to key.NodePublic, data string) {
	n.tb.Helper()
	if err := n.Send(transport.Endpoint{Region: uint16(region), Key: to}, burst(data)); err != nil {
		n.tb.Fatal(err)
	}
}

func (n *node) expect(region int, from key.NodePublic, data string) {
	n.tb.Helper()
	select {
	case a := <-n.arrived:
		if want := (transport.Endpoint{Region: uint16(region), Key: from}); a.from != want || a.data != data {
			n.tb.Fatalf("%q from %v, want %q from %v", a.data, a.from, data, want)
		}
	case <-time.After(n.wait):
		n.tb.Fatalf("%q did not arrive; status %+v, counters %+v", data, n.Status().Get(), n.Counters())
	}
}

// await waits for a status.
func (n *node) await(what string, ok func(derp.Status) bool) derp.Status {
	n.tb.Helper()
	deadline := time.After(n.wait)
	for {
		st, changed := n.Status().Load()
		if ok(st) {
			return st
		}
		select {
		case <-changed:
		case <-deadline:
			n.tb.Fatalf("not %s: %+v", what, st)
		}
	}
}

func (n *node) awaitHome() {
	n.tb.Helper()
	n.await("connected home", func(s derp.Status) bool { return s.HomeConnected && s.Home == n.home.Get() })
}

// sent waits until so many packets are counted as sent: what they carry may
// arrive before.
func (n *node) sent(packets uint64) {
	for n.Counters().SentPackets < packets {
		runtime.Gosched()
	}
}

// TestSend: two nodes with different homes; the first packet opens the other's
// region, the answer goes back by where the question came from (DERP-141,
// DERP-142).
func TestSend(t *testing.T) {
	one, two := newSite(t, 1), newSite(t, 2)
	dm := derpMap(one, two)
	a, b := newNode(t, 1, dm), newNode(t, 2, dm)
	a.awaitHome()
	b.awaitHome()
	a.send(2, b.key, "question")
	b.expect(2, a.key, "question")
	if r := b.Heard(a.key); r != 2 {
		t.Errorf("a was heard in region %d, want 2", r)
	}
	b.send(1, a.key, "answer") // b has no connection to a's home
	a.expect(2, b.key, "answer")
	if _, open := b.Status().Get().Region(1); open {
		t.Error("the answer opened a region for nothing")
	}
	a.await("region 2 open and not home", func(s derp.Status) bool {
		r, ok := s.Region(2)
		return ok && r.Connected && !r.Home && r.Code == "test" && r.Node == "2a"
	})
	a.send(9, b.key, "heard in region 2") // whatever the endpoint says
	b.expect(2, a.key, "heard in region 2")
	if err := a.Send(transport.Endpoint{Region: 9, Key: key.NewNode().Public()}, burst("x")); !errors.Is(err, derp.ErrNoRegion) {
		t.Errorf("Send to an unknown region: %v", err)
	}
	a.send(1, a.key, "sync")
	a.expect(1, a.key, "sync")
	a.sent(3)
	if c := a.Counters(); c.SentPackets != 3 || c.ReceivedPackets != 2 || c.NoRegion != 1 || c.DroppedPackets != 0 {
		t.Errorf("counters %+v", c)
	}
	if n := one.server.Stats().Homes; n != 1 {
		t.Errorf("region 1 is home to %d clients, want 1", n)
	}
}

// TestBursts: every datagram of every burst arrives, in order, without its
// room; a flush holds 24 at most and TLS records are full.
func TestBursts(t *testing.T) {
	st := newSite(t, 1)
	a, b := newNode(t, 1, derpMap(st)), newNode(t, 1, derpMap(st))
	a.awaitHome()
	b.awaitHome()
	const count, size, room = 16, 1312, 8
	buf := make([]byte, 0, count*(room+size))
	for i := range count {
		buf = append(buf, make([]byte, room)...)
		buf = append(buf, bytes.Repeat([]byte{byte(i)}, size)...)
	}
	buf = buf[:len(buf)-100] // the last is shorter
	bursts := []packet.Burst{{Buf: buf, Room: room, Size: size, Count: count}, {Buf: buf, Room: room, Size: size, Count: 1}}
	if err := a.Send(transport.Endpoint{Region: 1, Key: b.key}, bursts); err != nil {
		t.Fatal(err)
	}
	for i := range count - 1 {
		b.expect(1, a.key, string(bytes.Repeat([]byte{byte(i)}, size)))
	}
	b.expect(1, a.key, string(bytes.Repeat([]byte{count - 1}, size-100)))
	b.expect(1, a.key, string(make([]byte, size)))
	perRecord := uint64((16 << 10) / (derp.SendHeaderSize + size))
	if c := a.Counters(); c.Flushes < (count+1)/perRecord || c.Flushes > 2+(count+1)/perRecord {
		t.Errorf("%d packets in %d writes, want %d in each", c.SentPackets, c.Flushes, perRecord)
	}
}

// TestRestart: a relay that dies in the middle of a flow and comes back; the
// nodes find it again and what was queued meanwhile arrives.
func TestRestart(t *testing.T) {
	st := newSite(t, 1)
	a, b := newNode(t, 1, derpMap(st)), newNode(t, 1, derpMap(st))
	a.awaitHome()
	b.awaitHome()
	a.send(1, b.key, "before")
	b.expect(1, a.key, "before")
	st.stop()
	for _, n := range []*node{a, b} {
		down := n.await("down", func(s derp.Status) bool { return !s.HomeConnected })
		if r, _ := down.Region(1); r.Generation != 1 || r.Err == nil {
			t.Errorf("status %+v", r)
		}
	}
	if r := b.Heard(a.key); r != 0 {
		t.Errorf("a is still heard in region %d", r)
	}
	a.send(1, b.key, "meanwhile")
	st.start()
	b.awaitHome()
	a.awaitHome()
	// What was queued may have been sent before b was back.
	a.send(1, b.key, "after")
	for {
		select {
		case got := <-b.arrived:
			if got.data == "after" {
				if r, _ := a.Status().Get().Region(1); r.Generation != 2 {
					t.Errorf("generation %d, want 2", r.Generation)
				}
				return
			}
		case <-time.After(patience):
			t.Fatal("the flow did not resume")
		}
	}
}

// TestQueuedWhileConnecting: packets for a region that is not open yet wait for
// it.
func TestQueuedWhileConnecting(t *testing.T) {
	one, two := newSite(t, 1), newSite(t, 2)
	dm := derpMap(one, two)
	b := newNode(t, 2, dm)
	b.awaitHome()
	a := newNode(t, 0, dm) // homeless (DERP-139)
	for errors.Is(a.Send(transport.Endpoint{Region: 2, Key: b.key}, nil), derp.ErrNoRegion) {
		runtime.Gosched() // Serve has not seen the map yet
	}
	for i := range 20 {
		a.send(2, b.key, fmt.Sprint(i))
	}
	for i := range 20 {
		b.expect(2, a.key, fmt.Sprint(i))
	}
	if s := a.Status().Get(); s.Home != 0 || len(s.Regions) != 1 {
		t.Errorf("status %+v", s)
	}
}

// TestMapChange: DERP-134: what changed is closed and made anew, what did not
// change keeps its connection.
func TestMapChange(t *testing.T) {
	one, two := newSite(t, 1), newSite(t, 2)
	a := newNode(t, 1, derpMap(one, two))
	a.awaitHome()
	a.send(2, a.key, "open region 2")
	a.expect(2, a.key, "open region 2")
	a.await("region 2 open", func(s derp.Status) bool {
		r, _ := s.Region(2)
		return r.Connected
	})

	dm := derpMap(one, two) // equal in value
	dm.Regions[2].RegionName = "moved"
	a.dmap.Store(dm)
	a.await("region 2 closed or new", func(s derp.Status) bool {
		r, ok := s.Region(2)
		return !ok || r.Generation == 0
	})
	if r, _ := a.Status().Get().Region(1); r.Generation != 1 || !r.Connected {
		t.Errorf("the unchanged region was touched: %+v", r)
	}
	a.send(2, a.key, "again")
	a.expect(2, a.key, "again")

	a.dmap.Store(nil)
	a.await("without regions", func(s derp.Status) bool { return len(s.Regions) == 0 })
	if err := a.Send(transport.Endpoint{Region: 1, Key: a.key}, burst("x")); !errors.Is(err, derp.ErrNoRegion) {
		t.Errorf("Send without a map: %v", err)
	}
	a.dmap.Store(derpMap(one))
	a.awaitHome()
}

// TestHomeChange: DERP-136.
func TestHomeChange(t *testing.T) {
	one, two := newSite(t, 1), newSite(t, 2)
	a := newNode(t, 1, derpMap(one, two))
	a.awaitHome()
	a.home.Store(2)
	a.awaitHome()
	a.send(1, a.key, "the old home is still open")
	a.expect(1, a.key, "the old home is still open")
	a.send(2, a.key, "sync")
	a.expect(2, a.key, "sync")
	if n, m := one.server.Stats().Homes, two.server.Stats().Homes; n != 0 || m != 1 {
		t.Errorf("home to %d and %d clients, want 0 and 1", n, m)
	}
}

// TestNetworkChanged: DERP-147: a connection that works stays.
func TestNetworkChanged(t *testing.T) {
	st := newSite(t, 1)
	a := newNode(t, 1, derpMap(st))
	a.awaitHome()
	a.NetworkChanged()
	a.send(1, a.key, "x")
	a.expect(1, a.key, "x")
	for deadline := time.Now().Add(patience); st.server.Stats().Pings == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the relay was not pinged")
		}
	}
	if n := st.server.Stats().Pings; n != 1 {
		t.Errorf("%d pings, want 1", n)
	}
	if r, _ := a.Status().Get().Region(1); r.Generation != 1 {
		t.Errorf("generation %d, want 1", r.Generation)
	}
	if a.LastHeard(1).IsZero() || !a.LastHeard(2).IsZero() {
		t.Errorf("last heard %v and %v", a.LastHeard(1), a.LastHeard(2))
	}
}

// TestStrings: an actor's name shows none of its keys.
func TestStrings(t *testing.T) {
	names := []string{fmt.Sprint(derp.New(derp.Config{})), fmt.Sprint(&derp.Link{})}
	if want := []string{"derp.Regions", "derp.Link"}; !slices.Equal(names, want) {
		t.Error(names)
	}
}
