package simnet

import (
	"errors"
	"fmt"
	"math"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A pair is two hosts on the Internet, one of them with a link of that kind.
func newPair(t *testing.T, n *Internet, c Conditions) (a, b *socket) {
	return listen4(t, n.AddHost("a", HostConfig{Link: c})), listen4(t, n.AddHost("b", HostConfig{}))
}

// arrivals sends count datagrams, one each gap, and returns for each how long it
// took, negative if it did not arrive, and how many overtook others.
func arrivals(a, b *socket, count int, gap time.Duration) (took []time.Duration, overtaken int) {
	took = make([]time.Duration, count)
	sent := make([]time.Time, count)
	done := make(chan struct{})
	go func() {
		defer close(done)
		highest := -1
		for {
			k, err := b.conn.ReadBatch(b.ms)
			if err != nil {
				return
			}
			for _, m := range b.ms[:k] {
				var i int
				fmt.Sscan(string(m.Buf[:m.N]), &i)
				took[i] = time.Since(sent[i])
				if i < highest {
					overtaken++
				}
				highest = max(highest, i)
			}
		}
	}()
	for i := range count {
		took[i] = -1
		sent[i] = time.Now()
		a.send(b.addr(), fmt.Sprint(i))
		time.Sleep(gap)
	}
	time.Sleep(10 * time.Second)
	b.conn.Close()
	<-done
	return took, overtaken
}

func TestDelayAndJitter(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		const delay, jitter, count = 20 * time.Millisecond, 10 * time.Millisecond, 2000
		a, b := newPair(t, n, Conditions{Delay: delay, Jitter: jitter})
		took, overtaken := arrivals(a, b, count, 20*time.Millisecond)
		var sum time.Duration
		for i, d := range took {
			if d < delay || d >= delay+jitter {
				t.Fatalf("datagram %d took %v", i, d)
			}
			sum += d
		}
		if mean := sum / count; (mean - delay - jitter/2).Abs() > jitter/20 {
			t.Errorf("mean %v, want about %v", mean, delay+jitter/2)
		}
		if overtaken != 0 {
			t.Errorf("%d datagrams were overtaken", overtaken)
		}
	})
}

// TestJitterKeepsOrder: also where datagrams are closer than the jitter.
func TestJitterKeepsOrder(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		a, b := newPair(t, n, Conditions{Delay: time.Millisecond, Jitter: 10 * time.Millisecond})
		if _, overtaken := arrivals(a, b, 1000, time.Millisecond); overtaken != 0 {
			t.Errorf("%d datagrams were overtaken", overtaken)
		}
	})
}

func TestLoss(t *testing.T) {
	for _, loss := range []float64{0.01, 0.2, 1} {
		inBubble(t, func(t *testing.T, n *Internet) {
			const count = 10000
			a, b := newPair(t, n, Conditions{Loss: loss})
			took, _ := arrivals(a, b, count, time.Millisecond)
			lost := 0
			for _, d := range took {
				if d < 0 {
					lost++
				}
			}
			// four standard deviations of a binomial distribution
			if want := count * loss; math.Abs(float64(lost)-want) > 4*math.Sqrt(want*(1-loss)) {
				t.Errorf("%d of %d lost at %v", lost, count, loss)
			}
			expectFate(t, a.host, Lost, uint64(lost))
			expectFate(t, b.host, Delivered, uint64(count-lost))
		})
	}
}

// TestSeed: the same seed loses the same packets.
func TestSeed(t *testing.T) {
	run := func() (lost []int) {
		inBubble(t, func(t *testing.T, n *Internet) {
			a, b := newPair(t, n, Conditions{Loss: 0.5})
			took, _ := arrivals(a, b, 200, time.Millisecond)
			for i, d := range took {
				if d < 0 {
					lost = append(lost, i)
				}
			}
		})
		return lost
	}
	if a, b := fmt.Sprint(run()), fmt.Sprint(run()); a != b {
		t.Errorf("lost %s, then %s", a, b)
	}
}

func TestReorder(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		const count, share = 5000, 0.1
		a, b := newPair(t, n, Conditions{Delay: 10 * time.Millisecond, Reorder: share, ReorderBy: 5 * time.Millisecond})
		_, overtaken := arrivals(a, b, count, time.Millisecond)
		if want := count * share; math.Abs(float64(overtaken)-want) > 4*math.Sqrt(want) {
			t.Errorf("%d of %d were overtaken, want about %v", overtaken, count, want)
		}
	})
}

