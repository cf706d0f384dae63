package netstack

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/packet"
)

// A wan is one direction of a long path: a bottleneck with a queue that drops
// what does not fit, then delay, reordering and loss.
type wan struct {
	delay   time.Duration // one way
	rate    int           // bytes per second; 0 = no bottleneck
	queue   time.Duration // longest wait at the bottleneck
	loss    float64       // share of packets lost at random
	burst   float64       // chance that a packet starts a loss of burstLen packets
	reorder float64       // share of packets that come late
	late    time.Duration // by how much
}

const burstLen = 10

// A pending packet arrives at a time.
type pending struct {
	at  time.Time
	pkt []byte
}

// A wanState is the moving part of a wan. Its random numbers are the same in
// every run.
type wanState struct {
	wan
	rng   *rand.Rand
	free  time.Time // when the bottleneck has sent all it has
	lose  int       // packets still to be lost of a burst
	queue []pending // in order of arrival
}

// put decides about one packet.
func (w *wanState) put(pkt []byte, now time.Time) {
	if w.rate > 0 {
		if w.free.Before(now) {
			w.free = now
		}
		if w.free.Sub(now) > w.wan.queue {
			return
		}
		w.free = w.free.Add(time.Duration(len(pkt)) * time.Second / time.Duration(w.rate))
	} else {
		w.free = now
	}
	if w.burst > 0 && w.rng.Float64() < w.burst {
		w.lose = burstLen
	}
	if w.lose > 0 || w.rng.Float64() < w.loss {
		w.lose = max(w.lose-1, 0)
		return
	}
	at := w.free.Add(w.delay)
	if w.rng.Float64() < w.reorder {
		at = at.Add(w.late)
	}
	i, _ := slices.BinarySearchFunc(w.queue, at, func(p pending, t time.Time) int {
		if p.at.After(t) {
			return 1
		}
		return -1 // behind those of the same time
	})
	w.queue = slices.Insert(w.queue, i, pending{at, pkt})
}

// due returns the packets that have arrived.
func (w *wanState) due(now time.Time) []pending {
	n, _ := slices.BinarySearchFunc(w.queue, now, func(p pending, t time.Time) int { return cmp.Compare(p.at.Sub(t), 1) })
	out := slices.Clone(w.queue[:n])
	w.queue = append(w.queue[:0], w.queue[n:]...)
	return out
}

// run carries packets until ctx ends.
func (w wan) run(ctx context.Context, t testing.TB, from, to *Link) {
	detach := from.Attach()
	defer detach()
	st := wanState{wan: w, rng: rand.New(rand.NewPCG(1, 2))}
	batch := make([]packet.Outbound, 16)
	tick := time.NewTicker(200 * time.Microsecond)
	defer tick.Stop()
	d := to.NewDelivery()
	for ctx.Err() == nil {
		n := from.Next(batch)
		now := time.Now()
		for i := range batch[:n] {
			for _, pkt := range cut(t, &batch[i]) {
				st.put(pkt, now)
			}
		}
		from.Done(n)
		for _, p := range st.due(now) {
			copy(d.Reserve(len(p.pkt)), p.pkt)
			d.Commit(packet.Merged{Len: len(p.pkt), Count: 1})
		}
		d.Flush()
		if n > 0 {
			continue
		}
		select {
		case <-ctx.Done():
		case <-from.Ready():
		case <-tick.C:
		}
	}
}

// BenchmarkWAN is where the choice of loss detection and congestion control
// comes from (SVC-49): run it with -bench=WAN -benchtime=1x.
func BenchmarkWAN(b *testing.B) {
	const ms, mbit = time.Millisecond, 1e6 / 8
	for _, path := range []struct {
		name string
		wan  wan
	}{
		{"clean", wan{delay: 33 * ms}},
		{"bottleneck", wan{delay: 33 * ms, rate: 200 * mbit, queue: 33 * ms}},
		{"reorder-1%-2ms", wan{delay: 33 * ms, reorder: 0.01, late: 2 * ms, rate: 200 * mbit, queue: 66 * ms}},
		{"loss-0.01%", wan{delay: 33 * ms, loss: 0.0001, rate: 200 * mbit, queue: 66 * ms}},
		{"loss-0.1%", wan{delay: 33 * ms, loss: 0.001, rate: 200 * mbit, queue: 66 * ms}},
		{"burst", wan{delay: 33 * ms, burst: 0.00005, rate: 200 * mbit, queue: 66 * ms}},
		{"short-queue", wan{delay: 5 * ms, rate: 200 * mbit, queue: 10 * ms}},
		{"short-narrow", wan{delay: 5 * ms, rate: 50 * mbit, queue: 10 * ms}},
		{"short-loss", wan{delay: 5 * ms, loss: 0.005, rate: 200 * mbit, queue: 20 * ms}},
		{"short-burst", wan{delay: 5 * ms, burst: 0.00005, rate: 200 * mbit, queue: 20 * ms}},
		{"short-reorder", wan{delay: 2 * ms, reorder: 0.05, late: ms, rate: 200 * mbit, queue: 20 * ms}},
	} {
		for _, congestion := range []string{"", renoControl, cubicControl} {
			for name, r := range map[string]Recovery{"sack": SACKRecovery, "rack": RACKRecovery} {
				b.Run(fmt.Sprintf("%s/%s-%s", path.name, cmp.Or(congestion, "chosen"), name), func(b *testing.B) {
					benchmarkWAN(b, path.wan, Config{Congestion: congestion, Recovery: r})
				})
			}
		}
	}
}

func benchmarkWAN(b *testing.B, w wan, c Config) {
	const length = 8 * time.Second
	x, y := newStackOf(b, c, a4), newStackOf(b, c, b4)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	back := wan{delay: w.delay}
	wg.Go(func() { w.run(ctx, b, x.Link(), y.Link()) })
	wg.Go(func() { back.run(ctx, b, y.Link(), x.Link()) })
	defer wg.Wait()
	defer cancel()
	ln := listenTCP(b, y, anyPort)
	accepted := make(chan io.Reader, 1)
	go func() {
		if c, err := ln.Accept(); err == nil {
			accepted <- c
		}
	}()
	conn := dialTCP(b, x, netip.AddrPortFrom(b4, portOf(ln.Addr())))
	conn.SetDeadline(time.Time{})
	in := <-accepted
	go func() {
		buf := make([]byte, 256<<10)
		for {
			if _, err := conn.Write(buf); err != nil {
				return
			}
		}
	}()
	var got, late int64
	buf := make([]byte, 256<<10)
	began := time.Now()
	for b.Loop() {
		for time.Since(began) < length {
			n, err := in.Read(buf)
			if err != nil {
				b.Fatal(err)
			}
			got += int64(n)
			if time.Since(began) > length/2 {
				late += int64(n)
			}
		}
	}
	b.ReportMetric(float64(got)*8/1e6/length.Seconds(), "Mbit/s")
	b.ReportMetric(float64(late)*8/1e6/(length/2).Seconds(), "Mbit/s-later")
	b.ReportMetric(float64(x.Stats().TCPRetransmits), "retransmits")
	b.ReportMetric(float64(x.Stats().TCPTimeouts), "timeouts")
	b.ReportMetric(float64(x.Stats().LinkDropped+y.Stats().LinkDropped), "link-drops")
	conn.SetLinger(0)
	conn.Close()
}
