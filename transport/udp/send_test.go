package udp

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/transport"
)

type burst = packet.Burst

// withSocket runs f with a socket over fakes that is bound.
func withSocket(t *testing.T, f func(t *testing.T, s *Socket, n *fakeNetwork)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := new(fakeNetwork)
		s := New(Config{Network: n, NewReceiver: newDatagrams().receiver})
		defer serve(t, s)()
		synctest.Wait()
		f(t, s, n)
	})
}

// TestSendFamily: the address decides the socket, mapped addresses included.
func TestSendFamily(t *testing.T) {
	tests := map[string]string{
		"192.0.2.1:9":          "udp4",
		"[::ffff:192.0.2.1]:9": "udp4",
		"[2001:db8::1]:9":      "udp6",
		"[fe80::1%eth0]:9":     "udp6",
	}
	withSocket(t, func(t *testing.T, s *Socket, n *fakeNetwork) {
		for addr, family := range tests {
			c := n.conn(family)
			c.sent = nil
			if err := s.Send(transport.Endpoint{Addr: netip.MustParseAddrPort(addr)}, single([]byte(addr))); err != nil {
				t.Errorf("to %s: %v", addr, err)
			}
			if len(c.sent) != 1 || string(c.sent[0].Buf) != addr {
				t.Errorf("to %s: %s socket sent %v", addr, family, c.sent)
			}
		}
	})
}

func TestSendNotUDP(t *testing.T) {
	withSocket(t, func(t *testing.T, s *Socket, _ *fakeNetwork) {
		for _, to := range []transport.Endpoint{{}, {Region: 7, Key: key.NewNode().Public()}} {
			if err := s.Send(to, single([]byte("x"))); err == nil || errors.Is(err, transport.ErrUnreachable) {
				t.Errorf("to %v: %v, want an error that is not ErrUnreachable", to, err)
			}
		}
	})
}

// TestSendRoom: Room goes out behind a peer relay and nowhere else (WG-60).
func TestSendRoom(t *testing.T) {
	buf := []byte("12345678aaaa12345678bbbb12345678c")
	withSocket(t, func(t *testing.T, s *Socket, n *fakeNetwork) {
		bursts := []burst{{Buf: bytes.Clone(buf), Room: 8, Size: 4, Count: 3}}
		relay := peer4
		relay.VNI = 77
		for to, want := range map[transport.Endpoint][]string{
			relay: {string(buf)},
			peer4: {"aaaa", "bbbb", "c"},
		} {
			c := n.conn("udp4")
			c.sent = nil
			if err := s.Send(to, bursts); err != nil {
				t.Errorf("VNI %d: %v", to.VNI, err)
			}
			var got []string
			for _, b := range c.sent {
				got = append(got, string(b.Buf))
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("VNI %d: sent %q, want %q", to.VNI, got, want)
			}
		}
		if !bytes.Equal(bursts[0].Buf, buf) {
			t.Error("a borrowed burst was changed")
		}
	})
}

