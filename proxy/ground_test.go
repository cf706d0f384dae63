package proxy

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/seed94491740/tsnode/internal/actor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// patience bounds what should happen at once, however slow the machine.
const patience = time.Minute

// A loopback is the machine, and the tailnet of a node on it.
type loopback struct {
	mu      sync.Mutex
	behalf  map[string]netip.AddrPort // by network and local address
	pending []*pendingConn            // accepted on the tailnet
	refuse  error                     // of dials to the tailnet
	overlay bool                      // clients of the tailnet come from its addresses
}

func (l *loopback) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if l.refuse != nil {
		return nil, l.refuse
	}
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

// dialRequest dials for a client of a proxy.
func (l *loopback) dialRequest(ctx context.Context, r Request) (net.Conn, error) {
	if l.refuse != nil {
		return nil, l.refuse
	}
	host, port, err := net.SplitHostPort(r.Address)
	if err != nil {
		return nil, err
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", host)
	if err != nil {
		return nil, err
	}
	if err := r.Permit(addrs[0].Unmap()); err != nil {
		return nil, err
	}
	return l.Dial(ctx, r.Network, net.JoinHostPort(addrs[0].Unmap().String(), port))
}

func (l *loopback) DialFrom(ctx context.Context, network, local, address string) (net.Conn, error) {
	var d net.Dialer
	if local != "" {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.MustParseAddrPort(local))
	}
	return d.DialContext(ctx, network, address)
}

// bothSides is the loopback as a Host, whose methods have other names on the tailnet.
type bothSides struct{ *loopback }

func (bothSides) Listen(_ context.Context, network, address string) (net.Listener, error) {
	return net.Listen(network, address)
}

func (bothSides) ListenPacket(_ context.Context, network, address string) (net.PacketConn, error) {
	return net.ListenPacket(network, address)
}

func (l *loopback) ListenPacket(network, address string) (net.PacketConn, error) {
	pc, err := net.ListenPacket(network, near(address))
	if err != nil || !l.overlay {
		return pc, err
	}
	return overlaySocket{pc.(*net.UDPConn)}, nil
}

// An overlaySocket is a UDP socket whose clients come from the tailnet.
type overlaySocket struct{ *net.UDPConn }

func (s overlaySocket) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	n, from, err := s.UDPConn.ReadFromUDPAddrPort(b)
	return n, move(from, 100), err
}

func (s overlaySocket) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	return s.UDPConn.WriteToUDPAddrPort(b, move(to, 127))
}

// move moves an address between 127.0.0.0/8 and 100.0.0.0/8.
func move(a netip.AddrPort, first byte) netip.AddrPort {
	b := a.Addr().Unmap().As4()
	b[0] = first
	return netip.AddrPortFrom(netip.AddrFrom4(b), a.Port())
}

// near makes all addresses the loopback interface's.
func near(address string) string {
	if h, port, err := net.SplitHostPort(address); err == nil && h == "" {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return address
}

func (l *loopback) ListenPending(network, address string) (net.Listener, error) {
	ln, err := net.Listen(network, near(address))
	if err != nil {
		return nil, err
	}
	return &pendingListener{ln, l}, nil
}

func (l *loopback) OnBehalf(network string, local net.Addr, peer netip.AddrPort) (forget func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.behalf == nil {
		l.behalf = make(map[string]netip.AddrPort)
	}
	key := network + " " + local.String()
	l.behalf[key] = peer
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.behalf, key)
	}
}

func (l *loopback) actsFor(network string, local net.Addr) (peer netip.AddrPort, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	peer, ok = l.behalf[network+" "+local.String()]
	return peer, ok
}

type pendingListener struct {
	net.Listener
	l *loopback
}

func (p *pendingListener) Accept() (net.Conn, error) {
	c, err := p.Listener.Accept()
	if err != nil {
		return nil, err
	}
	pc := &pendingConn{Conn: c, overlay: p.l.overlay}
	p.l.mu.Lock()
	defer p.l.mu.Unlock()
	p.l.pending = append(p.l.pending, pc)
	return pc, nil
}

// A pendingConn notes when it is completed.
type pendingConn struct {
	net.Conn
	overlay bool

	mu   sync.Mutex
	done bool
}

