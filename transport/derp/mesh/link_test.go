package mesh

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/internal/simnet"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

// TestThreeRelays: DERP-51, DERP-85, DERP-94: clients of all relays of a region
// reach one another with one hop, and every packet is accounted for.
func TestThreeRelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t)
		sites := []*site{r.addRelay("a"), r.addRelay("b"), r.addRelay("c")}
		links := join(sites...)
		var peers []*peer
		for _, s := range sites {
			peers = append(peers, s.connect(), s.connect())
		}
		for i, p := range peers {
			for j, q := range peers[:i] {
				exchange(t, p, q, fmt.Sprint("packet ", i, j))
			}
		}
		for name, l := range links {
			st := l.Stats()
			checkLink(t, name, st)
			// 2 clients on each side; our relay is a client there and the third relay is one, too.
			if !st.Connected || st.Forwarded != 4 || st.Confirmed != 4 || st.Peers != 3 || st.Connects != 1 {
				t.Errorf("%s: %+v", name, st)
			}
		}
		for _, s := range sites {
			st := s.server.Stats()
			if st.ForwardedIn.Total() != 8 || st.ForwardedOut.Total() != 8 || st.DroppedTotal() != 0 {
				t.Errorf("%s: forwarded %d in, %d out, dropped %v", s.name, st.ForwardedIn.Total(), st.ForwardedOut.Total(), st.Dropped)
			}
			if err := s.server.ConsistencyCheck(); err != nil {
				t.Errorf("%s: %v", s.name, err)
			}
		}
	})
}

// TestGoneAcross: DERP-69, DERP-94: who has heard from a client of another relay
// is told when it leaves, each time.
func TestGoneAcross(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t)
		sa, sb := r.addRelay("a"), r.addRelay("b")
		join(sa, sb)
		a, b := sa.connect(), sb.connect()
		exchange(t, a, b, "hello")
		b.conn.Close()
		settle()
		if why, ok := a.toldGone(b); !ok || why != derp.GoneDisconnected {
			t.Errorf("told %v, %d; want that the peer has disconnected", ok, why)
		}
	})
}

// TestPartition: DERP-94: relays that lose each other for a minute under load
// join again, and no packet is lost without a counted reason.
func TestPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t)
		sa, sb := r.addRelay("a"), r.addRelay("b")
		links := join(sa, sb)
		l := links["a.example.com b.example.com"]
		a, b := sa.connect(), sb.connect()
		exchange(t, a, b, "before")
		load := func(name string, d time.Duration) {
			for n := 0; d > 0; d, n = d-10*time.Millisecond, n+1 {
				a.send(b, fmt.Sprint(name, n, strings.Repeat("x", 1200)))
				time.Sleep(10 * time.Millisecond) // fake time
			}
		}
		r.internet.SetPath(sa.host, sb.host, simnet.Conditions{Down: true})
		load("cut", time.Minute)
		if st := l.Stats(); st.Connected || st.Lost == 0 || st.LastError == "" {
			t.Errorf("a minute after the cut: %+v", st)
		}
		r.internet.SetPath(sa.host, sb.host, simnet.Conditions{})
		load("joined", time.Minute)
		time.Sleep(10 * time.Minute) // until TCP has given up all that was from before
		exchange(t, a, b, "after")

		st, at, there := l.Stats(), sa.server.Stats(), sb.server.Stats()
		checkLink(t, "link", st)
		if !st.Connected || st.Connects < 2 || st.LastError != "" {
			t.Errorf("link %+v", st)
		}
		if sent, want := at.Received.Total(), uint64(2+2*6000); sent != want {
			t.Errorf("relay received %d packets, want %d", sent, want)
		}
		if at.Received.Total() != at.ForwardedOut.Total()+at.DroppedTotal() || at.ForwardedOut.Total() != st.Forwarded {
			t.Errorf("relay received %d, forwarded %d, dropped %d; link was given %d", at.Received.Total(), at.ForwardedOut.Total(), at.DroppedTotal(), st.Forwarded)
		}
		if in := there.ForwardedIn.Total(); in < st.Confirmed || in > st.Written {
			t.Errorf("other relay has %d packets, link says %d confirmed and %d lost at most", in, st.Confirmed, st.Lost)
		}
		if in := there.ForwardedIn.Total(); in != b.total()+there.DroppedTotal() {
			t.Errorf("other relay has %d packets, %d arrived and %d were dropped", in, b.total(), there.DroppedTotal())
		}
	})
}