func TestBandwidth(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		// 1000 packets a second of 128 bytes with headers
		a, b := newPair(t, n, Conditions{Bandwidth: 128000, Queue: 1280})
		start := time.Now()
		for range 20 {
			a.send(b.addr(), long(100))
		}
		for range 11 { // one on the way and ten in the queue
			b.expect(long(100))
		}
		b.expectNothing()
		if d := time.Since(start) - patience; d < 11*time.Millisecond || d > 200*time.Millisecond {
			t.Errorf("took %v", d)
		}
		expectFate(t, a.host, QueueFull, 9)
		a.host.SetLink(Conditions{Bandwidth: 1280})
		start = time.Now()
		a.send(b.addr(), long(100))
		for !b.waiting() {
			time.Sleep(time.Millisecond)
		}
		if d := time.Since(start); d < 100*time.Millisecond || d > 101*time.Millisecond {
			t.Errorf("128 bytes at 1280 a second took %v", d)
		}
	})
}

func TestMTU(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		a, b := newPair(t, n, Conditions{})
		fits := DefaultMTU - header4 - headerUDP
		a.send(b.addr(), long(fits+1)) // in fragments
		b.expect(long(fits + 1))
		if err := a.conn.DontFragment(true); err != nil {
			t.Fatal(err)
		}
		if err := a.trySend(b.addr(), long(fits+1)); !errors.Is(err, syscall.EMSGSIZE) {
			t.Errorf("longer than the own link takes: %v, want EMSGSIZE", err)
		}
		a.send(b.addr(), long(fits))
		b.expect(long(fits))
		b.host.SetLink(Conditions{MTU: 1280})
		a.send(b.addr(), long(fits)) // nobody says a word
		b.expectNothing()
		a.send(b.addr(), long(1280-header4-headerUDP))
		b.expect(long(1280 - header4 - headerUDP))
		expectFate(t, a.host, TooLong, 1)
		expectFate(t, b.host, TooLong, 1)
		if err := a.trySend(b.addr(), long(maxDatagram4+1)); !errors.Is(err, syscall.EMSGSIZE) {
			t.Errorf("longer than any datagram: %v, want EMSGSIZE", err)
		}
	})
}

// TestCut: conditions change while the world turns.
func TestCut(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		a, b := newPair(t, n, Conditions{})
		for _, tt := range []struct {
			name string
			set  func(Conditions)
			c    Conditions
		}{
			{"host", a.host.SetLink, Conditions{Down: true}},
			{"other host", b.host.SetLink, Conditions{Down: true}},
			{"UDP", a.host.SetLink, Conditions{NoUDP: true}},
			{"path", func(c Conditions) { n.SetPath(a.host, b.host, c) }, Conditions{Down: true}},
		} {
			tt.set(tt.c)
			a.send(b.addr(), tt.name)
			b.send(a.addr(), tt.name)
			a.expectNothing()
			b.expectNothing()
			tt.set(Conditions{})
			a.send(b.addr(), tt.name)
			b.expect(tt.name)
		}
		a.host.SetLinks(Conditions{}, Conditions{Down: true})
		a.send(b.addr(), "one way")
		b.expect("one way")
		b.send(a.addr(), "the other")
		a.expectNothing()
	})
}

func TestPathDelay(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		a, b := newPair(t, n, Conditions{Delay: 5 * time.Millisecond})
		n.SetPath(b.host, a.host, Conditions{Delay: 70 * time.Millisecond})
		took, err := a.host.Echo(t.Context(), b.host.Addr4(), nil)
		if err != nil || took != 150*time.Millisecond {
			t.Errorf("echo took %v (%v), want 150ms", took, err)
		}
	})
}

// TestGrid: what is due between two points of the grid happens at the second.
func TestGrid(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		n.SetGrid(10 * time.Millisecond)
		a, b := newPair(t, n, Conditions{Delay: 12 * time.Millisecond})
		start := time.Now()
		a.send(b.addr(), "hello")
		time.Sleep(20*time.Millisecond - time.Microsecond - time.Since(start))
		synctest.Wait()
		if b.waiting() {
			t.Error("came too early")
		}
		time.Sleep(2 * time.Microsecond)
		synctest.Wait()
		if !b.waiting() {
			t.Error("has not come at 20ms")
		}
	})
}

func TestTap(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		home := n.AddRouter("home", RouterConfig{NAT: NAT{RandomPorts: true}})
		a, b := listen4(t, home.AddHost("a", HostConfig{})), listen4(t, n.AddHost("b", HostConfig{}))
		var seen []string
		n.SetTap(func(p Packet) {
			seen = append(seen, fmt.Sprint(p.Where, " ", p.Fate, " ", p.Protocol, " ", string(p.Payload)))
		})
		a.send(b.addr(), "hello")
		b.send(b.addr(), "self")
		a.send(at(b.host, 9), "closed")
		n.SetTap(nil)
		a.send(b.addr(), "unseen")
		want := "[a sent UDP hello b delivered UDP hello b sent UDP self b delivered UDP self a sent UDP closed b no socket UDP closed]"
		if got := fmt.Sprint(seen); got != want {
			t.Errorf("seen %s\nwant %s", got, want)
		}
	})
}
