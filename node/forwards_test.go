package node_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/node"
	"github.com/seed94491740/tsnode/proxy"
)

// forwards has forwards of a node run until the test ends: -L, -R and -D with what
// follows the flag.
func forwards(t testing.TB, n *node.Node, flags ...string) *proxy.Set {
	t.Helper()
	set, stop := startForwards(t, n, flags...)
	t.Cleanup(stop)
	return set
}

// startForwards is forwards until stop.
func startForwards(t testing.TB, n *node.Node, flags ...string) (set *proxy.Set, stop func()) {
	t.Helper()
	set = proxy.NewSet(proxy.Config{
		Tailnet: n, Host: host.OS{}, Logger: testLog(t, n.Hostname),
		Proxies: proxy.Proxies{Dial: func(ctx context.Context, r proxy.Request) (net.Conn, error) {
			return n.DialBy(ctx, node.DialTailnet, r.Network, r.Address)
		}},
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); set.Serve(ctx) }()
	var specs []proxy.Spec
	for _, text := range flags {
		parse := map[string]func(string) ([]proxy.Spec, error){
			"-L ": proxy.ParseLocal, "-R ": proxy.ParseRemote,
			"-D ": func(text string) ([]proxy.Spec, error) {
				s, err := proxy.ParseProxy(proxy.SOCKS, text)
				return []proxy.Spec{s}, err
			},
		}[text[:3]]
		some, err := parse(text[3:])
		if err != nil {
			t.Fatal(err)
		}
		specs = append(specs, some...)
	}
	if err := set.Apply(within(t, patience), specs); err != nil {
		t.Fatal(err)
	}
	return set, func() { cancel(); <-ended }
}

// listens returns where the forward number i listens.
func listens(t testing.TB, set *proxy.Set, i int) string {
	t.Helper()
	return set.List()[i].Listen
}

// A target is a server of this machine that expects a PROXY header, and answers
// with what it says.
func startTarget(t testing.TB) (address string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { ln.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.SetDeadline(time.Now().Add(patience))
			r := bufio.NewReader(c)
			if h, err := proxyproto.Read(r); err != nil {
				fmt.Fprint(c, err)
			} else {
				line, _ := r.ReadString('\n')
				fmt.Fprintf(c, "v%d %v to %v: %s", h.Version, h.SourceAddr, h.DestinationAddr, line)
			}
			c.Close()
		}
	}()
	return ln.Addr().String()
}

// said sends text on a connection and returns the answer.
func said(t testing.TB, c net.Conn, text string) string {
	t.Helper()
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	io.WriteString(c, text)
	got, err := io.ReadAll(c)
	if err != nil {
		t.Error(err)
	}
	return string(got)
}

// Acceptance item 9, SVC-103: the target behind -R learns from a PROXY header of
// either version which address of the tailnet has connected, and to which.
func TestRemoteForwardTellsTailnetAddress(t *testing.T) {
	t.Parallel()
	server, client := pairOf(t, devnet.Config{})
	target := startTarget(t)
	forwards(t, server, "-R 81:"+target+",proxy=v1", "-R 82:"+target+",proxy=v2")
	for _, family := range []func(*node.Node) netip.Addr{ip4Of, ip6Of} {
		from, to := family(client), family(server)
		for version, port := range map[int]uint16{1: 81, 2: 82} {
			c, err := client.Dial(within(t, patience), "tcp", netip.AddrPortFrom(to, port).String())
			if err != nil {
				t.Fatal(err)
			}
			own := c.LocalAddr().(*net.TCPAddr).AddrPort()
			if own.Addr() != from {
				t.Fatalf("dialled from %v, want %v", own, from)
			}
			want := fmt.Sprintf("v%d %v to %v: hello\n", version, own, netip.AddrPortFrom(to, port))
			if got := said(t, c, "hello\n"); got != want {
				t.Errorf("the target says %q, want %q", got, want)
			}
		}
	}
}

// The PROXY header that a client of -L begins with is told at the other end of the
// tailnet, in either version; without one the connection fails.
func TestLocalForwardPassesOnWhoIsMeant(t *testing.T) {
	t.Parallel()
	server, client := pairOf(t, devnet.Config{})
	target := startTarget(t)
	forwards(t, server, "-R 81:"+target) // as it comes
	set := forwards(t, client, "-L 0:server:81,accept-proxy,proxy=v1", "-L 0:server:81,accept-proxy,proxy=v2")
	for i, version := range []int{1, 2} {
		dial := func() net.Conn {
			c, err := net.Dial("tcp", listens(t, set, i))
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		want := fmt.Sprintf("v%d 203.0.113.7:1234 to 198.51.100.1:443: hello\n", version)
		if got := said(t, dial(), "PROXY TCP4 203.0.113.7 198.51.100.1 1234 443\r\nhello\n"); got != want {
			t.Errorf("the target says %q, want %q", got, want)
		}
		c := dial()
		c.SetDeadline(time.Now().Add(patience))
		io.WriteString(c, "hello\n\n\n\n\n\n\n\n\n\n\n\n")
		if got, err := io.ReadAll(c); err == nil || len(got) > 0 {
			t.Errorf("without a header the client gets %q, %v", got, err)
		}
		c.Close()
	}
}

// pairOf returns two nodes that see each other.
func pairOf(t testing.TB, c devnet.Config) (server, client *node.Node) {
	t.Helper()
	tailnet := startDevnet(t, c)
	server, client = newNode(t, tailnet, "server"), newNode(t, tailnet, "client")
	up(t, server)
	up(t, client)
	sees(t, client, "server")
	sees(t, server, "client")
	return server, client
}

func ip4Of(n *node.Node) netip.Addr { a, _ := n.TailscaleIPs(); return a }
func ip6Of(n *node.Node) netip.Addr { _, a := n.TailscaleIPs(); return a }

// echoOfThisMachine returns the address of a TCP echo.
func echoOfThisMachine(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return ln.Addr().String()
}

// udpEchoOfThisMachine returns the address of a UDP echo.
func udpEchoOfThisMachine(t *testing.T) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go func() {
		for b := make([]byte, 1<<16); ; {
			n, from, err := pc.ReadFrom(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				pc.WriteTo(b[:n], from)
			}
		}
	}()
	return pc.LocalAddr().String()
}
