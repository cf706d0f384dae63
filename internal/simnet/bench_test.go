package simnet

import (
	"fmt"
	"io"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/packet"
)

// A crowd is hosts behind NATs of their own, each with a reader; the links are
// of 10 to 15 ms.
type crowd struct {
	socks   []*socket
	outer   []netip.AddrPort
	readers sync.WaitGroup
}

func newCrowd(t testing.TB, n *Internet, hosts int) *crowd {
	c := new(crowd)
	meet := listen(t, n.AddHost("rendezvous", HostConfig{}), "udp4", 3478)
	for i := range hosts {
		r := n.AddRouter(fmt.Sprint("router", i), RouterConfig{Link: Conditions{Delay: 10 * time.Millisecond, Jitter: 5 * time.Millisecond}})
		s := listen(t, r.AddHost(fmt.Sprint("host", i), HostConfig{}), "udp4", 5000)
		s.send(meet.addr(), "hello")
		c.socks, c.outer = append(c.socks, s), append(c.outer, netip.AddrPortFrom(r.Outer(), 5000))
		c.readers.Go(s.discard)
	}
	for i := range c.socks { // open the filter for the neighbour
		c.socks[(i+1)%hosts].send(c.outer[i], "open")
	}
	return c
}

// discard reads until the socket is closed.
func (s *socket) discard() {
	ms := make([]host.Message, 8)
	for i := range ms {
		ms[i].Buf = make([]byte, 4096)
	}
	for {
		if _, err := s.conn.ReadBatch(ms); err != nil {
			return
		}
	}
}

// talk has each host send its neighbour that many datagrams of 100 bytes.
func (c *crowd) talk(each int, gap time.Duration) {
	var writers sync.WaitGroup
	d := make([]byte, 100)
	for i, s := range c.socks {
		writers.Go(func() {
			for range each {
				s.conn.WriteBursts(c.outer[(i+1)%len(c.socks)], single(d))
				time.Sleep(gap)
			}
		})
	}
	writers.Wait()
}

func (c *crowd) close() {
	for _, s := range c.socks {
		s.conn.Close()
	}
	c.readers.Wait()
}

// TestThroughput prints how many datagrams cross two NATs and two links in a
// bubble in a second of processor time; each takes two events, and wakes a
// reader and a writer.
func TestThroughput(t *testing.T) {
	const hosts, each, gap = 200, 200, 10 * time.Millisecond
	for _, grid := range []time.Duration{0, 100 * time.Microsecond, time.Millisecond} {
		start := processorTime(t)
		synctest.Test(t, func(t *testing.T) {
			n := New(1)
			defer n.Close()
			n.SetGrid(grid)
			c := newCrowd(t, n, hosts)
			c.talk(each, gap)
			time.Sleep(time.Second)
			c.close()
			for _, s := range c.socks {
				expectFate(t, s.host, Delivered, each+1) // and what opened the filter
			}
		})
		used := processorTime(t) - start
		t.Logf("grid %v: %.0f datagrams a second of one processor", grid, hosts*each/used.Seconds())
	}
}

// BenchmarkDirect sends bursts between two hosts in real time, without delay.
func BenchmarkDirect(b *testing.B) {
	for _, count := range []int{1, 48} {
		b.Run(fmt.Sprintf("burst=%d", count), func(b *testing.B) {
			n := New(1)
			defer n.Close()
			x, y := listen4(b, n.AddHost("x", HostConfig{})), listen4(b, n.AddHost("y", HostConfig{}))
			y.conn.joining = true
			burst := burst(1312, count, 1312)
			b.SetBytes(int64(len(burst.Buf)))
			b.ReportAllocs()
			for b.Loop() {
				if err := x.conn.WriteBursts(y.addr(), []packet.Burst{burst}); err != nil {
					b.Fatal(err)
				}
				for got := 0; got < len(burst.Buf); {
					if _, err := y.conn.ReadBatch(y.ms); err != nil {
						b.Fatal(err)
					}
					got += y.ms[0].N
				}
			}
			b.ReportMetric(float64(b.N*count)/b.Elapsed().Seconds(), "datagrams/s")
		})
	}
}

// BenchmarkCrowd is TestThroughput in real time, as fast as links allow.
func BenchmarkCrowd(b *testing.B) {
	const hosts = 100
	n := New(1)
	defer n.Close()
	c := newCrowd(b, n, hosts)
	b.ReportAllocs()
	b.ResetTimer()
	c.talk(b.N/hosts+1, 0)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "datagrams/s")
	c.close()
}

// BenchmarkStream sends over TCP in real time.
func BenchmarkStream(b *testing.B) {
	for _, delay := range []time.Duration{0, time.Millisecond} {
		b.Run(fmt.Sprint("delay=", delay), func(b *testing.B) {
			n := New(1)
			defer n.Close()
			x, y := n.AddHost("x", HostConfig{Link: Conditions{Delay: delay}}), n.AddHost("y", HostConfig{})
			l, err := y.Listen(b.Context(), "tcp", ":80")
			if err != nil {
				b.Fatal(err)
			}
			c, err := x.Dial(b.Context(), "tcp", at(y, 80).String())
			if err != nil {
				b.Fatal(err)
			}
			s, err := l.Accept()
			if err != nil {
				b.Fatal(err)
			}
			var reader sync.WaitGroup
			reader.Go(func() { io.Copy(io.Discard, s) })
			data := make([]byte, 64<<10)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Write(data); err != nil {
					b.Fatal(err)
				}
			}
			c.Close()
			reader.Wait()
			s.Close()
		})
	}
}
