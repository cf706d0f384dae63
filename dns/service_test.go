package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/simnet"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
)

// A packetConn is a socket of a simulated host as a net.PacketConn.
type packetConn struct {
	net.PacketConn // nil: nothing else is asked of it
	conn           host.UDPConn
}

func (c packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	ms := []host.Message{{Buf: make([]byte, 64<<10)}}
	if _, err := c.conn.ReadBatch(ms); err != nil {
		return 0, nil, err
	}
	return copy(b, ms[0].Buf[:ms[0].N]), net.UDPAddrFromAddrPort(ms[0].From), nil
}

func (c packetConn) WriteTo(b []byte, to net.Addr) (int, error) {
	burst := packet.Burst{Buf: b, Size: len(b), Count: 1}
	return len(b), c.conn.WriteBursts(to.(*net.UDPAddr).AddrPort(), []packet.Burst{burst})
}

func (c packetConn) Close() error { return c.conn.Close() }

// A serviceWorld is a world whose resolver serves a stack, which is a host of
// the inside: our own address, the service addresses, and peers beside it.
type serviceWorld struct {
	*world
	stack *simnet.Host
	peer  *simnet.Host
	stop  context.CancelFunc
	ended chan error
}

func inServiceWorld(t *testing.T, test func(t *testing.T, w *serviceWorld)) {
	inWorld(t, func(t *testing.T, outer *world) {
		w := &serviceWorld{world: outer, ended: make(chan error, 1)}
		addrs := func(texts ...string) (c simnet.HostConfig) {
			for _, s := range texts {
				c.Addrs = append(c.Addrs, netip.MustParseAddr(s))
			}
			return c
		}
		config := addrs("100.64.0.1", "fd7a:115c:a1e0::1", "100.100.100.100", "fd7a:115c:a1e0::53")
		config.NoOffload = true // a net.PacketConn reads one datagram at a time
		w.stack = w.inside.AddHost("stack", config)
		w.peer = w.inside.AddHost("peer", addrs("100.64.0.2", "fd7a:115c:a1e0::2"))
		c := &w.resolver.config
		c.ListenUDP = func(at netip.AddrPort) (net.PacketConn, error) {
			family := map[bool]string{true: "udp4", false: "udp6"}[at.Addr().Is4()]
			conn, err := w.stack.ListenUDP(t.Context(), family, at.Port())
			return packetConn{conn: conn}, err
		}
		c.ListenTCP = func(at netip.AddrPort) (net.Listener, error) { return w.stack.Listen(t.Context(), "tcp", at.String()) }
		ctx, cancel := context.WithCancel(t.Context())
		w.stop = cancel
		c.Start = func() { go func() { w.ended <- w.resolver.Serve(ctx) }() }
		defer func() { cancel(); w.resolver.WantService(); <-w.ended }()
		test(t, w)
	})
}

