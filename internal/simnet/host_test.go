package simnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/packet"
)

func TestMove(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		home := n.AddRouter("home", RouterConfig{Link: Conditions{Delay: 10 * time.Millisecond}})
		cafe := n.AddRouter("cafe", RouterConfig{LAN: netip.MustParsePrefix("10.0.0.0/24"), IPv6: true})
		a, server := home.AddHost("a", HostConfig{}), n.AddHost("server", HostConfig{})
		sa, ss := listen(t, a, "udp4", 5000), listen4(t, server)
		s := connect(t, a, server, at(server, 80).String())
		defer s.close()
		changes := make(chan struct{}, 10)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- a.Watch(ctx, func() { changes <- struct{}{} }) }()
		synctest.Wait()

		sa.send(ss.addr(), "from home")
		old := ss.expect("from home")
		ss.send(old, "on its way")
		a.Move(cafe)
		synctest.Wait()
		if len(changes) != 1 {
			t.Errorf("Watch told %d changes, want one", len(changes))
		}
		sa.expectNothing()
		if got := a.Addr4(); got != netip.MustParseAddr("10.0.0.2") || !a.Addr6().IsValid() {
			t.Errorf("addresses %v and %v in the café", got, a.Addr6())
		}
		if r, err := a.DefaultRoute(); err != nil || r != (host.Route{Interface: "eth0", Gateway: cafe.Gateway(), Source: a.Addr4()}) {
			t.Errorf("default route %v, %v", r, err)
		}
		sa.send(ss.addr(), "from the café")
		if from := ss.expect("from the café"); from.Addr() != cafe.Outer() {
			t.Errorf("from %v, want %v", from, cafe.Outer())
		}
		// the connection stalls, and goes on if the address comes back
		fmt.Fprint(s.client, "still there?")
		time.Sleep(time.Minute)
		if s.waiting() != len("still there?") {
			t.Error("a connection has changed its address")
		}
		a.Move(home, netip.MustParseAddr("192.168.1.2"))
		time.Sleep(time.Minute)
		b := make([]byte, len("still there?"))
		if _, err := io.ReadFull(s.server, b); err != nil {
			t.Errorf("after the return: %v", err)
		}
		a.Unplug()
		if _, err := a.DefaultRoute(); !errors.Is(err, host.ErrNoRoute) {
			t.Errorf("default route without network: %v", err)
		}
		if err := sa.trySend(ss.addr(), "x"); !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("send without network: %v, want ENETUNREACH", err)
		}
		synctest.Wait()
		if len(changes) < 2 {
			t.Errorf("Watch told %d changes", len(changes))
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch: %v", err)
		}
	})
}

func TestAddresses(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		home := n.AddRouter("home", RouterConfig{})
		a, b := home.AddHost("a", HostConfig{Interface: "wlan0"}), home.AddHost("b", HostConfig{})
		sa, sb := listen4(t, a), listen4(t, b)
		second := netip.MustParseAddr("192.168.1.77")
		a.AddAddr(second)
		sb.send(netip.AddrPortFrom(second, sa.conn.port), "to the second")
		sa.expect("to the second")
		want := []host.Interface{
			{Name: "lo", Loopback: true, Addrs: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix("::1/128")}},
			{Name: "wlan0", Addrs: []netip.Prefix{netip.MustParsePrefix("192.168.1.2/24"), netip.MustParsePrefix("192.168.1.77/24")}},
		}
		if got, err := a.Interfaces(); err != nil || !cmp.Equal(got, want, cmpopts.EquateComparable(netip.Prefix{})) {
			t.Errorf("interfaces %v (%v), want %v", got, err, want)
		}
		a.RemoveAddr(netip.MustParseAddr("192.168.1.2"))
		sa.send(sb.addr(), "from the second")
		if from := sb.expect("from the second"); from.Addr() != second {
			t.Errorf("from %v, want %v", from, second)
		}
		sb.send(netip.MustParseAddrPort("192.168.1.2:9"), "to the first")
		expectFate(t, n, NoHost, 1)
		a.RemoveAddr(second)
		if err := sa.trySend(sb.addr(), "x"); !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("send without address: %v, want ENETUNREACH", err)
		}
	})
}

