package relay

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

// pipeAs logs a client in over an in-memory connection, inside a bubble.
func pipeAs(t *testing.T, s *Server, k key.NodePrivate, info derp.ClientInfo, in Incoming) *peer {
	t.Helper()
	here, there := net.Pipe()
	in.Conn = there
	go s.Accept(t.Context(), in)
	p := loginAs(t, derp.NewStream(here), k, info)
	p.SetReadDeadline(time.Time{})
	return p
}

// meshed returns a server with a mesh key and a peer that holds it.
func meshed(t *testing.T) (*Server, *peer) {
	t.Helper()
	mesh := key.NewMesh()
	s := New(key.NewNode(), Options{MeshKey: mesh})
	return s, pipeAs(t, s, key.NewNode(), derp.ClientInfo{MeshKey: mesh}, Incoming{})
}

func (p *peer) expectPresent(want derp.PeerPresent) {
	p.tb.Helper()
	got, err := derp.ParsePeerPresent(p.expect(derp.FramePeerPresent))
	if err != nil || got != want {
		p.tb.Fatalf("present %+v, %v; want %+v", got, err, want)
	}
}

// TestMeshKey: DERP-06, DERP-86: only a client with the server's mesh key is a
// mesh peer; a server without one has none.
func TestMeshKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mesh := key.NewMesh()
		for _, tt := range []struct {
			server, client key.Mesh
			want           bool
		}{
			{mesh, mesh, true},
			{mesh, key.NewMesh(), false},
			{mesh, key.Mesh{}, false},
			{key.Mesh{}, mesh, false},
			{key.Mesh{}, key.Mesh{}, false},
		} {
			s := New(key.NewNode(), Options{MeshKey: tt.server})
			pipeAs(t, s, key.NewNode(), derp.ClientInfo{MeshKey: tt.client}, Incoming{})
			if got := s.clients()[0].mesh; got != tt.want || s.HasMeshKey() == tt.server.IsZero() {
				t.Errorf("mesh peer: %v, want %v", got, tt.want)
			}
			s.Close()
		}
	})
}

// TestWatch: DERP-14, DERP-87: a watcher learns who is here, itself included,
// and then each change, with flags and addresses.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w := meshed(t)
		defer s.Close()
		w.write(derp.AppendHeader(nil, derp.FrameWatchConns, 0))
		w.expectPresent(derp.PeerPresent{Peer: w.key, Flags: derp.PresentMeshPeer})
		synctest.Wait() // until all who are here were told of: who comes meanwhile is told of twice
		addr := netip.MustParseAddrPort("192.0.2.1:1234")
		k := key.NewNode()
		regular := pipeAs(t, s, k, derp.ClientInfo{}, Incoming{Remote: addr})
		w.expectPresent(derp.PeerPresent{Peer: regular.key, Addr: addr, Flags: derp.PresentRegular})
		again := pipeAs(t, s, k, derp.ClientInfo{IsProber: true}, Incoming{IdealNode: "1b"})
		w.expectPresent(derp.PeerPresent{Peer: regular.key, Flags: derp.PresentProber | derp.PresentNotIdeal})
		regular.Close()
		synctest.Wait()
		again.Close()
		w.expectGone(regular.key, derp.GoneDisconnected) // once, for the last connection
		w.sync()
		st := s.Stats()
		if st.Watchers != 1 || st.UpdateBatch.Count == 0 || st.UpdateWrites.Count != st.UpdateBatch.Count {
			t.Errorf("%d watchers, batches %+v in writes %+v", st.Watchers, st.UpdateBatch, st.UpdateWrites)
		}
		w.Close()
		synctest.Wait()
		if n := s.Stats().Watchers; n != 0 {
			t.Errorf("%d watchers after the only one left", n)
		}
	})
}

// TestWatchOneself: DERP-87: a relay that is connected to itself learns nothing.
func TestWatchOneself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mesh := key.NewMesh()
		s := New(key.NewNode(), Options{MeshKey: mesh})
		defer s.Close()
		w := pipeAs(t, s, s.PrivateKey(), derp.ClientInfo{MeshKey: s.MeshKey()}, Incoming{})
		w.write(derp.AppendHeader(nil, derp.FrameWatchConns, 0))
		w.sync()
		if n := s.Stats().Watchers; n != 0 {
			t.Errorf("%d watchers, want 0", n)
		}
	})
}