// askFrom sends a question from a host to a service address over UDP and returns
// the answer as text.
func (w *serviceWorld) askFrom(h *simnet.Host, to netip.Addr, name string) string {
	w.t.Helper()
	family := map[bool]string{true: "udp4", false: "udp6"}[to.Is4()]
	conn, err := h.ListenUDP(w.t.Context(), family, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	defer time.AfterFunc(time.Minute, func() { conn.Close() }).Stop()
	c := hostConn{udp: conn, to: netip.AddrPortFrom(to, dnsPort)}
	if _, err := c.Write(message(w.t, name, a)); err != nil {
		w.t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := c.Read(buf)
	if errors.Is(err, net.ErrClosed) {
		return "silence"
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return text(w.t, buf[:n])
}

// SVC-58, SVC-81: DNS on the service addresses, over UDP and TCP, once it is
// wanted; each question of a socket is answered.
func TestSVC81Service(t *testing.T) {
	inServiceWorld(t, func(t *testing.T, w *serviceWorld) {
		ok := w.says(dnsmessage.RCodeSuccess, "192.0.2.7")
		w.serve(w.net, "192.0.2.1", later(time.Second, ok), nil)
		w.use("192.0.2.1")
		if got := w.askFrom(w.stack, ServiceIPv4, "both.tail.ts.net"); got != "silence" {
			t.Errorf("before anybody wants it: %s", got)
		}
		if err := w.resolver.OpenService(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, to := range []netip.Addr{ServiceIPv4, ServiceIPv6} {
			if got, want := w.askFrom(w.stack, to, "both.tail.ts.net"), "Success 100.64.0.2/5"; got != want {
				t.Errorf("%v: %s, want %s", to, got, want)
			}
		}
		slow := make(chan string)
		go func() { slow <- w.askFrom(w.stack, ServiceIPv4, "x.example") }()
		synctest.Wait()
		if got, want := w.askFrom(w.stack, ServiceIPv4, "both.tail.ts.net"), "Success 100.64.0.2/5"; got != want {
			t.Errorf("beside a slow question: %s, want %s", got, want)
		}
		if got := <-slow; got != good {
			t.Errorf("slow: %s", got)
		}
		c, err := w.stack.Dial(t.Context(), "tcp", "100.100.100.100:53")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, name := range []string{"both.tail.ts.net", "x.example", "nobody.tail.ts.net"} {
			if err := writeMessage(c, message(t, name, a)); err != nil {
				t.Fatal(err)
			}
		}
		for _, want := range []string{"Success 100.64.0.2/5", good, negative} {
			if msg, err := readMessage(c); err != nil || text(t, msg) != want {
				t.Errorf("over TCP: %s, %v, want %s", text(t, msg), err, want)
			}
		}
		began := time.Now()
		if _, err := readMessage(c); err == nil || time.Since(began) > connTimeout+time.Second {
			t.Errorf("an idle connection: %v after %v", err, time.Since(began))
		}
	})
}

// SVC-82: nobody but this node is served, whatever the packet filter lets
// through.
func TestSVC82OthersAreNotServed(t *testing.T) {
	inServiceWorld(t, func(t *testing.T, w *serviceWorld) {
		if err := w.resolver.OpenService(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, to := range []netip.Addr{ServiceIPv4, ServiceIPv6} {
			if got := w.askFrom(w.peer, to, "both.tail.ts.net"); got != "silence" {
				t.Errorf("a peer asks %v: %s", to, got)
			}
		}
		c, err := w.peer.Dial(t.Context(), "tcp", "100.100.100.100:53")
		if err == nil {
			defer c.Close()
			writeMessage(c, message(t, "both.tail.ts.net", a))
			if msg, err := readMessage(c); err == nil {
				t.Errorf("a peer asks over TCP: %s", text(t, msg))
			}
		}
		if n := w.resolver.Stats().Foreign; n != 3 {
			t.Errorf("%d questions of others are counted, want 3", n)
		}
	})
}

// SVC-74: what comes in packets is bounded, too.
func TestSVC74ServiceIsBounded(t *testing.T) {
	inServiceWorld(t, func(t *testing.T, w *serviceWorld) {
		w.serve(w.net, "192.0.2.1", silent, nil)
		w.use("192.0.2.1")
		if err := w.resolver.OpenService(t.Context()); err != nil {
			t.Fatal(err)
		}
		conn, err := w.stack.ListenUDP(t.Context(), "udp4", 0)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		c := hostConn{udp: conn, to: netip.AddrPortFrom(ServiceIPv4, dnsPort)}
		for range maxUnderway + 10 {
			c.Write(message(t, "x.example", a))
		}
		synctest.Wait()
		if s := w.resolver.Stats(); s.Busy != 10 || s.Queries != maxUnderway+10 {
			t.Errorf("%+v", s)
		}
		var conns []net.Conn
		for range maxConns + 1 {
			c, err := w.stack.Dial(t.Context(), "tcp", "100.100.100.100:53")
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, c)
			defer c.Close()
		}
		last := conns[maxConns]
		if _, err := last.Read(make([]byte, 1)); err == nil {
			t.Error("one connection too many is served")
		}
		time.Sleep(queryTimeout + time.Second) // fake time
		if got, want := w.askFrom(w.stack, ServiceIPv4, "both.tail.ts.net"), "Success 100.64.0.2/5"; got != want {
			t.Errorf("afterwards: %s, want %s", got, want)
		}
	})
}

// The service follows the families that the node has, and says why it is not
// there; after a restart it is there again.
func TestServiceFollows(t *testing.T) {
	inServiceWorld(t, func(t *testing.T, w *serviceWorld) {
		both := w.netmap
		only6 := *both
		self := *both.Self
		self.Addresses = self.Addresses[1:]
		only6.Self = &self
		if got := ServiceAddrs(&only6); !slices.Equal(got, []netip.Addr{ServiceIPv6}) {
			t.Errorf("service addresses of a node without IPv4: %v", got)
		}
		w.cell.Store(&only6)
		if err := w.resolver.OpenService(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := w.askFrom(w.stack, ServiceIPv4, "me.tail.ts.net"); got != "silence" {
			t.Errorf("IPv4: %s", got)
		}
		w.cell.Store(both)
		synctest.Wait()
		if got, want := w.askFrom(w.stack, ServiceIPv4, "me.tail.ts.net"), "Success 100.64.0.1/5"; got != want {
			t.Errorf("with an IPv4 address: %s, want %s", got, want)
		}
		w.stop()
		if err := <-w.ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Serve: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { w.ended <- w.resolver.Serve(ctx) }()
		if err := w.resolver.OpenService(ctx); err != nil {
			t.Fatal(err)
		}
		if got, want := w.askFrom(w.stack, ServiceIPv4, "me.tail.ts.net"), "Success 100.64.0.1/5"; got != want {
			t.Errorf("after a restart: %s, want %s", got, want)
		}
		cancel()
		<-w.ended
		w.ended <- nil
	})
}

// The service listens once the stack has the node's addresses: a netmap that the stack
// has not seen is none to the service.
func TestServiceWaitsForTheStack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, broken := 0, errors.New("broken")
		addressed := newCell[*netmap.Netmap](nil)
		r := New(Config{
			Netmap: newCell(newNetmap()), Addressed: addressed, Preferences: newCell(accept), Logger: slog.New(slog.DiscardHandler),
			ListenUDP: func(netip.AddrPort) (net.PacketConn, error) { asked++; return nil, broken },
		})
		defer r.Close()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		r.config.Start = func() { go func() { ended <- r.Serve(ctx) }() }
		r.WantService()
		synctest.Wait()
		if asked != 0 {
			t.Errorf("asked for %d sockets before the stack has addresses", asked)
		}
		addressed.Store(r.config.Netmap.Get())
		if err := r.OpenService(ctx); !errors.Is(err, broken) || asked != 2 {
			t.Errorf("%v, %d sockets", err, asked)
		}
		cancel()
		<-ended
	})
}

func TestServiceThatCannotListen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		r := New(Config{
			Netmap: newCell(newNetmap()), Preferences: newCell(accept), Logger: slog.New(slog.DiscardHandler),
			ListenUDP: func(netip.AddrPort) (net.PacketConn, error) { return nil, broken },
		})
		defer r.Close()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		r.config.Start = func() { go func() { ended <- r.Serve(ctx) }() }
		if err := r.OpenService(ctx); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
		cancel()
		<-ended
		if err := r.OpenService(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("without Serve: %v", err)
		}
		r.Close()
		if err := r.OpenService(context.Background()); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// What people ask, and what they are told.
func TestAsk(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.serve(w.net, "192.0.2.1", w.says(dnsmessage.RCodeSuccess, "192.0.2.7"), nil)
		w.use("192.0.2.1")
		w.netmap.DNS.Routes["none.example"] = []netmap.Resolver{{Addr: "tls://x"}}
		for _, tt := range []struct{ name, typ, want string }{
			{"Both.tail.ts.net", "a", "both.tail.ts.net. A NOERROR [{both.tail.ts.net. A 5 100.64.0.2}] local  []"},
			{"100.64.0.2", "PTR", "2.0.64.100.in-addr.arpa. PTR NOERROR [{2.0.64.100.in-addr.arpa. PTR 5 both.tail.ts.net.}] local  []"},
			{"fd7a:115c:a1e0::77", "ptr", nibbles("fd7a:115c:a1e0::77") + ". PTR NXDOMAIN [] local  []"},
			{"x.example", "A", "x.example. A NOERROR [{x.example. A 5 192.0.2.7}] asked . [192.0.2.1:53]"},
			{"x.none.example", "TYPE65", "x.none.example. TYPE65 SERVFAIL [] asked none.example []"},
		} {
			answer, err := w.resolver.Ask(t.Context(), tt.name, tt.typ)
			if err != nil {
				t.Errorf("%s %s: %v", tt.name, tt.typ, err)
				continue
			}
			who := map[bool]string{true: "local", false: "asked"}[answer.Local]
			if got := fmt.Sprintf("%s %s %s %v %s %s %v", answer.Name, answer.Type, answer.Code, answer.Records, who, answer.Route, answer.Resolvers); got != tt.want {
				t.Errorf("%s %s: %s, want %s", tt.name, tt.typ, got, tt.want)
			}
		}
		for _, bad := range [][2]string{{"x", "BOGUS"}, {"x", "TYPE0"}, {"x", "OPT"}, {"a..b", "A"}} {
			if answer, err := w.resolver.Ask(t.Context(), bad[0], bad[1]); err == nil {
				t.Errorf("%v: %+v", bad, answer)
			}
		}
	})
}

func TestRecordData(t *testing.T) {
	name := dnsmessage.MustNewName("a.example.")
	for want, body := range map[string]dnsmessage.ResourceBody{
		"192.0.2.1":   &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}},
		"2001:db8::1": &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2001:db8::1").As16()},
		"a.example.":  &dnsmessage.CNAMEResource{CNAME: name}, "10 a.example.": &dnsmessage.MXResource{Pref: 10, MX: name},
		"1 2 3 a.example.":                &dnsmessage.SRVResource{Priority: 1, Weight: 2, Port: 3, Target: name},
		`"x\"y" "z"`:                      &dnsmessage.TXTResource{TXT: []string{`x"y`, "z"}},
		`\# 2 0102`:                       &dnsmessage.UnknownResource{Type: 65, Data: []byte{1, 2}},
		"a.example. a.example. 1 2 3 4 5": &dnsmessage.SOAResource{NS: name, MBox: name, Serial: 1, Refresh: 2, Retry: 3, Expire: 4, MinTTL: 5},
	} {
		if got := data(body); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