func TestUDPSocket(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		a, b := n.AddHost("a", HostConfig{}), n.AddHost("b", HostConfig{})
		s := listen(t, a, "udp4", 5000)
		listen(t, a, "udp6", 5000) // the families have ports of their own
		if _, err := a.ListenUDP(t.Context(), "udp4", 5000); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("the same port again: %v, want EADDRINUSE", err)
		}
		if _, err := a.ListenUDP(t.Context(), "udp", 0); err == nil {
			t.Error("family udp was accepted")
		}
		if err := s.trySend(netip.MustParseAddrPort("[2001:db8::1]:1"), "x"); !errors.Is(err, errFamily) {
			t.Errorf("an IPv6 address: %v, want errFamily", err)
		}
		peer := listen4(t, b)
		if err := s.trySend(netip.AddrPortFrom(netip.AddrFrom16(peer.addr().Addr().As16()), peer.conn.port), "mapped"); err != nil {
			t.Errorf("mapped address: %v", err)
		}
		if from := peer.expect("mapped"); from != s.addr() {
			t.Errorf("from %v, want %v", from, s.addr())
		}
		s.send(netip.AddrPortFrom(loopback(false), 5000), "loop")
		if from := s.expect("loop"); !from.Addr().IsLoopback() {
			t.Errorf("from %v, want loopback", from)
		}
		s.send(peer.addr(), "")
		if k, err := peer.conn.ReadBatch(peer.ms); k != 1 || err != nil || peer.ms[0].N != 0 {
			t.Errorf("an empty datagram: %d messages, %v", k, err)
		}
		done := make(chan error)
		go func() {
			_, err := s.conn.ReadBatch(s.ms)
			done <- err
		}()
		synctest.Wait()
		s.conn.Close()
		s.conn.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("read: %v, want net.ErrClosed", err)
		}
		if err := s.trySend(peer.addr(), "x"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write: %v, want net.ErrClosed", err)
		}
		peer.send(at(a, 5000), "closed")
		expectFate(t, a, NoSocket, 1)
	})
}

// TestReceiveBuffer: it is bounded, and what it has no room for is counted.
func TestReceiveBuffer(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		a, b := newPair(t, n, Conditions{})
		const more = 100
		for range receiveBuffer/perDatagram + more {
			a.send(b.addr(), "x")
		}
		if k := b.conn.Overflows(); k != more {
			t.Errorf("%d overflows, want %d", k, more)
		}
		expectFate(t, b.host, BufferFull, more)
	})
}

// TestBursts: they cross links as datagrams, and a host that joins datagrams
// gives back bursts.
func TestBursts(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		a, b := newPair(t, n, Conditions{Delay: time.Millisecond})
		bursts := []packet.Burst{burst(100, 3, 40), burst(200, 1, 200), burst(50, 70, 50)}
		type read struct{ N, Segment int }
		for _, tt := range []struct {
			joining bool
			want    []read
		}{
			{true, []read{{240, 100}, {250, 200}, {64 * 50, 50}, {5 * 50, 50}}},
			{false, nil},
		} {
			if err := b.conn.SetOffload(false, tt.joining); err != nil {
				t.Fatal(err)
			}
			if err := a.conn.WriteBursts(b.addr(), bursts); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			ms := make([]host.Message, 100)
			for i := range ms {
				ms[i].Buf = make([]byte, 64<<10)
			}
			k, err := b.conn.ReadBatch(ms)
			if err != nil {
				t.Fatal(err)
			}
			if !tt.joining {
				if k != 74 {
					t.Errorf("%d reads of single datagrams, want 74", k)
				}
				continue
			}
			var got []read
			for _, m := range ms[:k] {
				got = append(got, read{m.N, m.Segment})
			}
			if !cmp.Equal(got, tt.want) {
				t.Errorf("reads %v, want %v", got, tt.want)
			}
			if ms[0].Buf[0] != 1 || ms[0].Buf[100] != 2 || ms[0].Buf[239] != 3 {
				t.Error("the datagrams are out of order")
			}
		}
		expectFate(t, a.host, Sent, 2*74)
	})
}

// TestNoOffload: such a host says so once, and never joins datagrams.
func TestNoOffload(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		for _, off := range []bool{false, true} {
			s := listen4(t, n.AddHost("host", HostConfig{NoOffload: off}))
			var refused []string
			s.conn.OnFallback(func(r string) { refused = append(refused, r) })
			if err := s.conn.SetOffload(true, true); err != nil {
				t.Fatal(err)
			}
			if s.conn.joining == off || (len(refused) == 1) != off {
				t.Errorf("NoOffload %v: joining %v, refused %q", off, s.conn.joining, refused)
			}
		}
	})
}

// TestRoom: the bytes before each datagram of a burst are sent with it.
func TestRoom(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		a, b := newPair(t, n, Conditions{})
		if err := a.conn.WriteBursts(b.addr(), []packet.Burst{{Buf: []byte("h1ab" + "h2c"), Room: 2, Size: 2, Count: 2}}); err != nil {
			t.Fatal(err)
		}
		b.expect("h1ab")
		b.expect("h2c")
	})
}