// TestWatchFlood: DERP-88, DERP-165: the first news of many peers go out in few
// writes, and nobody waits for a watcher that does not read.
func TestWatchFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w := meshed(t)
		defer s.Close()
		const n = 2000
		for range n {
			c := s.newClient(Incoming{})
			c.key = key.NewNode().Public()
			s.registry.add(c)
		}
		a, b := pipe(t, s, key.NewNode()), pipe(t, s, key.NewNode())
		w.write(derp.AppendHeader(nil, derp.FrameWatchConns, 0))
		synctest.Wait()
		a.send(b.key, "while the watcher does not read")
		b.expectPacket(a.key, "while the watcher does not read")
		for range n + 3 { // a, b and itself
			w.expect(derp.FramePeerPresent)
		}
		w.sync()
		perWrite := writeSize / updateSize
		if st := s.Stats(); st.UpdateBatch.Sum != n+3 || st.UpdateWrites.Sum > 2+n/uint64(perWrite)+st.UpdateBatch.Count {
			t.Errorf("batches %+v in writes %+v", st.UpdateBatch, st.UpdateWrites)
		}
	})
}

// TestWatcherTooSlow: a watcher that is too far behind is disconnected.
func TestWatcherTooSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w := meshed(t)
		defer s.Close()
		w.write(derp.AppendHeader(nil, derp.FrameWatchConns, 0))
		synctest.Wait()
		c := s.clients()[0]
		c.queue.mu.Lock()
		c.queue.updates = make([]update, maxUpdates)
		c.queue.mu.Unlock()
		c.update(update{})
		synctest.Wait()
		if st := s.Stats(); st.Connections != 0 || st.Closed[ClosedWatchFlood] != 1 {
			t.Errorf("%d connections, closed %v", st.Connections, st.Closed)
		}
	})
}

// TestClosePeer: DERP-89.
func TestClosePeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w := meshed(t)
		defer s.Close()
		k := key.NewNode()
		one, two := pipe(t, s, k), pipe(t, s, k)
		w.write(derp.AppendClosePeer(nil, key.NewNode().Public())) // nobody
		w.write(derp.AppendClosePeer(nil, k.Public()))
		one.expectHangUp()
		two.expectHangUp()
		w.sync()
		synctest.Wait()
		if st := s.Stats(); st.Connections != 1 || st.Closed[ClosedByMesh] != 2 {
			t.Errorf("%d connections, closed %v", st.Connections, st.Closed)
		}
	})
}

// TestMeshWriteDeadline: DERP-61: a mesh peer has 30 s to accept a write.
func TestMeshWriteDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w := meshed(t)
		defer s.Close()
		w.write(derp.AppendPing(nil, derp.FramePing, [8]byte{}))
		time.Sleep(meshWriteTimeout - time.Nanosecond) // fake time
		synctest.Wait()
		if n := s.Stats().Connections; n != 1 {
			t.Error("disconnected before 30 s")
		}
		time.Sleep(time.Nanosecond) // fake time
		synctest.Wait()
		if st := s.Stats(); st.Connections != 0 || st.WriteTimeouts() != 1 {
			t.Errorf("stats %+v", st)
		}
	})
}

// A sink is a Forwarder that keeps what it gets.
type sink struct {
	name string
	got  chan string
}

func (f *sink) String() string { return f.name }

func (f *sink) ForwardPacket(src, dst key.NodePublic, data []byte) error {
	f.got <- fmt.Sprintf("%s %s %s", src.Short(), dst.Short(), data)
	return nil
}

func newSink(name string) *sink { return &sink{name, make(chan string, 16)} }

// TestForward: DERP-02, DERP-48, DERP-51: packets for a key of another relay go
// to its forwarder, those for a key that is here do not, and what came through
// the mesh goes no further.
func TestForward(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w := meshed(t)
		defer s.Close()
		a, k, f := pipe(t, s, key.NewNode()), key.NewNode(), newSink("B")
		s.AddForwarder(k.Public(), f)
		a.send(k.Public(), "over there")
		if got, want := <-f.got, fmt.Sprintf("%s %s over there", a.key.Short(), k.Public().Short()); got != want {
			t.Errorf("forwarded %q, want %q", got, want)
		}
		remote := key.NewNode().Public()
		w.write(derp.AppendForwardPacket(nil, remote, k.Public(), []byte("one hop only")))
		w.write(derp.AppendForwardPacket(nil, remote, a.key, []byte("from there")))
		a.expectPacket(remote, "from there")
		here := pipe(t, s, k)
		a.send(k.Public(), "here")
		here.expectPacket(a.key, "here")
		synctest.Wait()
		st := s.Stats()
		if st.ForwardedOut.Total() != 1 || st.ForwardedIn.Total() != 2 || st.Received.Total() != 2 || st.Dropped[DropUnknownForwarded].Other != 1 {
			t.Errorf("stats %+v", st)
		}
		checkAccounts(t, st)
	})
}

