package node_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/node"
)

// policyOf is a policy that opens TCP ports to all.
func policyOf(ports string) []byte {
	return fmt.Appendf(nil, `{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:%s"]}]}`, ports)
}

// A pump is a connection over which numbered bytes go both ways, until it
// fails.
type pump struct {
	conn   net.Conn
	echoed atomic.Int64  // bytes that came back, each as it was sent
	came   chan struct{} // holds one when some has come back; closed at the end
	failed chan error    // gets why it has ended
}

// inFlight is what a pump has on the way at most, in bytes: less than any queue
// holds, so that datagrams beside it find room.
const inFlight = 64 << 10

// startPump sends to an echo without a pause.
func startPump(t *testing.T, n *node.Node, address string) *pump {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := n.Dial(ctx, "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	x := &pump{conn: c, failed: make(chan error, 2), came: make(chan struct{}, 1)}
	go func() { x.failed <- x.send() }()
	go func() { x.failed <- x.receive() }()
	return x
}

func (x *pump) send() error {
	b := make([]byte, 4096)
	for at := int64(0); ; at += int64(len(b)) {
		for at-x.echoed.Load() >= inFlight {
			if _, open := <-x.came; !open {
				break // Write tells why
			}
		}
		for i := range b {
			b[i] = pattern(at + int64(i))
		}
		if _, err := x.conn.Write(b); err != nil {
			return err
		}
	}
}

func (x *pump) receive() error {
	defer close(x.came)
	b := make([]byte, 4096)
	for at := int64(0); ; {
		n, err := x.conn.Read(b)
		for i, got := range b[:n] {
			if want := pattern(at + int64(i)); got != want {
				return fmt.Errorf("byte %d came back as %d, want %d", at+int64(i), got, want)
			}
		}
		at += int64(n)
		x.echoed.Store(at)
		select {
		case x.came <- struct{}{}:
		default:
		}
		if err != nil {
			return err
		}
	}
}

func pattern(i int64) byte { return byte(i % 251) }

// progresses waits until more has come back.
func (x *pump) progresses(t *testing.T, name string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for before := x.echoed.Load(); x.echoed.Load() < before+64<<10; {
		select {
		case err := <-x.failed:
			t.Fatalf("%s has ended: %v", name, err)
		case <-time.After(time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s stands still", name)
		}
	}
}

// ends wants the connection to be reset in time. As with the system's own, one of
// those who use it is told so; another that writes later has a broken pipe.
func (x *pump) ends(t *testing.T, name string, by time.Time) {
	t.Helper()
	for range 2 {
		select {
		case err := <-x.failed:
			switch {
			case errors.Is(err, syscall.ECONNRESET):
				return
			case !errors.Is(err, syscall.EPIPE):
				t.Errorf("%s ended with %v, want a reset", name, err)
				return
			}
		case <-time.After(time.Until(by)):
			t.Fatalf("%s goes on", name)
		}
	}
	t.Errorf("%s ended with broken pipes, want a reset", name)
}

// TestPolicyEndsConnections changes the policy while connections run: those whose
// opening it denies are reset within a second, accepted or not, the others lose
// nothing; new ones
// are judged by it at once (SVC-19, SVC-26). Connections that the node itself
// has opened are none of its own policy's business.
func TestPolicyEndsConnections(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{Policy: policyOf("7-10")})
	server, client := newNode(t, tailnet, "server"), newNode(t, tailnet, "client")
	serveEcho(t, server, 7)
	serveEcho(t, server, 8)
	serveEcho(t, client, 9)
	idle, err := server.Listen("tcp", ":10") // nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	up(t, server)
	up(t, client)
	sees(t, server, "client")
	sees(t, client, "server")

	stays, ends := startPump(t, client, "server:7"), startPump(t, client, "server:8")
	dialed := startPump(t, server, "client:9")
	queued, err := client.Dial(within(t, patience), "tcp", "server:10")
	if err != nil {
		t.Fatal(err)
	}
	defer queued.Close()
	for name, x := range map[string]*pump{"the one to stay": stays, "the one to end": ends, "the server's own": dialed} {
		x.progresses(t, name)
	}

	by := setPolicy(t, tailnet, server, []byte(`{"acls": [
		{"action": "accept", "src": ["*"], "dst": ["*:7"]},
		{"action": "accept", "src": ["*"], "dst": ["*:9"]}
	]}`))
	ends.ends(t, "the connection to port 8", by)
	isReset(t, "the connection that nobody has accepted", queued, by)
	stays.progresses(t, "the connection to port 7")
	dialed.progresses(t, "the server's own connection")
	if c, err := client.Dial(within(t, patience), "tcp", "server:8"); !errors.Is(err, node.ErrRejected) {
		t.Errorf("a new connection to port 8: %v, %v, want ErrRejected", c, err)
	}
	own, _ := server.TailscaleIPs()
	from, _ := client.TailscaleIPs()
	for port, passes := range map[uint16]bool{7: true, 8: false} {
		v, err := server.ExplainPacket(node.PacketQuery{Inbound: true, Protocol: 6, Src: netip.AddrPortFrom(from, 1234), Dst: netip.AddrPortFrom(own, port)})
		if err != nil || v.Passes != passes || v.Peer != "client.tailnet.test" || (v.Rule != nil) != passes {
			t.Errorf("explanation for port %d: %+v, %v", port, v, err)
		}
	}
}

// TestDepartureEndsConnections: the connections of a node that leaves the tailnet
// end; a node that talks to itself, and one whose key has only expired, keep
// theirs.
func TestDepartureEndsConnections(t *testing.T) {
	tailnet := startDevnet(t, devnet.Config{})
	server, gone, late := newNode(t, tailnet, "server"), newNode(t, tailnet, "gone"), newNode(t, tailnet, "late")
	accepted := make(chan net.Conn, 3)
	ln, err := server.Listen("tcp", ":7")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	for _, n := range []*node.Node{server, gone, late} {
		up(t, n)
	}
	sees(t, server, "gone", "late")
	conns := map[string]net.Conn{}
	for name, n := range map[string]*node.Node{"gone": gone, "late": late, "server": server} {
		sees(t, gone, "server")
		sees(t, late, "server")
		own, _ := server.TailscaleIPs()
		c, err := n.Dial(within(t, patience), "tcp", netip.AddrPortFrom(own, 7).String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns[name] = <-accepted
		defer conns[name].Close()
	}
	if err := tailnet.ExpireKey("late"); err != nil {
		t.Fatal(err)
	}
	if err := tailnet.Remove("gone"); err != nil {
		t.Fatal(err)
	}
	conns["gone"].SetReadDeadline(time.Now().Add(patience))
	if _, err := conns["gone"].Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNABORTED) {
		t.Errorf("the connection of the node that has left: %v, want an abort", err)
	}
	for _, name := range []string{"late", "server"} {
		conns[name].SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		var timeout net.Error
		if _, err := conns[name].Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("the connection of %s: %v, want nothing to read", name, err)
		}
	}
	who, err := server.WhoIsConn(conns["gone"])
	if err != nil || who.Node.HostName != "gone" {
		t.Errorf("who had the connection: %+v, %v", who, err)
	}
	if _, err := server.WhoIs(t.Context(), conns["gone"].RemoteAddr().String()); !errors.Is(err, node.ErrUnknownAddress) {
		t.Errorf("who has the address now: %v, want ErrUnknownAddress", err)
	}
}
