package netstack

import (
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/seed94491740/tsnode/packet"
)

// fakePacket returns a TCP packet of size payload bytes, as far as the link
// looks at it.
func fakePacket(t testing.TB, size int) *stack.PacketBuffer {
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: 40, Payload: buffer.MakeWithData(make([]byte, size))})
	p.TransportProtocolNumber = header.TCPProtocolNumber
	p.TransportHeader().Push(20)
	p.NetworkHeader().Push(20)
	t.Cleanup(p.DecRef)
	return p
}

// Without a drain loop no write waits: the queue fills up and then refuses
// (WG-83).
func TestPushRefusesWithoutDrain(t *testing.T) {
	l := newLink(newNIC(DefaultMTU))
	p := fakePacket(t, 60<<10)
	for range 100 {
		if err := l.push(p); err != nil {
			if _, ok := err.(*tcpip.ErrNoBufferSpace); !ok {
				t.Fatalf("got %v, want ErrNoBufferSpace", err)
			}
			if l.bytes < queueLimit || l.bytes > queueLimit+p.Size()+queueOverhead {
				t.Errorf("%d bytes are queued, limit %d", l.bytes, queueLimit)
			}
			l.close()
			return
		}
	}
	t.Fatal("6 MB fit the queue")
}

// With a drain loop a TCP write waits until there is room; a packet
// without payload may use the reserve and is then refused.
func TestPushWaitsForRoom(t *testing.T) {
	l := newLink(newNIC(DefaultMTU))
	detach := l.Attach()
	defer detach()
	defer l.close()
	p, ack := fakePacket(t, 60<<10), fakePacket(t, 0)
	for l.bytes < queueLimit {
		if err := l.push(p); err != nil {
			t.Fatal(err)
		}
	}
	var order []int
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			if err := l.push(p); err != nil {
				t.Error(err)
			}
			mu.Lock()
			order = append(order, i)
			mu.Unlock()
		})
		for waiting(l) != i+1 { // it has joined the queue of waiters
			runtime.Gosched()
		}
	}
	if l.Queued() < queueLimit {
		t.Errorf("a full queue says that %d bytes wait", l.Queued())
	}
	if err := l.push(ack); err != nil {
		t.Errorf("a pure ACK found no reserve: %v", err)
	}
	out := make([]packet.Outbound, 2)
	for waiting(l) > 0 {
		l.Next(out)
		l.Done(0)
		runtime.Gosched()
	}
	wg.Wait()
	if len(order) != 3 {
		t.Errorf("%d of 3 writes came through", len(order))
	}
	for l.Next(out) > 0 {
		l.Done(0)
	}
	if l.Queued() != 0 {
		t.Errorf("an empty queue says that %d bytes wait", l.Queued())
	}
}

func waiting(l *Link) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiters)
}

// The end of the drain loop, and Close, wake the writes that wait.
func TestWaitersWakeWhenNothingDrains(t *testing.T) {
	for name, end := range map[string]func(l *Link, detach func()){
		"detach": func(_ *Link, detach func()) { detach() },
		"close":  func(l *Link, _ func()) { l.close() },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLink(newNIC(DefaultMTU))
			detach := l.Attach()
			defer l.close()
			p := fakePacket(t, 60<<10)
			for l.bytes < queueLimit {
				l.push(p)
			}
			got := make(chan tcpip.Error, 1)
			go func() { got <- l.push(p) }()
			for waiting(l) == 0 {
				runtime.Gosched()
			}
			end(l, detach)
			select {
			case err := <-got:
				if err == nil {
					t.Error("the write succeeded")
				}
			case <-time.After(patience):
				t.Fatal("the write still waits")
			}
		})
	}
}

func TestGSOMaxSize(t *testing.T) {
	if got := gsoMaxSize(1280); got != 59353 { // wireguard.md section 7.1
		t.Errorf("got %d, want 59353", got)
	}
}

// Packets that a drain loop took and did not give back, because it failed, are
// given back by the next one.
func TestNextAfterFailure(t *testing.T) {
	l := newLink(newNIC(DefaultMTU))
	defer l.close()
	p := fakePacket(t, 100)
	for range 6 {
		l.push(p)
	}
	out := make([]packet.Outbound, 4)
	if n := l.Next(out); n != 4 {
		t.Fatalf("Next gave %d packets, want 4", n)
	}
	if n := l.Next(out[:1]); n != 1 || len(l.taken) != 1 {
		t.Errorf("after a failure Next gave %d packets and holds %d, want 1", n, len(l.taken))
	}
	l.Done(1)
	if n := l.Next(out); n != 1 {
		t.Errorf("%d packets are left, want 1", n)
	}
	l.Done(1)
	if l.bytes != 0 || l.queue.size != 0 {
		t.Errorf("%d bytes are counted in an empty queue", l.bytes)
	}
}

// Packets leave in the order they came, across the growth and the end of the
// ring; an empty one that was large gives its memory back.
func TestRing(t *testing.T) {
	var r ring
	var want, got []*stack.PacketBuffer
	push := func(n int) {
		for range n {
			p := fakePacket(t, 0)
			want = append(want, p)
			r.push(p)
		}
	}
	pop := func(n int) {
		for range n {
			got = append(got, r.pop())
		}
	}
	push(10)
	pop(7)
	push(20) // grows when it is wrapped
	pop(20)
	push(500)
	if len(r.buf) < 500 {
		t.Errorf("503 packets in a ring of %d", len(r.buf))
	}
	pop(503)
	if !slices.Equal(got, want) {
		t.Error("packets change their order")
	}
	if r.pop() != nil || len(r.buf) > keepRing {
		t.Errorf("an empty ring keeps %d places", len(r.buf))
	}
}
