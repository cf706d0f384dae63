package derp_test

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/transport"
	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/derp/relay"
)

// datagramSize is a full WireGuard datagram of a tunnel with MTU 1280.
const datagramSize = 1312

// A meter counts what arrives.
type meter struct {
	datagrams, batches atomic.Int64
	flushed            chan struct{} // holds a token after a batch
}

func (m *meter) Receive(_ transport.Endpoint, _ []byte, _, _ int) { m.datagrams.Add(1) }

func (m *meter) Flush() {
	m.batches.Add(1)
	select {
	case m.flushed <- struct{}{}:
	default:
	}
}

// A pair is two nodes at one relay over TLS on loopback.
type pair struct {
	from *derp.Regions
	to   transport.Endpoint
	got  meter
	site *site
}

func newPair(tb testing.TB) *pair {
	p := &pair{site: newSite(tb, 1)}
	p.got.flushed = make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(context.Background())
	g := actor.NewGroup(ctx)
	tb.Cleanup(func() {
		cancel()
		g.Wait()
	})
	make := func() (*derp.Regions, key.NodePublic) {
		private := key.NewNode()
		r := derp.New(derp.Config{
			Network: host.OS{}, Private: private, Home: actor.NewCell(1), Map: actor.NewCell(derpMap(p.site)),
			NewReceiver: func() transport.Receiver { return &p.got },
		})
		g.Go(r.Serve)
		return r, private.Public()
	}
	var to *derp.Regions
	p.from, _ = make()
	to, p.to.Key = make()
	p.to.Region = 1
	for _, r := range []*derp.Regions{p.from, to} {
		for st, changed := r.Status().Load(); !st.HomeConnected; st, changed = r.Status().Load() {
			<-changed
		}
	}
	return p
}

// run sends n datagrams in bursts of 24 with at most window of them on the way,
// and returns how many were lost.
func (p *pair) run(tb testing.TB, n, window int64) (lost int64) {
	const each = 24
	bursts := []packet.Burst{{Buf: make([]byte, each*datagramSize), Size: datagramSize, Count: each}}
	start := p.got.datagrams.Load()
	lostSoFar := func() int64 {
		return int64(p.from.Counters().DroppedPackets + p.site.server.Stats().Dropped[relay.DropQueueHead].Total())
	}
	lostBefore := lostSoFar()
	var lostNow, atLook int64 // as of the last look at the counters, which allocates
	arrived := func() int64 { return p.got.datagrams.Load() - start + lostNow }
	again := time.NewTicker(time.Millisecond) // losses give no signal
	defer again.Stop()
	look := func() { // if nothing has come since the tick before
		now := p.got.datagrams.Load()
		if now == atLook {
			lostNow = lostSoFar() - lostBefore
		}
		atLook = now
	}
	giveUp := time.NewTimer(time.Minute)
	defer giveUp.Stop()
	wait := func(sent, window int64) {
		for sent-arrived() > window {
			select {
			case <-p.got.flushed:
			case <-again.C:
				look()
			case <-giveUp.C:
				tb.Fatalf("%d of %d arrived", arrived(), sent)
			}
		}
	}
	for sent := int64(0); sent < n; sent += each {
		wait(sent, window)
		if err := p.from.Send(p.to, bursts); err != nil {
			tb.Fatal(err)
		}
	}
	wait(n, 0)
	return lostSoFar() - lostBefore
}

// BenchmarkRelayed is the cost of a datagram from one client through a relay to
// another, all three in this process: two TLS connections, four ciphers.
func BenchmarkRelayed(b *testing.B) {
	for _, window := range []int64{30, 120} {
		b.Run(fmt.Sprint("window=", window), func(b *testing.B) { benchmarkRelayed(b, window) })
	}
}

func benchmarkRelayed(b *testing.B, window int64) {
	p := newPair(b)
	p.run(b, 10_000, 30)
	b.SetBytes(datagramSize)
	b.ReportAllocs()
	before, batches, flushes := cpuTime(), p.got.batches.Load(), p.from.Counters().Flushes
	b.ResetTimer()
	lost := p.run(b, int64(b.N), window)
	b.StopTimer()
	bytes := float64(b.N) * datagramSize
	b.ReportMetric((cpuTime()-before).Seconds()/(bytes/1e9), "cpu-s/GB")
	b.ReportMetric(float64(lost)/float64(b.N), "lost/op")
	b.ReportMetric(float64(b.N)/float64(p.got.batches.Load()-batches), "datagrams/batch")
	b.ReportMetric(float64(b.N)/float64(p.from.Counters().Flushes-flushes), "datagrams/flush")
}

// TestSteadyAllocs: no allocation for each datagram on the client's paths. What
// the TLS and runtime of three parties allocate for each record is spread over
// its datagrams.
func TestSteadyAllocs(t *testing.T) {
	p := newPair(t)
	p.run(t, 3_000, 60)
	const n = 6_000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	p.run(t, n, 60)
	runtime.ReadMemStats(&after)
	if per := float64(after.Mallocs-before.Mallocs) / n; per > maxAllocs {
		t.Errorf("%.2f allocations for each datagram", per)
	}
}

// A tap counts the writes of a connection and the TLS records in them.
type tap struct {
	net.Conn
	writes, records *atomic.Int64
}

func (c tap) Write(b []byte) (int, error) {
	c.writes.Add(1)
	for rest := b; len(rest) >= 5; c.records.Add(1) {
		rest = rest[min(len(rest), 5+int(rest[3])<<8+int(rest[4])):]
	}
	return c.Conn.Write(b)
}

// A tapped is a network whose connections are tapped.
type tapped struct {
	host.OS
	writes, records atomic.Int64
}

func (n *tapped) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := n.OS.Dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return tap{c, &n.writes, &n.records}, nil
}

// TestOneRecordPerFlush: a flush is one TLS record and one system call.
func TestOneRecordPerFlush(t *testing.T) {
	st := newSite(t, 1)
	net := &tapped{}
	private := key.NewNode()
	n := &node{tb: t, wait: patience, key: private.Public(), home: actor.NewCell(1), dmap: actor.NewCell(derpMap(st))}
	n.arrived = make(chan arrival, 4096)
	n.Regions = derp.New(derp.Config{
		Network: net, Private: private, Map: n.dmap, Home: n.home,
		NewReceiver: func() transport.Receiver { return &n.sink },
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Serve(ctx) }()
	defer func() {
		cancel()
		<-ended
	}()
	n.awaitHome()
	n.send(1, n.key, "sync")
	n.expect(1, n.key, "sync")
	n.sent(1)
	writes, records, flushes := net.writes.Load(), net.records.Load(), n.Counters().Flushes
	for range 50 {
		big := []packet.Burst{{Buf: make([]byte, 8*datagramSize), Size: datagramSize, Count: 8}}
		if err := n.Send(transport.Endpoint{Region: 1, Key: n.key}, big); err != nil {
			t.Fatal(err)
		}
		for range 8 {
			n.expect(1, n.key, string(make([]byte, datagramSize)))
		}
	}
	n.sent(1 + 50*8)
	flushes = n.Counters().Flushes - flushes
	if w, r := uint64(net.writes.Load()-writes), uint64(net.records.Load()-records); w != flushes || r != flushes {
		t.Errorf("%d flushes are %d writes and %d TLS records", flushes, w, r)
	}
}
