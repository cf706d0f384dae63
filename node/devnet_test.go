package node_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/node"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second // for what takes well under a second

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// testLog shows warnings, and all under go test -v.
func testLog(t testing.TB, name string) *slog.Logger {
	level := slog.LevelWarn
	if testing.Verbose() {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: level})).With("node", name)
}

func startDevnet(t testing.TB, c devnet.Config) *devnet.Net {
	t.Helper()
	c.Logger = testLog(t, "devnet")
	tailnet, err := devnet.Start(within(t, patience), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tailnet.Close() })
	return tailnet
}

// newNode returns a node of the tailnet, not yet started, and closes it at the
// end of the test.
func newNode(t testing.TB, tailnet *devnet.Net, name string) *node.Node {
	n := makeNode(t, tailnet, name)
	t.Cleanup(func() { n.Close() })
	return n
}

func makeNode(t testing.TB, tailnet *devnet.Net, name string) *node.Node {
	return &node.Node{
		Hostname: name, ControlURL: tailnet.URL(), AuthKey: tailnet.AuthKey(devnet.KeyOptions{}), Ephemeral: true,
		Logger: testLog(t, name), Proxy: func(*http.Request) (*url.URL, error) { return nil, nil },
	}
}

// sees waits until the node's netmap has all the names, and its packet pipeline the
// addresses.
func sees(t testing.TB, n *node.Node, names ...string) {
	t.Helper()
	ctx := within(t, patience)
	for {
		seen := 0
		for _, p := range n.Status().Peers {
			if !slices.Contains(names, p.HostName) {
				continue
			}
			if owner, ok := n.PeerFor(p.TailscaleIPs[0]); ok && owner.HostName == p.HostName {
				seen++
			}
		}
		if seen == len(names) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s does not see all of %v", n.Hostname, names)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func up(t testing.TB, n *node.Node) {
	t.Helper()
	if _, err := n.Up(within(t, patience)); err != nil {
		t.Fatalf("up %s: %v", n.Hostname, err)
	}
}

// serveEcho answers each connection with what it sends, until the node closes.
func serveEcho(t testing.TB, n *node.Node, port int) {
	t.Helper()
	ln, err := n.Listen("tcp", fmt.Sprintf(":%d", port))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
				c.(interface{ CloseWrite() error }).CloseWrite()
			}()
		}
	}()
}

// echo sends size random bytes to an echo, half-closes, and wants them back.
func echo(n *node.Node, address string, size int) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := n.Dial(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return echoes(c, size)
}

// echoes does so over a connection, and closes it.
func echoes(c net.Conn, size int) error {
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	sent := make([]byte, size)
	rand.Read(sent)
	wrote := make(chan error, 1)
	go func() {
		_, err := c.Write(sent)
		wrote <- errors.Join(err, c.(interface{ CloseWrite() error }).CloseWrite())
	}()
	got, err := io.ReadAll(c)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, sent) {
		return fmt.Errorf("got %d bytes back, want the %d sent", len(got), len(sent))
	}
	return <-wrote
}

