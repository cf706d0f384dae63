package netstack

import (
	"io"
	"net/netip"
	"runtime"
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
	l := newLink(DefaultMTU)
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
	l := newLink(DefaultMTU)
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
			l := newLink(DefaultMTU)
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

// Guard: gVisor puts TCP's headers in one piece, hands out super-packets of the
// size that one sendmsg takes, with a partial checksum, and the payload by
// reference (WG-63).
func TestGuardSuperPackets(t *testing.T) {
	a, b := newStack(t, a4), newStack(t, b4)
	var mu sync.Mutex
	largest := 0
	detach := a.Link().Attach()
	defer detach()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		d := b.Link().NewDelivery()
		out := make([]packet.Outbound, 16)
		for {
			n := a.Link().Next(out)
			for i := range out[:n] {
				o := &out[i]
				if len(o.Head) < 40 || len(o.Head) > 80 {
					t.Errorf("head of %d bytes", len(o.Head))
				}
				if o.Segment != 0 && !o.Partial {
					t.Error("super-packet with a whole checksum")
				}
				mu.Lock()
				largest = max(largest, o.Len())
				mu.Unlock()
				for _, pkt := range cut(t, o) {
					if len(pkt) > DefaultMTU {
						t.Errorf("piece of %d bytes", len(pkt))
					}
					copy(d.Reserve(len(pkt)), pkt)
					d.Commit(packet.Merged{Len: len(pkt), Count: 1})
				}
			}
			a.Link().Done(n)
			d.Flush()
			select {
			case <-stop:
				return
			case <-a.Link().Ready():
			}
		}
	})
	wg.Go(func() { carryUntil(t, stop, b.Link(), a.Link()) })
	ln := listenTCP(t, b, anyPort)
	go func() {
		if c, err := ln.Accept(); err == nil {
			io.Copy(io.Discard, c)
			c.Close()
		}
	}()
	c := dialTCP(t, a, netip.AddrPortFrom(b4, portOf(ln.Addr())))
	c.Write(make([]byte, 16<<20))
	c.CloseWrite()
	io.ReadAll(c)
	close(stop)
	a.Link().signal()
	b.Link().signal()
	wg.Wait()
	if want := int(gsoMaxSize(DefaultMTU)); largest > want || largest < want/2 {
		t.Errorf("largest super-packet has %d bytes, want up to %d", largest, want)
	}
}

func carryUntil(t testing.TB, stop chan struct{}, from, to *Link) {
	d := to.NewDelivery()
	out := make([]packet.Outbound, 16)
	for {
		n := from.Next(out)
		for i := range out[:n] {
			for _, pkt := range cut(t, &out[i]) {
				copy(d.Reserve(len(pkt)), pkt)
				d.Commit(packet.Merged{Len: len(pkt), Count: 1})
			}
		}
		from.Done(n)
		d.Flush()
		select {
		case <-stop:
			return
		case <-from.Ready():
		}
	}
}

func TestGSOMaxSize(t *testing.T) {
	if got := gsoMaxSize(1280); got != 59353 { // wireguard.md section 7.1
		t.Errorf("got %d, want 59353", got)
	}
}

// Guard: a merged packet with a stale TCP checksum is taken, because the link
// announces that received checksums are right (WG-71).
func TestGuardStaleChecksumIsTaken(t *testing.T) {
	a, b := pair(t)
	_ = a
	pc, err := b.ListenUDP(netip.AddrPortFrom(b4, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	pkt, err := packet.AppendIP(nil, a4, b4, packet.UDP, 8+5)
	if err != nil {
		t.Fatal(err)
	}
	port := portOf(pc.LocalAddr())
	pkt = append(pkt, 0, 9, byte(port>>8), byte(port), 0, 13, 0xde, 0xad)
	b.Link().Inject(append(pkt, "hello"...))
	pc.SetReadDeadline(time.Now().Add(patience))
	got := make([]byte, 10)
	if n, _, err := pc.ReadFrom(got); err != nil || string(got[:n]) != "hello" {
		t.Errorf("got %q, %v", got[:n], err)
	}
}

func TestDeliveryCopiesSparsePackets(t *testing.T) {
	s := newStack(t, a4)
	d := s.Link().NewDelivery()
	big := d.Reserve(60 << 10)
	if len(big) != 60<<10 {
		t.Fatalf("reserved %d bytes", len(big))
	}
	d.Commit(packet.Merged{Len: 1280, Count: 1})
	if d.reserved == nil {
		t.Error("a 64 KiB chunk went with a packet of 1280 bytes")
	}
	if got := d.pending[0].Size(); got != 1280 {
		t.Errorf("packet of %d bytes", got)
	}
	d.Flush()
}

// What is no IP packet, or has no length, is dropped.
func TestDeliverGarbage(t *testing.T) {
	s := newStack(t, a4)
	for _, pkt := range [][]byte{nil, {0}, {0x45}, {0x60}, make([]byte, 1280)} {
		s.Link().Inject(pkt)
	}
	d := s.Link().NewDelivery()
	d.Commit(packet.Merged{Len: 10}) // nothing reserved
	d.Flush()
}

func TestDrainAllocatesNothing(t *testing.T) {
	l := newLink(DefaultMTU)
	defer l.close()
	p := fakePacket(t, 1200)
	out := make([]packet.Outbound, 4)
	if n := testing.AllocsPerRun(1000, func() {
		l.push(p)
		l.Done(l.Next(out))
	}); n != 0 {
		t.Errorf("%v allocations per packet", n)
	}
}