// TestNotHereGoesToTheMesh: DERP-50: the relay that passed a disco packet on
// learns that the destination is not here.
func TestNotHereGoesToTheMesh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w := meshed(t)
		defer s.Close()
		nobody := key.NewNode().Public()
		w.write(derp.AppendForwardPacket(nil, key.NewNode().Public(), nobody, []byte(disco(""))))
		w.expectGone(nobody, derp.GoneNotHere)
	})
}

// TestGoneBehindForwarders: DERP-46, DERP-69, DERP-92: who heard from a peer is
// told when the last way to it goes, not before.
func TestGoneBehindForwarders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w := meshed(t)
		defer s.Close()
		a, k, f, g := pipe(t, s, key.NewNode()), key.NewNode(), newSink("B"), newSink("C")
		b := pipe(t, s, k)
		b.send(a.key, "hello")
		a.expectPacket(b.key, "hello")
		s.AddForwarder(b.key, f)
		b.Close() // moves to another relay
		synctest.Wait()
		if a.tellsGone(b.key) {
			t.Error("told although there is a forwarder")
		}
		s.AddForwarder(b.key, g)
		s.RemoveForwarder(b.key, f)
		if a.tellsGone(b.key) {
			t.Error("told although there is another forwarder")
		}
		s.RemoveForwarder(b.key, g)
		a.expectGone(b.key, derp.GoneDisconnected)
		s.AddForwarder(b.key, f) // DERP-70: armed again
		w.write(derp.AppendForwardPacket(nil, b.key, a.key, []byte("again")))
		a.expectPacket(b.key, "again")
		synctest.Wait()
		s.RemoveForwarder(b.key, f)
		a.expectGone(b.key, derp.GoneDisconnected)
	})
}

// TestSourceNotKnownYet: a packet from a relay whose link the other way is not
// up yet does not make its source look gone, but its going later is told, and
// nothing is kept when there is nobody to tell (DERP-69).
func TestSourceNotKnownYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w := meshed(t)
		defer s.Close()
		a, remote := pipe(t, s, key.NewNode()), key.NewNode().Public()
		w.write(derp.AppendForwardPacket(nil, remote, a.key, []byte("early")))
		a.expectPacket(remote, "early")
		if a.tellsGone(remote) {
			t.Error("told that the source is gone")
		}
		f := new(counter)
		s.AddForwarder(remote, f)
		s.RemoveForwarder(remote, f)
		a.expectGone(remote, derp.GoneDisconnected)
		w.write(derp.AppendForwardPacket(nil, remote, a.key, []byte("early again")))
		a.expectPacket(remote, "early again")
		if err := s.ConsistencyCheck(); err != nil {
			t.Error(err)
		}
		a.send(remote, "nowhere")
		a.Close()
		synctest.Wait()
		if set := s.registry.shard(remote).sets[remote]; set != nil {
			t.Errorf("kept for nobody: %+v", set)
		}
		if n := s.Stats().Dropped[DropUnknown].Total(); n != 1 {
			t.Errorf("%d packets were dropped for an unknown destination, want 1", n)
		}
	})
}

