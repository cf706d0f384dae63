package interop

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"testing"
	"time"

	"tailscale.com/ipn"
	"tailscale.com/tailcfg"
	"tailscale.com/tsnet"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/node"
)

var (
	subnet     = netip.MustParsePrefix("10.7.0.0/24") // behind a node
	subnetHost = netip.MustParseAddr("10.7.0.5")      // in it
	farHost    = netip.MustParseAddr("198.51.100.9")  // of the Internet: RFC 5737
	everywhere = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
)

// A behindNet is the network of a machine with the two hosts in it: they echo, on
// TCP and UDP port 7, and answer echo requests.
type behindNet struct {
	host.OS
	tcp, udp string // where they are in truth
}

func newBehindNet(t *testing.T) *behindNet {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go serveEchoes(ln)
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go func() {
		buf := make([]byte, 65535)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo(buf[:n], from)
		}
	}()
	return &behindNet{tcp: ln.Addr().String(), udp: pc.LocalAddr().String()}
}

func serveEchoes(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go echoConn(c)
	}
}

func echoConn(c net.Conn) {
	defer c.Close()
	io.Copy(c, c)
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		h.CloseWrite()
	}
}

// Dial implements host.Network.
func (n *behindNet) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	ap, err := netip.ParseAddrPort(address)
	switch {
	case err != nil || ap.Addr().IsLoopback():
	case ap.Port() == 7 && network == "tcp":
		address = n.tcp
	case ap.Port() == 7 && network == "udp":
		address = n.udp
	default:
		return nil, &net.OpError{Op: "dial", Net: network, Err: syscall.ECONNREFUSED}
	}
	return n.OS.Dial(ctx, network, address)
}

// Echo implements host.Network.
func (n *behindNet) Echo(_ context.Context, to netip.Addr, _ []byte) (time.Duration, error) {
	if to == subnetHost || to == farHost {
		return time.Millisecond, nil
	}
	return 0, errors.New("no such host")
}

// ourRouted starts a node of ours with settings.
func ourRouted(t *testing.T, tailnet *devnet.Net, name string, edit func(*node.Node)) *node.Node {
	t.Helper()
	n := &node.Node{
		ControlURL: tailnet.URL(), Hostname: name, AuthKey: tailnet.AuthKey(devnet.KeyOptions{}), Ephemeral: true, Logger: testLog(t, name),
		Proxy: func(*http.Request) (*url.URL, error) { return nil, nil },
	}
	edit(n)
	t.Cleanup(func() { n.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), upTimeout)
	defer cancel()
	if _, err := n.Up(ctx); err != nil {
		t.Fatalf("our node %s: %v", name, err)
	}
	return n
}

// editPrefs changes the preferences of a reference node.
func editPrefs(t *testing.T, s *tsnet.Server, p *ipn.MaskedPrefs) {
	t.Helper()
	lc, err := s.LocalClient()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lc.EditPrefs(context.Background(), p); err != nil {
		t.Fatal(err)
	}
}

// routeTimeout bounds how long a route takes to be used.
const routeTimeout = 30 * time.Second

// echoes dials until a connection is made, and wants its echo.
func echoes(t *testing.T, from dialer, network string, to netip.AddrPort) {
	t.Helper()
	eventually(t, routeTimeout, func(ctx context.Context) error {
		return callOnce(ctx, from, network, to.String())
	})
}

// callOnce wants an address to echo.
func callOnce(ctx context.Context, from dialer, network, to string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	c, err := from.Dial(ctx, network, to)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := c.Write([]byte("through a router")); err != nil {
		return err
	}
	buf := make([]byte, 16)
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "through a router" {
		return errors.Join(err, errors.New("no echo"))
	}
	return nil
}