func TestTwoNodesExchangeTCPAndUDP(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	a, b := newNode(t, tailnet, "alpha"), newNode(t, tailnet, "beta")
	serveEcho(t, b, 7)
	pc, err := b.ListenPacket("udp", ":7")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		buf := make([]byte, 2000)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			pc.WriteTo(buf[:n], from)
		}
	}()
	up(t, a)
	up(t, b)
	sees(t, a, "beta")
	sees(t, b, "alpha")
	ip4, ip6 := b.TailscaleIPs()
	for _, host := range []string{"beta", "BETA.tailnet.test.", ip4.String(), ip6.String()} {
		if err := echo(a, net.JoinHostPort(host, "7"), 1<<20); err != nil {
			t.Errorf("TCP to %s: %v", host, err)
		}
	}
	for _, ip := range []netip.Addr{ip4, ip6} {
		if err := echoUDP(t, a, netip.AddrPortFrom(ip, 7)); err != nil {
			t.Errorf("UDP to %v: %v", ip, err)
		}
	}
	own, _ := a.TailscaleIPs()
	serveEcho(t, a, 8)
	if err := echo(a, netip.AddrPortFrom(own, 8).String(), 100); err != nil {
		t.Errorf("to itself: %v", err)
	}
	client := b.HTTPClient()
	defer client.CloseIdleConnections()
	ln, err := a.Listen("tcp", ":80")
	if err != nil {
		t.Fatal(err)
	}
	go http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, err := a.WhoIs(r.Context(), r.RemoteAddr)
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		fmt.Fprint(w, who.Node.Name, " ", who.UserProfile.LoginName)
	}))
	resp, err := client.Get("http://alpha/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "beta.tailnet.test dev@tailnet.test" {
		t.Errorf("who is: %q, %v", body, err)
	}
}

// echoUDP sends datagrams until one comes back: UDP promises no more.
func echoUDP(t testing.TB, n *node.Node, to netip.AddrPort) error {
	c, err := n.Dial(within(t, patience), "udp", to.String())
	if err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, 100)
	for range 20 {
		if _, err := c.Write([]byte("datagram")); err != nil {
			return err
		}
		c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		if k, err := c.Read(buf); err == nil {
			if string(buf[:k]) != "datagram" {
				return fmt.Errorf("got %q", buf[:k])
			}
			return nil
		}
	}
	return errors.New("no answer to 20 datagrams")
}

// Fifty nodes in a row leave nothing behind: goroutines and heap return to
// where they were.
func TestNodesLeaveNothingBehind(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	server := newNode(t, tailnet, "server")
	serveEcho(t, server, 7)
	up(t, server)
	cycle := func(i int) {
		n := makeNode(t, tailnet, fmt.Sprintf("guest%d", i)) // nothing may keep it
		defer n.Close()
		up(t, n)
		sees(t, n, "server")
		if err := echo(n, "server:7", 1<<20); err != nil {
			t.Fatalf("guest %d: %v", i, err)
		}
		if err := n.Close(); err != nil {
			t.Fatalf("guest %d: close: %v", i, err)
		}
	}
	for i := range 5 { // pools and caches fill
		cycle(i)
	}
	ignore, before := goleak.IgnoreCurrent(), heapInUse()
	for i := range 50 {
		cycle(100 + i)
	}
	resting := goleak.IgnoreAnyFunction("github.com/seed94491740/tsnode/transport/derp/relay.(*sender).run") // for a second after the server's last packet
	if err := goleak.Find(ignore, resting); err != nil {
		t.Error(err)
	}
	grown := int64(heapInUse()) - int64(before)
	t.Logf("the heap has grown by %d KiB", grown>>10)
	if grown > 8<<20 {
		t.Errorf("the heap has grown by %d KiB", grown>>10)
	}
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A hundred nodes at once in one process, each reached once.
func TestHundredNodes(t *testing.T) {
	count := 100
	if raceEnabled {
		count = 25 // the work grows by the square, and the detector makes it ten times as much
	}
	tailnet := startDevnet(t, devnet.Config{})
	nodes := make([]*node.Node, count)
	var wg sync.WaitGroup
	for i := range nodes {
		nodes[i] = newNode(t, tailnet, fmt.Sprintf("n%d", i))
		serveEcho(t, nodes[i], 7)
		wg.Go(func() {
			if _, err := nodes[i].Up(within(t, patience)); err != nil {
				t.Errorf("node %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	for i := range nodes {
		wg.Go(func() {
			sees(t, nodes[i], fmt.Sprintf("n%d", (i+1)%len(nodes)))
			if err := echo(nodes[i], fmt.Sprintf("n%d:7", (i+1)%len(nodes)), 10_000); err != nil {
				t.Errorf("node %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}
