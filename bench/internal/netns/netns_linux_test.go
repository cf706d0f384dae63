package netns

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
)

// TestJoin: two namespaces reach each other over a cable, and not without.
func TestJoin(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root") // not in CI: benches are run by hand
	}
	a, b := newTest(t, "a"), newTest(t, "b")
	err := Join(End{a, "eth0", netip.MustParsePrefix("192.0.2.1/24")}, End{b, "eth0", netip.MustParsePrefix("192.0.2.2/24")})
	if err != nil {
		t.Fatal(err)
	}
	ln := listen(t, a, "192.0.2.1:0")
	if err := dial(b, ln.Addr().String()); err != nil {
		t.Error(err)
	}
	if err := a.Down("eth0"); err != nil {
		t.Fatal(err)
	}
	if err := b.Down("eth0"); err != nil {
		t.Fatal(err)
	}
	if err := dial(b, ln.Addr().String()); err == nil {
		t.Error("dialled over a cable that is down")
	}
	if err := b.Up("eth1"); err == nil {
		t.Error("switched on an interface that is not there")
	}
}

// TestDefaultRoute: an address behind a gateway is reached.
func TestDefaultRoute(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root") // not in CI: benches are run by hand
	}
	a, b := newTest(t, "a"), newTest(t, "b")
	err := Join(End{a, "eth0", netip.MustParsePrefix("192.0.2.1/24")}, End{b, "eth0", netip.MustParsePrefix("192.0.2.2/24")})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.AddAddr("lo", netip.MustParsePrefix("198.51.100.1/32")); err != nil {
		t.Fatal(err)
	}
	ln := listen(t, a, "198.51.100.1:0")
	if err := dial(b, ln.Addr().String()); err == nil {
		t.Error("dialled without a route")
	}
	if err := b.DefaultRoute("eth0", netip.MustParseAddr("192.0.2.1")); err != nil {
		t.Fatal(err)
	}
	if err := dial(b, ln.Addr().String()); err != nil {
		t.Error(err)
	}
}

func newTest(t *testing.T, name string) *Namespace {
	n, err := New(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

func listen(t *testing.T, n *Namespace, addr string) (ln net.Listener) {
	err := n.do(func() (err error) { ln, err = net.Listen("tcp4", addr); return err })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

func dial(n *Namespace, addr string) error {
	return n.do(func() error {
		c, err := net.Dial("tcp4", addr)
		if err == nil {
			c.Close()
		}
		return err
	})
}

// TestTranslate: what is behind a gateway that translates reaches out, and is
// seen under the gateway's address; nothing reaches in.
func TestTranslate(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root") // not in CI: benches are run by hand
	}
	in, gateway, out := newTest(t, "in"), newTest(t, "gateway"), newTest(t, "out")
	err := errors.Join(
		Join(End{in, "eth0", netip.MustParsePrefix("192.0.2.1/24")}, End{gateway, "in", netip.MustParsePrefix("192.0.2.2/24")}),
		Join(End{out, "eth0", netip.MustParsePrefix("198.51.100.1/24")}, End{gateway, "out", netip.MustParsePrefix("198.51.100.2/24")}),
		in.DefaultRoute("eth0", netip.MustParseAddr("192.0.2.2")),
		gateway.Translate(),
	)
	if err != nil {
		t.Fatal(err)
	}
	ln := listen(t, out, "198.51.100.1:0")
	if err := dial(in, ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); from != netip.MustParseAddr("198.51.100.2") {
		t.Errorf("seen as %v, want the gateway's address", from)
	}
	if err := dial(out, listen(t, in, "192.0.2.1:0").Addr().String()); err == nil {
		t.Error("dialled what is behind the gateway")
	}
}
