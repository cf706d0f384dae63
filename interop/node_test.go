package interop

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tailscale.com/tsnet"
	"tailscale.com/types/logger"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/node"
)

// A dialer is what a node of ours and one of the reference have in common.
type dialer interface {
	Dial(ctx context.Context, network, address string) (net.Conn, error)
	Listen(network, addr string) (net.Listener, error)
	ListenPacket(network, addr string) (net.PacketConn, error)
	TailscaleIPs() (ip4, ip6 netip.Addr)
}

var (
	_ dialer = (*node.Node)(nil)
	_ dialer = (*tsnet.Server)(nil)
)

// testLog shows our node's log under go test -v.
func testLog(t *testing.T, name string) *slog.Logger {
	level := slog.LevelInfo
	if testing.Verbose() {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: level})).With("node", name)
}

// ourNode starts a node of ours and waits for it.
func ourNode(t *testing.T, control, name, authKey string) *node.Node {
	t.Helper()
	n := &node.Node{
		ControlURL: control, Hostname: name, AuthKey: authKey, Ephemeral: true, Logger: testLog(t, name),
		Proxy: func(*http.Request) (*url.URL, error) { return nil, nil },
	}
	t.Cleanup(func() { n.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), upTimeout)
	defer cancel()
	if _, err := n.Up(ctx); err != nil {
		t.Fatalf("our node %s: %v", name, err)
	}
	return n
}

func startDevnet(t *testing.T, c devnet.Config) *devnet.Net {
	t.Helper()
	if c.Logger == nil {
		c.Logger = testLog(t, "devnet")
	}
	tailnet, err := devnet.Start(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tailnet.Close() })
	return tailnet
}

// Our node and a tsnet node on the reference's control server and relay.
func TestOurNodeOnReferenceControl(t *testing.T) {
	control, _ := referenceControl(t)
	exchange(t, ourNode(t, control, "ours", ""), tsnetNode(t, control, "theirs", ""))
}

// Two of our nodes on the reference's control server and relay.
func TestOurNodesOnReferenceControl(t *testing.T) {
	control, _ := referenceControl(t)
	exchange(t, ourNode(t, control, "one", ""), ourNode(t, control, "two", ""))
}

// A tsnet node and ours on our devnet.
func TestReferenceNodeOnDevnet(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	k := tailnet.AuthKey(devnet.KeyOptions{Reusable: true})
	exchange(t, ourNode(t, tailnet.URL(), "ours", k), tsnetNode(t, tailnet.URL(), "theirs", k))
}

// Two unmodified tsnet nodes on our devnet.
func TestReferenceNodesOnDevnet(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	k := tailnet.AuthKey(devnet.KeyOptions{Reusable: true})
	exchange(t, tsnetNode(t, tailnet.URL(), "one", k), tsnetNode(t, tailnet.URL(), "two", k))
}

// exchange carries TCP and UDP both ways over both families.
func exchange(t *testing.T, a, b dialer) {
	t.Helper()
	for _, way := range []struct {
		name     string
		from, to dialer
	}{{"forth", a, b}, {"back", b, a}} {
		t.Run(way.name, func(t *testing.T) {
			ip4, ip6 := way.to.TailscaleIPs()
			for _, ip := range []netip.Addr{ip4, ip6} {
				if !ip.IsValid() {
					continue
				}
				t.Run("tcp "+ip.String(), func(t *testing.T) { exchangeTCP(t, way.from, way.to, ip, 4<<20) })
				t.Run("udp "+ip.String(), func(t *testing.T) { exchangeUDP(t, way.from, way.to, ip) })
			}
		})
	}
}

// dialWhenKnown dials, again while the peer has not come with the netmap yet.
func dialWhenKnown(t *testing.T, from dialer, network string, to netip.AddrPort) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		c, err := from.Dial(ctx, network, to.String())
		if err == nil {
			return c
		}
		if !errors.Is(err, node.ErrNoRoute) || ctx.Err() != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond) // real nodes cannot run in a bubble
	}
}

// exchangeTCP sends size random bytes, half-closes, and wants them all back.
func exchangeTCP(t *testing.T, from, to dialer, ip netip.Addr, size int) {
	ln, err := to.Listen("tcp", ":7001")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		all, _ := io.ReadAll(c)
		c.Write(all)
	}()
	c := dialWhenKnown(t, from, "tcp", netip.AddrPortFrom(ip, 7001))
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	sent := make([]byte, size)
	rand.Read(sent)
	go func() {
		c.Write(sent)
		c.(interface{ CloseWrite() error }).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("got %d bytes, %v; want the %d sent", len(got), err, len(sent))
	}
}

// exchangeUDP sends datagrams until one is echoed: UDP promises no more.
func exchangeUDP(t *testing.T, from, to dialer, ip netip.Addr) {
	pc, err := to.ListenPacket("udp", netip.AddrPortFrom(ip, 7002).String())
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	go func() {
		buf := make([]byte, 2048)
		for {
			n, addr, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo(buf[:n], addr)
		}
	}()
	c := dialWhenKnown(t, from, "udp", netip.AddrPortFrom(ip, 7002))
	defer c.Close()
	want, buf := []byte("ping over UDP"), make([]byte, 2048)
	for range 20 {
		if _, err := c.Write(want); err != nil {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		n, err := c.Read(buf)
		if err == nil {
			if !bytes.Equal(buf[:n], want) {
				t.Errorf("got %q, want %q", buf[:n], want)
			}
			return
		}
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Fatal(err)
		}
	}
	t.Error("no echo of 20 datagrams")
}

// A state directory written by tsnet is adopted: same key, same address, no
// login; and tsnet adopts ours.
func TestStateDirectoryMovesBothWays(t *testing.T) {
	control, server := referenceControl(t)
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	theirs := func(authKey string) (netip.Addr, string) {
		t.Helper()
		s := &tsnet.Server{Dir: dir, ControlURL: control, Hostname: "mover", AuthKey: authKey, Logf: logger.Discard}
		defer s.Close()
		ctx, cancel := context.WithTimeout(context.Background(), upTimeout)
		defer cancel()
		st, err := s.Up(ctx)
		if err != nil {
			t.Fatalf("tsnet: %v", err)
		}
		return st.TailscaleIPs[0], st.Self.PublicKey.String()
	}
	ours := func() (netip.Addr, string) {
		t.Helper()
		n := &node.Node{Dir: dir, ControlURL: control, Hostname: "mover", Logger: testLog(t, "mover")}
		defer n.Close()
		ctx, cancel := context.WithTimeout(context.Background(), upTimeout)
		defer cancel()
		st, err := n.Up(ctx)
		if err != nil {
			t.Fatalf("our node: %v", err)
		}
		return st.TailscaleIPs[0], st.Self.PublicKey.String()
	}
	ip, key := theirs("")
	if ip2, key2 := ours(); ip2 != ip || key2 != key {
		t.Errorf("we are %v %s; tsnet was %v %s", ip2, key2, ip, key)
	}
	if ip3, key3 := theirs(""); ip3 != ip || key3 != key {
		t.Errorf("tsnet is %v %s after us; it was %v %s", ip3, key3, ip, key)
	}
	if n := server.NumNodes(); n != 1 {
		t.Errorf("the control server knows %d nodes, want 1", n)
	}
}
