package node_test

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/node"
)

// A node with a limit says what it uses of it, moves bulk data both ways, refuses
// what does not fit, and has everything back when its connections are closed.
func TestMemoryLimit(t *testing.T) {
	const limit, size, least = 12 << 20, 4 << 20, 20
	tailnet := startDevnet(t, devnet.Config{})
	small, other := newNode(t, tailnet, "small"), newNode(t, tailnet, "other")
	small.MemoryLimit = limit
	serveEcho(t, small, 7)
	up(t, small)
	up(t, other)
	sees(t, other, "small")
	idle := small.Status().Memory
	if idle.Limit != limit || idle.Used <= 0 || idle.Used >= limit {
		t.Errorf("idle: %+v", idle)
	}
	if err := echo(other, "small:7", size); err != nil {
		t.Fatal(err)
	}
	open := dialUntilRefused(t, other, small)
	if n := small.Status().Memory.Used; len(open) < least || n > limit {
		t.Errorf("%d connections are open; %d bytes used of %d", len(open), n, limit)
	}
	for _, c := range open {
		c.Close()
	}
	await(t, func() bool { return small.Status().Memory.Used == idle.Used })
	if st := other.Status().Memory; st != (node.MemoryStatus{}) {
		t.Errorf("a node without a limit has %+v", st)
	}
}

// dialUntilRefused opens connections to port 7 of a node until it refuses one.
func dialUntilRefused(t testing.TB, from, to *node.Node) (open []net.Conn) {
	t.Helper()
	ctx, cancel := context.WithCancel(within(t, patience))
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := from.Dial(ctx, "tcp", to.Hostname+":7")
			if err != nil {
				return
			}
			open = append(open, c)
		}
	}()
	await(t, func() bool { return to.Status().Memory.RefusedConnections > 0 })
	cancel()
	<-done
	return open
}

// await waits until ok is true.
func await(t testing.TB, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("it does not come true")
		}
	}
}

// A limit that is too small ends Start, and says what would do.
func TestMemoryLimitTooSmall(t *testing.T) {
	n := &node.Node{MemoryLimit: 1}
	defer n.Close()
	if err := n.Start(); err == nil || !strings.Contains(err.Error(), "12582912") {
		t.Errorf("start: %v, want the least limit", err)
	}
}
