package udp

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/transport"
)

// full returns a read that takes all buffers, of datagrams from so many senders.
func full(senders int) read {
	var r read
	for i := range readBuffers {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i % senders)}), 41641)
		r.messages = append(r.messages, host.Message{Buf: []byte{byte(i)}, Segment: 1, From: from})
	}
	return r
}

// first is a read of the first n messages only.
func (r read) first(n int) read { return read{messages: r.messages[:n]} }

// busy has the reader of a socket take readBuffers messages from now on.
func busy(c *fakeConn, d *datagrams) {
	for range busyReads {
		c.reads <- full(1).first(quietBuffers)
	}
	synctest.Wait()
	for len(d.got) > 0 {
		<-d.got
	}
}

// TestBusyReader: reads take few messages until some in a row have been full, then
// as many as ever (WG-81), until few have long been enough.
func TestBusyReader(t *testing.T) {
	r := new(reader)
	for i, tt := range []struct {
		read int
		busy bool
	}{
		{quietBuffers, false}, {quietBuffers - 1, false}, {quietBuffers, false}, {quietBuffers, true},
		{1, true}, {readBuffers, true},
	} {
		if r.adapt(tt.read); r.busy != tt.busy {
			t.Errorf("after read %d, of %d: busy %v, want %v", i, tt.read, r.busy, tt.busy)
		}
	}
	for i := range calmReads {
		if r.adapt(quietBuffers); r.busy != (i < calmReads-1) {
			t.Fatalf("after calm read %d: busy %v", i, r.busy)
		}
	}
}

// TestReaderWaitsFirst: memory is taken once the socket has something, and as
// much as the reader is busy.
func TestReaderWaitsFirst(t *testing.T) {
	d := newDatagrams()
	c, r := &waitingConn{fakeConn: newFakeConn(netip.AddrPort{})}, &reader{socket: new(Socket), receiver: d.receiver(), crowded: true}
	for _, tt := range []struct{ given, asked int }{
		{quietBuffers, quietBuffers}, {quietBuffers, quietBuffers}, {readBuffers, readBuffers}, {1, readBuffers},
	} {
		c.wait = func() error { c.reads <- full(1).first(tt.given); return nil }
		if err := r.pass(c); err != nil || c.asked != tt.asked {
			t.Errorf("%v, %d messages asked for; want %d", err, c.asked, tt.asked)
		}
	}
	c.wait, c.asked = func() error { return net.ErrClosed }, 0
	if err := r.pass(c); err != net.ErrClosed || c.asked != 0 {
		t.Errorf("%v, and %d messages asked for", err, c.asked)
	}
}

// A waitingConn is a socket that can be waited for. What it reads comes while
// somebody waits.
type waitingConn struct {
	*fakeConn
	wait  func() error
	asked int // messages, by the last read
}

func (c *waitingConn) WaitRead() error { return c.wait() }

func (c *waitingConn) ReadBatch(ms []host.Message) (int, error) {
	c.asked = len(ms)
	return c.fakeConn.ReadBatch(ms)
}

// TestCrowdedSocket: a socket whose reads are full of several senders gets
// others at its port, all of which are read (WG-79); a rebind begins with one
// again, and so does a restart.
func TestCrowdedSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, d := new(fakeNetwork), newDatagrams()
		s := New(Config{Network: n, NewReceiver: d.receiver, Sockets: 3})
		for range 2 { // a restart
			stop := serve(t, s)
			for range 2 { // a rebind
				synctest.Wait()
				busy(n.conn("udp4"), d)
				checkCrowded(t, n.conn("udp4"), d)
				if got := len(n.conn("udp6").all()); got != 1 {
					t.Errorf("%d IPv6 sockets, where nothing comes", got)
				}
				s.Rebind()
			}
			stop()
			for _, c := range n.conn("udp4").all() {
				<-c.closed
			}
		}
	})
}

func checkCrowded(t *testing.T, c *fakeConn, d *datagrams) {
	t.Helper()
	for _, tt := range []struct {
		read read
		want int
	}{{full(1), 1}, {full(2).first(readBuffers - 1), 1}, {full(2), 3}, {full(2), 3}} {
		c.reads <- tt.read
		synctest.Wait()
		if got := len(c.all()); got != tt.want {
			t.Fatalf("%d sockets after a read of %d, want %d", got, len(tt.read.messages), tt.want)
		}
	}
	for len(d.got) > 0 {
		<-d.got
	}
	for i, c := range c.all() {
		text := fmt.Sprint("by socket ", i)
		c.reads <- read{messages: []host.Message{{Buf: []byte(text), Segment: len(text), From: peer4.Addr}}}
		if got := d.next(); string(got.b) != text {
			t.Errorf("received %q, want %q", got.b, text)
		}
	}
}

