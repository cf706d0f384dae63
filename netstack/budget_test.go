package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// limited returns a stack whose sockets share a number of bytes.
func limited(t testing.TB, buffers int64, addr netip.Addr) *Stack {
	t.Helper()
	return newStackOf(t, Config{Buffers: buffers}, addr)
}

// unread returns how many bytes of payload the connections of s hold for their
// programs.
func unread(s *Stack) (n int64) {
	for _, q := range queues(s) {
		n += int64(q)
	}
	return n
}

// filled returns how many connections of s hold something.
func filled(s *Stack) (n int) {
	for _, q := range queues(s) {
		if q > 0 {
			n++
		}
	}
	return n
}

func queues(s *Stack) (all []int) {
	for _, e := range s.gv.RegisteredEndpoints() {
		if ep, ok := e.(tcpip.Endpoint); ok {
			q, _ := ep.GetSockOptInt(tcpip.ReceiveQueueSizeOption)
			all = append(all, q)
		}
	}
	return all
}

// Connections that nobody reads hold no more than the budget, accepted or not:
// those that do not fit are refused and counted, and nothing is held when all are
// closed.
func TestBudgetBoundsWhatNobodyReads(t *testing.T) {
	const buffers, most, waiting = 8 << 20, 500, 40
	a, b := newStack(t, a4), limited(t, buffers, b4)
	join(t, a, b, segmented)
	ln := listenTCP(t, b, anyPort)
	dst := netip.AddrPortFrom(b4, portOf(ln.Addr()))
	var all []net.Conn
	for len(all) < most {
		c := dialUnlessRefused(t, a, b, dst)
		if c == nil {
			break
		}
		go c.Write(make([]byte, 64<<10)) // more than fits; Close ends it
		if all = append(all, c); len(all) > waiting {
			c, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
	}
	if len(all) < most/2 || len(all) == most {
		t.Errorf("%d connections fit %d bytes", len(all), buffers)
	}
	eventually(t, func() bool { return filled(b) == len(all) })
	if s := b.Stats(); s.Buffers > buffers || unread(b) > s.Buffers {
		t.Errorf("%d bytes of %d accounted for, %d unread", s.Buffers, buffers, unread(b))
	}
	t.Logf("%d connections, %d bytes unread, %d refused", len(all), unread(b), b.Stats().TCPRefused)
}

// dialUnlessRefused connects a to b, or returns nil when b has refused it.
func dialUnlessRefused(t testing.TB, a, b *Stack, dst netip.AddrPort) net.Conn {
	t.Helper()
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	got := make(chan net.Conn, 1)
	go func() {
		c, err := a.DialTCP(ctx, netip.Addr{}, dst)
		if err != nil {
			c = nil
		}
		got <- c
	}()
	eventually(t, func() bool { return len(got) > 0 || b.Stats().TCPRefused > 0 })
	cancel()
	c := <-got
	if c != nil {
		t.Cleanup(func() { c.Close() })
	}
	return c
}

// What brings packets in never waits for the budget: while others hold it, a SYN
// passes, and the listener looks again (WG-84).
func TestBudgetNeverHoldsUpArrivals(t *testing.T) {
	b := newBudget(LeastMemory, DefaultMTU, func() int { return 1 })
	if b.admits() || b.refusals() != 1 {
		t.Fatalf("a full budget admits another connection; %d refused", b.refusals())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.admits() {
		t.Error("refused while others hold the budget")
	}
}

// What connections had is free when they are closed, whichever end was first.
func TestBudgetIsWholeAfterClose(t *testing.T) {
	a, b := limited(t, 4<<20, a4), limited(t, 4<<20, b4)
	join(t, a, b, segmented)
	for i := range 20 {
		client, server := connected(t, a, b, b4)
		client.Write(make([]byte, 1000))
		ends := []io.Closer{client, server}
		ends[i%2].Close()
		ends[1-i%2].Close()
	}
	eventually(t, func() bool { return a.Stats().Buffers == 0 && b.Stats().Buffers == 0 })
}

// A read or a write that ends after Close, with what came or went before it, gets
// its connection no more memory: nobody would give it back.
func TestBudgetAfterClose(t *testing.T) {
	a, b := limited(t, 4<<20, a4), newStack(t, b4)
	join(t, a, b, segmented)
	client, server := connected(t, a, b, b4)
	account := client.account
	server.Close()
	client.Close()
	for _, s := range []*share{&account.receive, &account.send} {
		if account.budget.grow(account, s, 1<<20, 1<<20) {
			t.Error("a connection that is closed gets memory")
		}
	}
	eventually(t, func() bool { return a.Stats().Buffers == 0 })
}

// A dial for which there is no memory says so.
func TestDialBeyondBudget(t *testing.T) {
	a, b := limited(t, 64<<10, a4), newStack(t, b4)
	join(t, a, b, segmented)
	ln := listenTCP(t, b, anyPort)
	dst := netip.AddrPortFrom(b4, portOf(ln.Addr()))
	first := dialTCP(t, a, dst)
	var err error
	for range 4 {
		var c io.Closer
		if c, err = a.DialTCP(within(t), netip.Addr{}, dst); err != nil {
			break
		}
		defer c.Close()
	}
	if !errors.Is(err, syscall.ENOBUFS) || a.Stats().TCPRefused == 0 {
		t.Errorf("dial: %v, want ENOBUFS; %d refused", err, a.Stats().TCPRefused)
	}
	first.SetLinger(0)
	first.Close()
	dialTCP(t, a, dst)
}

// One stream gets what it needs, on both ends; when others come it is cut to a
// share of it, and none of them stalls.
func TestBudgetFollowsUse(t *testing.T) {
	const buffers, streams, each = 2 << 20, 8, 1 << 20
	a, b := limited(t, buffers, a4), limited(t, buffers, b4)
	join(t, a, b, segmented)
	var all sync.WaitGroup
	transfer := func() {
		client, server := connected(t, a, b, b4)
		all.Go(func() {
			client.Write(make([]byte, each))
			client.CloseWrite()
		})
		all.Go(func() {
			if n, err := io.Copy(io.Discard, server); n != each || err != nil {
				t.Errorf("%d of %d bytes came: %v", n, each, err)
			}
			server.Close()
			client.Close()
		})
	}
	for range streams {
		transfer()
		for _, s := range []*Stack{a, b} {
			if n := s.Stats().Buffers; n > buffers {
				t.Errorf("%d bytes of %d accounted for", n, buffers)
			}
		}
	}
	all.Wait()
	eventually(t, func() bool { return a.Stats().Buffers == 0 && b.Stats().Buffers == 0 })
}

// A connection whose window has closed because nobody read goes on when somebody
// does, although shares have changed in the meantime.
func TestBudgetReopensClosedWindow(t *testing.T) {
	const size = 1 << 20
	a, b := newStack(t, a4), limited(t, 512<<10, b4)
	join(t, a, b, segmented)
	client, server := connected(t, a, b, b4)
	go func() { client.Write(make([]byte, size)); client.CloseWrite() }()
	eventually(t, func() bool { return unread(b) > 12<<10 }) // of a window of 16 KiB
	for range 4 {                                            // others come, use what there is, and go
		c, s := connected(t, a, b, b4)
		go func() { c.Write(make([]byte, size)); c.CloseWrite() }()
		io.Copy(io.Discard, s)
		s.Close()
	}
	if n, err := io.Copy(io.Discard, server); n != size || err != nil {
		t.Errorf("%d of %d bytes came: %v", n, size, err)
	}
}

// Sockets of UDP share a quota, and give it back when they are read or closed.
func TestQuotaOfDatagrams(t *testing.T) {
	const buffers, size = 64 << 10, 1000
	s := limited(t, buffers, a4)
	first, second := listenUDP(t, s, anyPort), listenUDP(t, s, anyPort)
	fill := func(c *UDPConn) (taken uint64) {
		before := s.Stats().UDPOverflow
		to := netip.AddrPortFrom(a4, portOf(c.LocalAddr()))
		for s.Stats().UDPOverflow == before {
			s.Link().Inject(udpPacket(t, netip.AddrPortFrom(b4, 9), to, string(make([]byte, size))))
			taken++
		}
		return taken - 1
	}
	if n := fill(first); n < 8 || n > 16 {
		t.Errorf("%d datagrams of %d bytes in a quarter of %d", n, size, buffers)
	}
	if n := fill(second); n != 0 {
		t.Errorf("the second socket took %d datagrams that have no room", n)
	}
	if _, err := first.Read(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if n := fill(second); n != 1 {
		t.Errorf("the second socket took %d datagrams in the room of one", n)
	}
	first.Close()
	second.Close()
	if n := s.Stats().Buffers; n != 0 {
		t.Errorf("%d bytes are held by sockets that are closed", n)
	}
}

// Writers whose peers take nothing do not fill what a stream needs that is read.
func TestBudgetLeavesRoomForTheFast(t *testing.T) {
	const buffers, slow, size = 8 << 20, 60, 4 << 20
	a, b := limited(t, buffers, a4), limited(t, buffers, b4)
	join(t, a, b, merged)
	for range slow {
		client, _ := connected(t, a, b, b4)
		go client.Write(make([]byte, size))
	}
	eventually(t, func() bool { return filled(b) == slow })
	for _, s := range []*Stack{a, b} {
		s.budget.mu.Lock()
		if room := s.budget.room(); room < buffers/8 {
			t.Errorf("%d bytes of %d are left beside %d slow connections", room, buffers, slow)
		}
		s.budget.mu.Unlock()
	}
	client, server := connected(t, a, b, b4)
	go func() { client.Write(make([]byte, size)); client.CloseWrite() }()
	if n, err := io.Copy(io.Discard, server); n != size || err != nil {
		t.Errorf("%d of %d bytes came: %v", n, size, err)
	}
}
