package relay

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp"
)

// TestAccounts: each packet is sent, forwarded, dropped for a reason or still
// queued, while clients come and go, read slowly or not at all, and share keys
// (DERP-84).
func TestAccounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, w := meshed(t)
		defer s.Close()
		keys := make([]key.NodePrivate, 12)
		for i := range keys {
			keys[i] = key.NewNode()
		}
		s.AddForwarder(keys[0].Public(), new(counter))
		random := rand.New(rand.NewPCG(1, 2))
		var all sync.WaitGroup
		for range 60 {
			from, reads := keys[1+random.IntN(8)], random.IntN(3)
			p := pipe(t, s, from)
			all.Go(func() { readSome(p, reads) })
			for range random.IntN(80) {
				to := keys[random.IntN(len(keys))].Public()
				m := []byte(strings.Repeat("x", random.IntN(3000)))
				if random.IntN(4) == 0 {
					m = []byte(disco(string(m)))
				}
				all.Go(func() { p.Conn.Write(derp.AppendSendPacket(nil, to, m)) })
				if random.IntN(8) == 0 {
					all.Go(func() { w.Conn.Write(derp.AppendForwardPacket(nil, from.Public(), to, m)) })
				}
			}
			if random.IntN(2) == 0 {
				synctest.Wait()
				p.Close()
			}
		}
		time.Sleep(time.Minute) // all that can be written is
		synctest.Wait()
		st := s.Stats()
		checkAccounts(t, st)
		for _, why := range []DropReason{DropUnknown, DropUnknownForwarded, DropGone, DropWrite} {
			if st.Dropped[why].Total() == 0 {
				t.Errorf("no packet was dropped as %v: the test shows too little", why)
			}
		}
		if st.Queued != 0 || st.ForwardedOut.Total() == 0 || st.Sent.Total() == 0 {
			t.Errorf("stats %+v", st)
		}
		if err := s.ConsistencyCheck(); err != nil {
			t.Error(err)
		}
	})
}

// readSome reads nothing, a frame a second, or all.
func readSome(p *peer, much int) {
	for much > 0 {
		if _, _, err := p.ReadFrame(); err != nil {
			return
		}
		if much == 1 {
			time.Sleep(time.Second) // fake time
		}
	}
}

// TestConsistencyCheck: DERP-78: duplicates are consistent, and each kind of
// damage is found.
func TestConsistencyCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(key.NewNode(), Options{})
		defer s.Close()
		k := key.NewNode()
		pipe(t, s, k)
		pipe(t, s, k)
		s.AddForwarder(k.Public(), newSink("f"))
		if err := s.ConsistencyCheck(); err != nil {
			t.Errorf("with duplicates: %v", err)
		}
		if !s.IsConnected(k.Public()) || s.IsConnected(key.NewNode().Public()) {
			t.Error("IsConnected is wrong")
		}
		stray := s.newClient(Incoming{})
		stray.key = key.NewNode().Public()
		s.registry.add(stray)
		expectInconsistent(t, s, "3 connections are registered, but 2 are open")
		s.registry.remove(stray)
		c := s.clients()[0]
		s.registry.remove(c)
		expectInconsistent(t, s, "connected but not registered")
		s.registry.add(c)
		sh := s.registry.shard(stray.key)
		sh.make(stray.key)
		expectInconsistent(t, s, "1 keys are registered without a connection or forwarder")
		sh.tidy(stray.key, sh.sets[stray.key])
	})
}

func expectInconsistent(t *testing.T, s *Server, want string) {
	t.Helper()
	if err := s.ConsistencyCheck(); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("check says %v, want %q", err, want)
	}
}

// TestVar: DERP-80, DERP-83: every name of the reference's metrics, as JSON.
func TestVar(t *testing.T) {
	s := New(key.NewNode(), Options{})
	defer s.Close()
	var got map[string]any
	if err := json.Unmarshal([]byte(s.Var().String()), &got); err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(`gauge_memstats_sys0 gauge_watchers gauge_current_file_descriptors
		gauge_current_connections gauge_current_home_connections gauge_current_notideal_connections
		gauge_clients_total gauge_clients_local gauge_clients_remote gauge_current_dup_client_keys
		gauge_current_dup_client_conns counter_total_dup_client_conns accepts bytes_received bytes_sent
		packets_received packets_sent counter_packets_received_kind unknown_frames home_moves_in home_moves_out
		got_ping sent_pong peer_gone_disconnected_frames peer_gone_not_here_frames packets_forwarded_out
		packets_forwarded_in multiforwarder_created multiforwarder_deleted packet_forwarder_delete_other_value
		sclient_write_timeouts average_queue_duration_ms counter_tcp_rtt counter_mesh_update_batch_size
		counter_mesh_update_loop_count counter_buffered_write_frames`) {
		if _, ok := got[name]; !ok {
			t.Errorf("no metric %s", name)
		}
	}
	for name := range got {
		if strings.HasPrefix(name, "rate_limit") {
			t.Errorf("metric %s without a rate limit", name)
		}
	}
	s.SetRateLimit(RateLimit{BytesPerSecond: 7})
	if err := json.Unmarshal([]byte(s.Var().String()), &got); err != nil || got["rate_limit_per_client_bytes_per_second"] != 7.0 {
		t.Errorf("with a rate limit: %v, %v", got["rate_limit_per_client_bytes_per_second"], err)
	}
}