// TestOneSocket: without leave for more there is one, however crowded.
func TestOneSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, d := new(fakeNetwork), newDatagrams()
		defer serve(t, New(Config{Network: n, NewReceiver: d.receiver}))()
		synctest.Wait()
		busy(n.conn("udp4"), d)
		for range 3 {
			n.conn("udp4").reads <- full(2)
		}
		synctest.Wait()
		if got := len(n.conn("udp4").all()); got != 1 {
			t.Errorf("%d sockets", got)
		}
	})
}

// TestSharedSend: what is sent to one address goes by one of the sockets, and
// many addresses use all.
func TestSharedSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, d := new(fakeNetwork), newDatagrams()
		s := New(Config{Network: n, NewReceiver: d.receiver, Sockets: 4})
		defer serve(t, s)()
		synctest.Wait()
		busy(n.conn("udp4"), d)
		n.conn("udp4").reads <- full(2)
		synctest.Wait()
		const peers, each = 64, 3
		for range each {
			for i := range peers {
				to := transport.Endpoint{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), 41641)}
				if err := s.Send(to, single([]byte{byte(i)})); err != nil {
					t.Fatal(err)
				}
			}
		}
		for i, c := range n.conn("udp4").all() {
			sent := make(map[byte]int)
			for _, b := range c.sent {
				sent[b.Buf[0]]++
			}
			if len(sent) < peers/8 {
				t.Errorf("socket %d is used for %d of %d peers", i, len(sent), peers)
			}
			for peer, n := range sent {
				if n != each {
					t.Errorf("socket %d was used %d times of %d for peer %d", i, n, each, peer)
				}
			}
		}
	})
}

// TestShareRefused: where the host refuses, the sockets that there are do the
// work, and the operator reads of it once.
func TestShareRefused(t *testing.T) {
	for refusedAfter := range 2 {
		synctest.Test(t, func(t *testing.T) {
			var log bytes.Buffer
			n, d := new(fakeNetwork), newDatagrams()
			s := New(Config{Network: n, NewReceiver: d.receiver, Sockets: 4, Logger: textLogger(&log)})
			stop := serve(t, s)
			for range 2 {
				synctest.Wait()
				busy(n.conn("udp4"), d)
				n.conn("udp4").maxShares = refusedAfter
				n.conn("udp4").reads <- full(2)
				synctest.Wait()
				s.Rebind()
			}
			synctest.Wait()
			stop()
			if n := strings.Count(log.String(), "the host refuses a fast path of UDP"); n != 1 {
				t.Errorf("logged %d times, want once:\n%s", n, log.String())
			}
			if got := len(d.got); got != readBuffers+1 { // of the last; the end of the batch included
				t.Errorf("received %d of %d", got, readBuffers+1)
			}
		})
	}
}

// A seen is a Receiver that notes what comes, unless a test holds mu.
type seen struct {
	mu   sync.Mutex
	by   map[netip.AddrPort][]byte // one byte of each datagram
	more chan struct{}             // holds one
}

func (s *seen) Receive(from transport.Endpoint, b []byte, _, _ int) {
	s.mu.Lock()
	s.by[from.Addr] = append(s.by[from.Addr], b...)
	s.mu.Unlock()
	post(s.more)
}

func (*seen) Flush() {}

// await waits until every one of so many senders was heard with want.
func (s *seen) await(ctx context.Context, t *testing.T, senders int, want []byte) {
	t.Helper()
	complete := func() (n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, got := range s.by {
			if bytes.Equal(got, want) {
				n++
			}
		}
		return n
	}
	for complete() < senders {
		select {
		case <-s.more:
		case <-ctx.Done():
			t.Fatalf("%d of %d senders were heard with %v", complete(), senders, want)
		}
	}
}

// TestSharedPort: over sockets of the system nothing of any sender is lost or
// comes twice when further sockets are opened, and afterwards (WG-79).
func TestSharedPort(t *testing.T) {
	const senders, after = 4 * readBuffers, 4
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	heard := &seen{by: make(map[netip.AddrPort][]byte), more: make(chan struct{}, 1)}
	s := New(Config{Network: host.OS{}, Sockets: 4, NewReceiver: func() transport.Receiver { return heard }})
	_, bound := s.Bound()
	defer serve(t, s)()
	<-bound
	port, _ := s.LocalPorts()
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
	var conns []host.UDPConn
	for range senders {
		c, err := host.OS{}.ListenUDP(ctx, "udp4", 0)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	_, shares := conns[0].(host.Sharer)
	var sent []byte
	for left := after; left > 0; {
		heard.mu.Lock() // holds the reader up: what comes meanwhile fills a read
		for _, c := range conns {
			if err := c.WriteBursts(to, single([]byte{byte(len(sent))})); err != nil {
				t.Error(err)
			}
		}
		heard.mu.Unlock()
		sent = append(sent, byte(len(sent)))
		heard.await(ctx, t, senders, sent)
		if !shares || s.v4.conns[3].Get() != nil {
			left--
		}
	}
}