// echoesLong wants the echo of a datagram of 9,000 bytes, which travels in
// fragments, as the first of its flow.
func echoesLong(t *testing.T, from dialer, to netip.AddrPort) {
	t.Helper()
	sent, got := make([]byte, 9000), make([]byte, 65535)
	sent[len(sent)-1] = 1
	var last error
	for range 5 { // a fragment may be lost
		c, err := from.Dial(context.Background(), "udp", to.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(3 * time.Second))
		if _, err := c.Write(sent); err != nil {
			t.Fatal(err)
		}
		n, err := c.Read(got)
		if last = err; err == nil {
			if !bytes.Equal(got[:n], sent) {
				t.Errorf("%d bytes of %d came back", n, len(sent))
			}
			return
		}
	}
	t.Errorf("a datagram of %d bytes to %v: %v", len(sent), to, last)
}

// A tsnet node uses our node as subnet router and as exit node: TCP, UDP and echo
// requests (SVC-47).
func TestOurRouterForReference(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	ours := ourRouted(t, tailnet, "router", func(n *node.Node) {
		n.Network = newBehindNet(t)
		n.AdvertiseRoutes, n.AdvertiseExitNode = []netip.Prefix{subnet}, true
	})
	if err := tailnet.ApproveRoutes("router", append(everywhere, subnet)...); err != nil {
		t.Fatal(err)
	}
	theirs := tsnetNode(t, tailnet.URL(), "client", tailnet.AuthKey(devnet.KeyOptions{}))
	editPrefs(t, theirs, &ipn.MaskedPrefs{Prefs: ipn.Prefs{RouteAll: true}, RouteAllSet: true})
	for _, network := range []string{"tcp", "udp"} {
		echoes(t, theirs, network, netip.AddrPortFrom(subnetHost, 7))
	}
	echoesLong(t, theirs, netip.AddrPortFrom(subnetHost, 7))
	editPrefs(t, theirs, &ipn.MaskedPrefs{Prefs: ipn.Prefs{ExitNodeID: tailcfg.StableNodeID(ours.Status().Self.ID)}, ExitNodeIDSet: true})
	for _, network := range []string{"tcp", "udp"} {
		echoes(t, theirs, network, netip.AddrPortFrom(farHost, 7))
	}
	lc, err := theirs.LocalClient()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), routeTimeout)
	defer cancel()
	if r, err := lc.Ping(ctx, subnetHost, tailcfg.PingICMP); err != nil || r.Err != "" {
		t.Errorf("ICMP echo through our router: %+v, %v", r, err)
	}
}

// Our node uses a tsnet node as subnet router and as exit node, of TCP and UDP
// (SVC-40, SVC-43).
func TestReferenceRouterForOurs(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	theirs := tsnetNode(t, tailnet.URL(), "router", tailnet.AuthKey(devnet.KeyOptions{}))
	theirs.RegisterFallbackTCPHandler(func(_, dst netip.AddrPort) (func(net.Conn), bool) {
		return echoConn, dst == netip.AddrPortFrom(subnetHost, 7) || dst == netip.AddrPortFrom(farHost, 7)
	})
	for _, host := range []netip.Addr{subnetHost, farHost} {
		ln, err := theirs.Listen("udp", netip.AddrPortFrom(host, 7).String())
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		go serveEchoes(ln)
	}
	routes := append([]netip.Prefix{subnet}, everywhere...)
	editPrefs(t, theirs, &ipn.MaskedPrefs{Prefs: ipn.Prefs{AdvertiseRoutes: routes}, AdvertiseRoutesSet: true})
	if err := tailnet.ApproveRoutes("router", routes...); err != nil {
		t.Fatal(err)
	}
	ours := ourRouted(t, tailnet, "client", func(n *node.Node) { n.AcceptRoutes = true })
	for _, network := range []string{"tcp", "udp"} {
		echoes(t, ours, network, netip.AddrPortFrom(subnetHost, 7))
	}
	if _, err := ours.Dial(context.Background(), "tcp", netip.AddrPortFrom(farHost, 7).String()); !errors.Is(err, node.ErrNoRoute) {
		t.Errorf("the Internet without an exit node: %v", err)
	}
	if err := ours.EditPreferences(func(p *node.Preferences) { p.ExitNode = "auto" }); err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"tcp", "udp"} {
		echoes(t, ours, network, netip.AddrPortFrom(farHost, 7))
	}
}