// TestForwarders: DERP-91, DERP-92, DERP-171: the table of adding and removing.
// Steps are "+f", "-f" for forwarders, "+." and "-." for a connection here.
func TestForwarders(t *testing.T) {
	for name, tt := range map[string]struct {
		steps                    string
		want                     string // where packets go: a forwarder, "." for here, "" for nowhere
		created, deleted, others uint64
	}{
		"none":                       {"", "", 0, 0, 0},
		"one":                        {"+f", "f", 0, 0, 0},
		"same twice":                 {"+f+f", "f", 0, 0, 0},
		"one, removed":               {"+f-f", "", 0, 0, 0},
		"removed without":            {"-f", "", 0, 0, 0},
		"removed twice":              {"+f-f-f", "", 0, 0, 0},
		"other removed":              {"+f-g", "f", 0, 0, 1},
		"two, the older preferred":   {"+f+g", "f", 1, 0, 0},
		"two, same again":            {"+f+g+f+g", "f", 1, 0, 0},
		"two, preferred removed":     {"+f+g-f", "g", 1, 1, 0},
		"two, other removed":         {"+f+g-g", "f", 1, 1, 0},
		"two, stranger removed":      {"+f+g-h", "f", 1, 0, 0},
		"two, both removed":          {"+f+g-f-g", "", 1, 1, 0},
		"three, preferred removed":   {"+f+g+h-f", "g", 1, 0, 0},
		"three, down to one":         {"+f+g+h-g-f", "h", 1, 1, 0},
		"preferred comes back last":  {"+f+g-f+f", "g", 2, 1, 0},
		"here":                       {"+.", ".", 0, 0, 0},
		"here first":                 {"+.+f", ".", 0, 0, 0},
		"here, forwarder goes":       {"+.+f-f", ".", 0, 0, 0},
		"leaves, forwarder stays":    {"+.+f-.", "f", 0, 0, 0},
		"leaves, no forwarder":       {"+.-.", "", 0, 0, 0},
		"comes while forwarded":      {"+f+.", ".", 0, 0, 0},
		"removed without, but here":  {"+.-f", ".", 0, 0, 0},
		"leaves after the forwarder": {"+f+.-f-.", "", 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := New(key.NewNode(), Options{})
			defer s.Close()
			c := s.newClient(Incoming{})
			c.key = key.NewNode().Public()
			all := map[byte]*sink{'f': newSink("f"), 'g': newSink("g"), 'h': newSink("h")}
			for i := 0; i < len(tt.steps); i += 2 {
				switch tt.steps[i : i+2] {
				case "+.":
					s.registry.add(c)
				case "-.":
					s.registry.remove(c)
				default:
					f := all[tt.steps[i+1]]
					if tt.steps[i] == '+' {
						s.AddForwarder(c.key, f)
					} else {
						s.RemoveForwarder(c.key, f)
					}
				}
			}
			if got := wayTo(s, c.key); got != tt.want {
				t.Errorf("packets go to %q, want %q", got, tt.want)
			}
			if st := s.Stats(); st.ForwarderJoined != tt.created || st.ForwarderLeft != tt.deleted || st.ForwarderMismatch != tt.others {
				t.Errorf("joined %d, left %d, mismatch %d; want %d, %d, %d",
					st.ForwarderJoined, st.ForwarderLeft, st.ForwarderMismatch, tt.created, tt.deleted, tt.others)
			}
			if n := s.registry.census(); n.empty > 0 || n.local+n.remote > 0 != (tt.want != "") {
				t.Errorf("registry %+v", n)
			}
		})
	}
}

func wayTo(s *Server, k key.NodePublic) string {
	switch r := s.registry.route(k); {
	case r.to != nil:
		return "."
	case r.via != nil:
		return r.via.String()
	}
	return ""
}

// A counter is a Forwarder that counts.
type counter struct{ n atomic.Uint64 }

func (*counter) String() string { return "counter" }

func (f *counter) ForwardPacket(key.NodePublic, key.NodePublic, []byte) error {
	f.n.Add(1)
	return nil
}

// TestForwardWhileForwardersChange: DERP-93, DERP-171: 5,000 packets while
// forwarders come and go, at least one always there, and none is lost.
func TestForwardWhileForwardersChange(t *testing.T) {
	st := run(t, false)
	a, dst := st.join(t, key.NewNode()), key.NewNode().Public()
	all := [3]*counter{{}, {}, {}}
	st.AddForwarder(dst, all[0])
	stop, ended := make(chan struct{}), new(sync.WaitGroup)
	ended.Go(func() {
		for i := 1; ; i++ {
			st.AddForwarder(dst, all[i%3])
			st.RemoveForwarder(dst, all[(i-1)%3])
			select {
			case <-stop:
				return
			default:
				runtime.Gosched()
			}
		}
	})
	const n = 5000
	for range n {
		a.send(dst, "packet")
	}
	a.sync()
	close(stop)
	ended.Wait()
	if got := all[0].n.Load() + all[1].n.Load() + all[2].n.Load(); got != n {
		t.Errorf("%d of %d packets were forwarded", got, n)
	}
	if s := st.Stats(); s.ForwardedOut.Total() != n || s.DroppedTotal() != 0 {
		t.Errorf("stats %+v", s)
	}
}

// checkAccounts requires that each packet is somewhere.
func checkAccounts(t *testing.T, st Stats) {
	t.Helper()
	in := st.Received.Total() + st.ForwardedIn.Total()
	out := st.Sent.Total() + st.ForwardedOut.Total() + st.DroppedTotal() + uint64(st.Queued)
	if in != out {
		t.Errorf("%d packets in, %d out: %+v", in, out, st)
	}
}