// TestHistogram: buckets are cumulative.
func TestHistogram(t *testing.T) {
	h := histogram{bounds: []int{0, 1, 5}}
	for _, v := range []int{0, 1, 1, 3, 9} {
		h.observe(v)
	}
	got := h.load()
	want := map[string]uint64{"0": 1, "1": 3, "5": 4, "+Inf": 5, "sum": 14, "count": 5}
	if m := got.byBound(); fmt.Sprint(m) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", m, want)
	}
}

// TestQueueTime: DERP-55: the average moves a tenth of the way to each sample.
func TestQueueTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(key.NewNode(), Options{WriteTimeout: -1})
		defer s.Close()
		a, b := pipe(t, s, key.NewNode()), pipe(t, s, key.NewNode())
		for range sampleEvery {
			a.send(b.key, "x")
			synctest.Wait()
		}
		time.Sleep(time.Second) // fake time
		for range sampleEvery {
			b.expectPacket(a.key, "x")
		}
		synctest.Wait()
		if got := s.Stats().QueueTime; got != 100*time.Millisecond {
			t.Errorf("average %v after one sample of 1 s, want 100ms", got)
		}
	})
}

// TestHomeMoves: DERP-81: a change later than 5 s after connecting is a move.
func TestHomeMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(key.NewNode(), Options{})
		defer s.Close()
		a := pipe(t, s, key.NewNode())
		for _, home := range []bool{true, false} {
			a.write(derp.AppendNotePreferred(nil, home))
		}
		a.sync()
		time.Sleep(moveAfter + 1) // fake time
		for _, home := range []bool{true, false, true} {
			a.write(derp.AppendNotePreferred(nil, home))
		}
		a.sync()
		if st := s.Stats(); st.HomeMovesIn != 2 || st.HomeMovesOut != 1 || st.Homes != 1 {
			t.Errorf("%d in, %d out, %d homes", st.HomeMovesIn, st.HomeMovesOut, st.Homes)
		}
		a.Close()
		synctest.Wait()
		if n := s.Stats().Homes; n != 0 {
			t.Errorf("%d homes after the client left", n)
		}
	})
}

// TestRTTBuckets: DERP-83.
func TestRTTBuckets(t *testing.T) {
	for rtt, want := range map[time.Duration]string{
		0: "10ms", 10 * time.Millisecond: "10ms", 11 * time.Millisecond: "20ms", 500 * time.Millisecond: "500ms", time.Second: "inf",
	} {
		if got := rttNames[rttBucket(rtt)]; got != want {
			t.Errorf("%v counts as %s, want %s", rtt, got, want)
		}
	}
}

// TestRTT: the round trip time of a TCP connection is known where the kernel
// tells it; one that is no TCP counts once, however often it is sampled.
func TestRTT(t *testing.T) {
	if !rttKnown {
		return
	}
	st := start(t, New(key.NewNode(), Options{Debug: Debug{NoRTT: true}}), "127.0.0.1:0", true) // samples when we say so only
	t.Cleanup(st.stop)
	st.join(t, key.NewNode())
	st.sampleRTT()
	st.sampleRTT()
	known, got := uint64(0), st.Stats().RTT
	for _, n := range got[:rttAbove+1] { // on a busy machine any time is possible
		known += n
	}
	if known != 2 || got[rttNoTCP] != 0 || got[rttError] != 0 {
		t.Errorf("TCP: %v", got)
	}
	synctest.Test(t, func(t *testing.T) {
		s := New(key.NewNode(), Options{})
		defer s.Close()
		pipe(t, s, key.NewNode())
		time.Sleep(3*rttEvery + 1) // fake time
		if got := s.Stats().RTT; got[rttNoTCP] != 1 {
			t.Errorf("no TCP: %v", got)
		}
	})
}

// TestTraffic: DERP-79: a line for each client whose counters have grown, then
// an empty one, every two seconds.
func TestTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(key.NewNode(), Options{})
		defer s.Close()
		a, b := pipe(t, s, key.NewNode()), pipe(t, s, key.NewNode())
		pipe(t, s, key.NewNode()) // idle
		here, there := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.ServeTraffic(&flushed{there, make(http.Header)}, httptest.NewRequestWithContext(ctx, "GET", "/", nil))
		}()
		lines := bufio.NewScanner(here)
		expectTraffic(t, lines, nil)
		a.send(b.key, "12345")
		b.expectPacket(a.key, "12345")
		synctest.Wait()
		expectTraffic(t, lines, map[key.NodePublic][2]uint64{a.key: {0, 5}, b.key: {5, 0}})
		b.send(a.key, "123")
		a.expectPacket(b.key, "123")
		synctest.Wait()
		expectTraffic(t, lines, map[key.NodePublic][2]uint64{a.key: {3, 5}, b.key: {5, 3}})
		expectTraffic(t, lines, nil)
		cancel()
		<-ended
	})
}

// flushed is a response whose writes arrive at once.
type flushed struct {
	net.Conn
	header http.Header
}

func (f *flushed) Header() http.Header { return f.header }
func (*flushed) WriteHeader(int)       {}
func (*flushed) Flush()                {}

func expectTraffic(t *testing.T, lines *bufio.Scanner, want map[key.NodePublic][2]uint64) {
	t.Helper()
	got := map[key.NodePublic][2]uint64{}
	for lines.Scan() && lines.Text() != "" {
		var line struct {
			Sent, Recv uint64
			Key        key.NodePublic
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		got[line.Key] = [2]uint64{line.Sent, line.Recv}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) && len(got)+len(want) > 0 {
		t.Errorf("busy: %v, want %v", got, want)
	}
}