func (p *pendingConn) RemoteAddr() net.Addr {
	a := p.Conn.RemoteAddr()
	if p.overlay {
		return net.TCPAddrFromAddrPort(move(a.(*net.TCPAddr).AddrPort(), 100))
	}
	return a
}

func (p *pendingConn) Complete() (net.Conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = true
	return p.Conn, nil
}

func (p *pendingConn) NetConn() net.Conn { return p.Conn }

func (p *pendingConn) CloseWrite() error { return p.Conn.(*net.TCPConn).CloseWrite() }

func (p *pendingConn) SetLinger(sec int) error { return p.Conn.(*net.TCPConn).SetLinger(sec) }

// serve runs an actor until the test ends.
func serve(t *testing.T, s interface{ Serve(context.Context) error }) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	var once sync.Once
	var err error
	stop = func() error {
		once.Do(func() { cancel(); err = <-done })
		return err
	}
	t.Cleanup(func() { stop() })
	return stop
}

// onOverlay has clients of forwards from the tailnet come from its addresses.
func onOverlay(c *Config) { c.Tailnet.(*loopback).overlay = true }

// startSet runs a set of forwards, which all listen.
func startSet(t *testing.T, edit func(*Config), want ...string) (*Set, *loopback) {
	t.Helper()
	l := new(loopback)
	c := Config{Tailnet: l, Host: bothSides{l}, Logger: quiet, WhoIs: func(net.Conn) (Identity, error) { return Identity{}, nil }}
	c.Proxies.Dial = l.dialRequest
	if edit != nil {
		edit(&c)
	}
	s := NewSet(c)
	serve(t, s)
	if err := s.Apply(within(t), specs(t, want...)); err != nil {
		t.Fatal(err)
	}
	return s, l
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// specs reads forwards that begin with their flag.
func specs(t *testing.T, texts ...string) (all []Spec) {
	t.Helper()
	for _, text := range texts {
		var some []Spec
		var err error
		switch flag, spec := text[:2], text[3:]; flag {
		case "-L":
			some, err = ParseLocal(spec)
		case "-R":
			some, err = ParseRemote(spec)
		case "-D":
			some = make([]Spec, 1)
			some[0], err = ParseProxy(SOCKS, spec)
		case "-H":
			some = make([]Spec, 1)
			some[0], err = ParseProxy(HTTP, spec)
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, some...)
	}
	return all
}

// listen returns a listener whose connections handle serves.
func listen(t *testing.T, network, address string, handle func(net.Conn)) net.Addr {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	g := actor.NewGroup(context.Background())
	g.Go(func(context.Context) error {
		for {
			c, err := ln.Accept()
			if err != nil {
				return nil
			}
			g.Go(func(context.Context) error {
				defer c.Close()
				c.SetDeadline(time.Now().Add(patience))
				handle(c)
				return nil
			})
		}
	})
	t.Cleanup(func() { ln.Close(); g.Wait() })
	return ln.Addr()
}

// nobody returns an address that refuses connections for as long as the test lasts:
// its port is that of a connection.
func nobody(t *testing.T) string {
	t.Helper()
	return dial(t, "tcp", listen(t, "tcp", "127.0.0.1:0", echo).String()).LocalAddr().String()
}

// echo answers what it was sent, once all has come.
func echo(c net.Conn) {
	b, _ := io.ReadAll(c)
	c.Write(append([]byte("echo "), b...))
}

// dial connects, for a test that does not take forever.
func dial(t *testing.T, network, address string) net.Conn {
	t.Helper()
	c, err := net.DialTimeout(network, address, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// ask sends text to an address, ends writing, and returns the answer.
func ask(t *testing.T, network, address, text string) string {
	t.Helper()
	c := dial(t, network, address)
	defer c.Close()
	return askOn(t, c, text)
}

func askOn(t *testing.T, c net.Conn, text string) string {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	c.(interface{ CloseWrite() error }).CloseWrite()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// waitFor waits until ok.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for ctx := within(t); !ok(); {
		select {
		case <-ctx.Done():
			t.Fatal("waited in vain: " + what)
		case <-time.After(time.Millisecond):
		}
	}
}