// TestSendErrors is the table of PATH-59 with the additions of PATH-60.
func TestSendErrors(t *testing.T) {
	data := []byte{4, 0, 0, 0, 1, 2, 3, 4}
	disco := append(bytes.Clone(discoMagic), 1, 2, 3)
	stun := []byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}
	tests := []struct {
		err   error
		what  []byte
		count func(Stats) uint64
		want  error // nil: Send reports nothing
		cures bool  // leads to a rebind
	}{
		{syscall.EPERM, disco, lostOf, nil, false},
		{syscall.EPERM, stun, lostOf, nil, false},
		{syscall.EPERM, data, lostOf, nil, true},
		{syscall.EPIPE, data, lostOf, nil, true},
		{syscall.EPIPE, disco, lostOf, nil, true},
		{syscall.ENOTCONN, data, lostOf, nil, true},
		{syscall.EBADF, data, lostOf, nil, true},
		{net.ErrClosed, data, lostOf, nil, true},
		{syscall.EHOSTUNREACH, data, unreachableOf, transport.ErrUnreachable, false},
		{syscall.ENETUNREACH, data, unreachableOf, transport.ErrUnreachable, false},
		{syscall.EADDRNOTAVAIL, disco, unreachableOf, transport.ErrUnreachable, false},
		{syscall.ENETDOWN, stun, unreachableOf, transport.ErrUnreachable, false},
		{syscall.EMSGSIZE, disco, lostOf, nil, false},
		{syscall.EMSGSIZE, data, failedOf, syscall.EMSGSIZE, false},
		{syscall.ENOBUFS, data, lostOf, nil, false},
		{syscall.EAGAIN, data, lostOf, nil, false},
		{syscall.EINVAL, data, failedOf, syscall.EINVAL, false},
		{errors.New("odd"), nil, failedOf, errors.New("odd"), false},
	}
	for _, tt := range tests {
		withSocket(t, func(t *testing.T, s *Socket, n *fakeNetwork) {
			time.Sleep(rebindPause) // a rebind is free to happen
			n.takeBinds()
			n.conn("udp4").failWith(&net.OpError{Op: "write", Err: os.NewSyscallError("sendmmsg", tt.err)})
			bursts := single(tt.what)
			err := s.Send(peer4, bursts)
			if (err == nil) != (tt.want == nil) {
				t.Errorf("%v of %x: Send returned %v, want %v", tt.err, tt.what, err, tt.want)
			}
			if errors.Is(tt.want, transport.ErrUnreachable) != errors.Is(err, transport.ErrUnreachable) || err != nil && !errors.Is(err, tt.err) {
				t.Errorf("%v of %x: Send returned %v", tt.err, tt.what, err)
			}
			if got := tt.count(s.Stats()); got != 1 {
				t.Errorf("%v of %x: stats %+v", tt.err, tt.what, s.Stats())
			}
			synctest.Wait()
			if rebound := len(n.takeBinds()) > 0; rebound != tt.cures {
				t.Errorf("%v of %x: rebound: %v, want %v", tt.err, tt.what, rebound, tt.cures)
			}
		})
	}
}

func lostOf(s Stats) uint64        { return s.Lost }
func unreachableOf(s Stats) uint64 { return s.Unreachable }
func failedOf(s Stats) uint64      { return s.Failed }

// TestSendUnbound: before Serve a send is dropped and counted, not refused.
func TestSendUnbound(t *testing.T) {
	s := New(Config{Network: new(fakeNetwork), NewReceiver: newDatagrams().receiver})
	if err := s.Send(peer6, []burst{{Buf: []byte("aabbc"), Size: 2, Count: 3}}); err != nil {
		t.Errorf("send: %v", err)
	}
	if got := s.Stats().Unbound; got != 3 {
		t.Errorf("%d datagrams counted, want 3", got)
	}
}

// TestAllocs: neither Send nor what a reader does with a batch allocates
// (PATH-104, WG-82).
func TestAllocs(t *testing.T) {
	conn, err := host.OS{}.ListenUDP(t.Context(), "udp4", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s := New(Config{Network: host.OS{}, NewReceiver: func() transport.Receiver { return silent{} }})
	s.v4.conns[0].Store(conn)
	to := transport.Endpoint{Addr: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), conn.LocalAddr().Port())}
	bursts := []burst{{Buf: make([]byte, 16*1312), Size: 1312, Count: 16}}
	r := newReader(s, s.v4, 0)
	if n := testing.AllocsPerRun(100, func() {
		if err := s.Send(to, bursts); err != nil {
			t.Fatal(err)
		}
		for before := s.stats.receivedBytes.Load(); s.stats.receivedBytes.Load()-before < uint64(len(bursts[0].Buf)); {
			if err := r.pass(conn); err != nil {
				t.Fatal(err)
			}
		}
	}); n != 0 && !raceEnabled {
		t.Errorf("%v allocations for a send and its reads, want none", n)
	}
}

type silent struct{}

func (silent) Receive(transport.Endpoint, []byte, int, int) {}
func (silent) Flush()                                       {}