// TestKilledRelay: DERP-01, DERP-94: a relay that dies under load takes only its
// own clients with it; started again with the same key it is joined again.
func TestKilledRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t)
		sa, sb, sc := r.addRelay("a"), r.addRelay("b"), r.addRelay("c")
		links := join(sa, sb, sc)
		a, b, c := sa.connect(), sb.connect(), sc.connect()
		exchange(t, a, b, "before")
		exchange(t, a, c, "before")
		const each = 500
		for n := range 2 * each {
			if n == each {
				sb.stop()
			}
			a.send(b, fmt.Sprint("to b ", n))
			a.send(c, fmt.Sprint("to c ", n))
			time.Sleep(time.Millisecond) // fake time
		}
		settle()
		if got := c.total(); got != 1+2*each {
			t.Errorf("%d packets between relays that live, want %d", got, 1+2*each)
		}
		if why, ok := a.toldGone(b); !ok || why != derp.GoneDisconnected {
			t.Errorf("told %v, %d; want that the dead relay's client has disconnected", ok, why)
		}
		toB := links["a.example.com b.example.com"].Stats()
		checkLink(t, "to b", toB)
		at := sa.server.Stats()
		if lost := at.DroppedTotal() + toB.Dropped.Total() + toB.Lost; b.total()+lost < 1+2*each {
			t.Errorf("%d packets arrived and %d were counted as lost, of %d", b.total(), lost, 1+2*each)
		}

		sb.start()
		sb.link(sa.url())
		sb.link(sc.url())
		time.Sleep(2 * retryAfter) // fake time
		again := sb.connect()
		exchange(t, a, again, "again")
		exchange(t, c, again, "again")
	})
}

// TestSlowRelay: DERP-51: a relay that takes nothing costs its link the oldest
// packets and then the connection, and the sender nothing.
func TestSlowRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t)
		sa := r.addRelay("a")
		stuck, accepted := r.addStuckRelay("stuck")
		l := sa.link("http://stuck.example.com", func(c *Config) { c.QueueBytes = 64 << 10 })
		settle()
		if n := accepted(); n != 1 {
			t.Fatalf("%d connections", n)
		}
		a, near := sa.connect(), sa.connect()
		start := time.Now()
		big := strings.Repeat("x", 60000)
		for n := range 200 {
			if err := a.conn.Send(stuck, []byte(big)); err != nil {
				t.Fatal(err)
			}
			a.send(near, fmt.Sprint("near ", n))
			settle()
			if near.got(a, fmt.Sprint("near ", n)) != 1 {
				t.Fatalf("packet %d to a client of the same relay is late", n)
			}
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("took %v", took)
		}
		if st := l.Stats(); !st.Connected || st.Dropped[DropFull] == 0 || st.Forwarded != 200 {
			t.Errorf("while the relay is stuck: %+v", st)
		}
		time.Sleep(writeLimit) // fake time
		settle()
		st := l.Stats()
		checkLink(t, "stuck", st)
		if st.Connected || st.Confirmed != 0 || st.Lost == 0 || !strings.Contains(st.LastError, "timeout") {
			t.Errorf("after %v: %+v", writeLimit, st)
		}
		if time.Sleep(retryAfter); accepted() != 2 { // fake time
			t.Errorf("%d connections after a while, want another one", accepted())
		}
	})
}

// addStuckRelay starts a relay without TLS that says that a client is there,
// and reads nothing after the request to watch.
func (r *region) addStuckRelay(name string) (client key.NodePublic, accepted func() int) {
	r.t.Helper()
	h := r.internet.AddHost(name, simnet.HostConfig{})
	r.internet.SetName(name+".example.com", h.Addrs()...)
	ln, err := h.Listen(r.t.Context(), "tcp", ":80")
	if err != nil {
		r.t.Fatal(err)
	}
	client = key.NewNode().Public()
	logins := make(chan net.Conn, 100)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			if err := playStuckRelay(c, client); err != nil {
				c.Close() // the loser of a race of IPv4 and IPv6
				continue
			}
			logins <- c
		}
	}()
	r.t.Cleanup(func() {
		ln.Close()
		<-ended
		for len(logins) > 0 {
			(<-logins).Close()
		}
	})
	return client, func() int { return len(logins) }
}

func playStuckRelay(c net.Conn, client key.NodePublic) error {
	private := key.NewNode()
	if _, err := c.Read(make([]byte, 4096)); err != nil { // the request
		return err
	}
	c.Write(derp.AppendServerKey([]byte("HTTP/1.1 101 Switching Protocols\r\n\r\n"), private.Public()))
	frames := derp.NewFrameReader(c, nil)
	_, n, err := frames.Header()
	if err != nil {
		return err
	}
	b, err := frames.Payload(n)
	if err != nil {
		return err
	}
	us, _, err := derp.ParseClientInfo(private, b)
	if err != nil {
		return err
	}
	out, _ := derp.AppendServerInfo(nil, private, us, derp.ServerInfo{Version: 2})
	_, err = c.Write(derp.AppendPeerPresent(out, derp.PeerPresent{Peer: client}))
	return err
}