func TestEcho(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		link := Conditions{Delay: 10 * time.Millisecond}
		home := n.AddRouter("home", RouterConfig{Link: link, IPv6: true, Firewall: Firewall{Stateful: true}})
		a, b := home.AddHost("a", HostConfig{}), n.AddHost("b", HostConfig{Link: link})
		for to, want := range map[netip.Addr]time.Duration{
			b.Addr4():      40 * time.Millisecond,
			b.Addr6():      40 * time.Millisecond,
			home.Outer():   0,
			home.Gateway(): 0,
			a.Addr4():      0,
			loopback(true): 0,
		} {
			if to == home.Outer() {
				continue // from inside it would be a hairpin
			}
			if took, err := a.Echo(t.Context(), to, []byte("payload")); err != nil || took != want {
				t.Errorf("%v: took %v (%v), want %v", to, took, err, want)
			}
		}
		if took, err := b.Echo(t.Context(), home.Outer(), nil); err != nil || took != 40*time.Millisecond {
			t.Errorf("router, from outside: %v, %v", took, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for _, to := range []netip.Addr{a.Addr6(), netip.MustParseAddr("198.18.99.99")} {
			if _, err := b.Echo(ctx, to, nil); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v: %v, want the context's error", to, err)
			}
		}
		b.net.acquire()
		left := len(b.echoes)
		b.net.release()
		if left != 0 {
			t.Errorf("%d echoes are left", left)
		}
		deaf := n.AddHost("deaf", HostConfig{NoEcho: true})
		if _, err := deaf.Echo(t.Context(), b.Addr4(), nil); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("not allowed: %v", err)
		}
	})
}

func TestFirewall(t *testing.T) {
	inBubble(t, func(t *testing.T, n *Internet) {
		office := n.AddRouter("office", RouterConfig{Public: true, Firewall: Firewall{Stateful: true, Open: []uint16{443}}})
		a, b := office.AddHost("a", HostConfig{}), n.AddHost("b", HostConfig{})
		sa, sb := listen(t, a, "udp4", 5000), listen(t, b, "udp4", 5000)
		web := listen(t, a, "udp4", 443)

		sb.send(sa.addr(), "uninvited")
		sa.expectNothing()
		expectFate(t, office, Firewalled, 1)
		sa.send(sb.addr(), "question")
		if from := sb.expect("question"); from != sa.addr() {
			t.Errorf("from %v, want %v: no translation", from, sa.addr())
		}
		sb.send(sa.addr(), "answer")
		sa.expect("answer")
		sb.send(web.addr(), "to the open port")
		web.expect("to the open port")
		time.Sleep(DefaultTimeout)
		sb.send(sa.addr(), "late")
		sa.expectNothing()

		office.SetFirewall(Firewall{NoUDP: true})
		sa.send(sb.addr(), "blocked")
		sb.expectNothing()
		s := connect(t, a, b, at(b, 80).String())
		transfer(t, s.client, s.server, 1000)
		s.close()
		office.SetFirewall(Firewall{OnlyTo: []uint16{443}})
		sa.send(sb.addr(), "to another port")
		sb.expectNothing()

		// a firewall of the host itself tells
		office.SetFirewall(Firewall{})
		a.SetFirewall(Firewall{NoUDP: true})
		if err := sa.trySend(sb.addr(), "x"); !errors.Is(err, syscall.EPERM) {
			t.Errorf("forbidden by the host: %v, want EPERM", err)
		}
		a.SetFirewall(Firewall{Stateful: true})
		sb.send(sa.addr(), "uninvited")
		sa.expectNothing()
		sa.send(sb.addr(), "question")
		sb.expect("question")
		sb.send(sa.addr(), "answer")
		sa.expect("answer")
	})
}

func TestCloseEndsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := New(1)
		a, b := n.AddHost("a", HostConfig{}), n.AddHost("b", HostConfig{})
		u := listen4(t, a)
		s := connect(t, a, b, at(b, 80).String())
		silent := n.AddHost("silent", HostConfig{Firewall: Firewall{OnlyTo: []uint16{1}}})
		errs := make(chan error)
		for _, wait := range []func() error{
			func() error { _, err := u.conn.ReadBatch(u.ms); return err },
			func() error { _, err := s.client.Read(make([]byte, 1)); return err },
			func() error { _, err := s.listener.Accept(); return err },
			func() error { _, err := silent.Dial(t.Context(), "tcp", at(b, 80).String()); return err },
			func() error {
				_, err := a.Echo(t.Context(), netip.MustParseAddr("198.18.99.99"), nil)
				if errors.Is(err, errNetClosed) {
					err = net.ErrClosed
				}
				return err
			},
		} {
			go func() { errs <- wait() }()
		}
		time.Sleep(time.Second)
		n.Close()
		n.Close()
		for range 5 {
			if err := <-errs; !errors.Is(err, net.ErrClosed) {
				t.Errorf("%v, want net.ErrClosed", err)
			}
		}
		if _, err := a.ListenUDP(t.Context(), "udp4", 0); !errors.Is(err, net.ErrClosed) {
			t.Errorf("listen UDP: %v", err)
		}
		if _, err := a.Listen(t.Context(), "tcp", ":0"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("listen: %v", err)
		}
		if _, err := a.Dial(t.Context(), "tcp", at(b, 80).String()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("dial: %v", err)
		}
	})
}