// TestSelf: DERP-94, DERP-172: a link to our own relay ends for good and is no
// error.
func TestSelf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newRegion(t).addRelay("a")
		l := s.link(s.url())
		time.Sleep(10 * time.Minute) // fake time
		if st := l.Stats(); !st.Self || st.Connected || st.Connects != 0 || st.LastError != "" {
			t.Errorf("%+v", st)
		}
		if st := s.server.Stats(); st.Accepts != 1 || st.Connections != 0 {
			t.Errorf("%d connections accepted, %d now", st.Accepts, st.Connections)
		}
		if err := l.ForwardPacket(key.NewNode().Public(), key.NewNode().Public(), nil); !errors.Is(err, errDown) {
			t.Errorf("ForwardPacket: %v, want %v", err, errDown)
		}
	})
}

// TestTwoLinks: DERP-91: two links to the same relay, under two names maybe, are
// as good as one, also when one of them ends.
func TestTwoLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t)
		sa, sb := r.addRelay("a"), r.addRelay("b")
		sb.link(sa.url())
		first, stopFirst := sa.linkUntil(sb.url())
		second, stopSecond := sa.linkUntil(sb.url())
		settle()
		a, b := sa.connect(), sb.connect()
		exchange(t, a, b, "with both")
		used, rest, stop := first, second, stopFirst
		if second.Stats().Forwarded > 0 {
			used, rest, stop = second, first, stopSecond
		}
		if n, m := used.Stats().Forwarded, rest.Stats().Forwarded; n != 1 || m != 0 {
			t.Errorf("the links were given %d and %d packets, want all on one", n, m)
		}
		stop()
		settle()
		exchange(t, a, b, "with the other")
		if n := rest.Stats().Forwarded; n != 1 {
			t.Errorf("the link that is left was given %d packets", n)
		}
		if why, ok := a.toldGone(b); ok {
			t.Errorf("told that the peer is gone: %d", why)
		}
		if st := used.Stats(); st.Peers != 0 || st.Connected {
			t.Errorf("the link that has ended: %+v", st)
		}
	})
}

// TestWrongMeshKey: DERP-86: a relay with another mesh key hangs up, which the
// link says and tries again every 5 s.
func TestWrongMeshKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegion(t)
		sa, sb := r.addRelay("a"), r.addRelay("b")
		var logged bytes.Buffer
		l := sa.link(sb.url(), func(c *Config) {
			c.MeshKey, c.Logger = key.NewMesh(), slog.New(slog.NewTextHandler(&logged, nil))
		})
		time.Sleep(time.Minute) // fake time
		settle()
		if st := l.Stats(); st.Connected || !strings.Contains(st.LastError, "same mesh key") || st.Peers != 0 {
			t.Errorf("%+v", st)
		}
		if strings.Count(logged.String(), "\n") != 1 || !strings.Contains(logged.String(), "same mesh key") {
			t.Errorf("logged %s", &logged)
		}
		if n := sb.server.Stats().Accepts; n < 12 || n > 13 {
			t.Errorf("%d connections in a minute, want one every 5 s", n)
		}
	})
}

// TestFailureLog: a link that breaks is logged; attempts that fail after it are
// when the reason is another one, at most once a minute.
func TestFailureLog(t *testing.T) {
	var told failureLog
	start := time.Now()
	for _, c := range []struct {
		after time.Duration
		text  string
		wasUp bool
		want  bool
	}{
		{0, "refused", false, true}, {5, "refused", false, false}, {10, "port 1", false, false}, {65, "port 2", false, true},
		{70, "EOF", true, true}, {75, "EOF", true, true}, {500, "EOF", false, false}, {505, "refused", false, true},
	} {
		if got := told.isNews(c.text, c.wasUp, start.Add(c.after*time.Second)); got != c.want {
			t.Errorf("after %d s %q, up %v: logged %v, want %v", c.after, c.text, c.wasUp, got, c.want)
		}
	}
}

// TestNewLink: what a link cannot be made of is said at once.
func TestNewLink(t *testing.T) {
	for name, c := range map[string]struct {
		config Config
		want   string
	}{
		"no mesh key": {Config{URL: "https://b.example.com/derp"}, "mesh key is missing"},
		"no URL":      {Config{MeshKey: key.NewMesh()}, "https://HOST/derp"},
	} {
		if _, err := NewLink(c.config); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
	l, err := NewLink(Config{MeshKey: key.NewMesh(), URL: "b.example.com:443"})
	if err == nil {
		t.Errorf("URL without a scheme: %v", l)
	}
}

// TestStatsJSON: the counters of drops have the names of their metrics.
func TestStatsJSON(t *testing.T) {
	b, err := json.Marshal(LinkStats{URL: "u", Dropped: Drops{DropFull: 1, DropDown: 2}})
	if err != nil || !strings.Contains(string(b), `"dropped":{"not_connected":2,"queue_full":1}`) {
		t.Errorf("%s, %v", b, err)
	}
}
