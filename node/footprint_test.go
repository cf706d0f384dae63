package node_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
)

// What a further idle node in a process may take on two cores. On more, gVisor
// has a further goroutine for each in every stack, and a node further outbound
// loops, no more than those; heap is what is reachable, some of it buffers that
// are not touched before they are needed, and the server's part for the node.
const (
	maxIdleGoroutines = 25  // of them two gVisor's; measured 25
	maxIdleHeap       = 0.9 // MB; measured 0.66
)

// serverSide are the parts of stacks that the embedded tailnet's goroutines have.
var serverSide = []string{"tsnode/devnet.", "tsnode/transport/derp/relay.", "tsnode/transport/stun.", "http.(*http2serverConn)", "http.(*conn).serve", "http.(*http2responseWriter)"}

// nodeGoroutines returns the stacks of goroutines that are no server's.
func nodeGoroutines() (stacks []string) {
	buf := make([]byte, 4<<20)
	for _, stack := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		server := false
		for _, part := range serverSide {
			server = server || strings.Contains(stack, part)
		}
		if !server {
			stacks = append(stacks, stack)
		}
	}
	return stacks
}

// Each further node of a process costs few goroutines while it is idle, and
// little memory.
func TestFootprintOfAnIdleNode(t *testing.T) {
	const few, many = 2, 8
	tailnet := startDevnet(t, devnet.Config{})
	others, each := len(nodeGoroutines()), maxIdleGoroutines+2*max(runtime.GOMAXPROCS(0)-2, 0)
	start := func(from, to int) {
		for i := from; i < to; i++ {
			up(t, newNode(t, tailnet, fmt.Sprint("idle", i)))
		}
	}
	start(0, few)
	rest := settledGoroutines(t, others+few*each)
	heap := heapInUse()
	start(few, many)
	more := settledGoroutines(t, rest+(many-few)*each) - rest
	if per := float64(heapInUse()-heap) / 1e6 / (many - few); per > maxIdleHeap {
		t.Errorf("an idle node takes %.2f MB, more than %.2f", per, maxIdleHeap)
	} else {
		t.Logf("an idle node takes %.2f MB and %.1f goroutines, %d of them gVisor's", per, float64(more)/(many-few), runtime.GOMAXPROCS(0))
	}
}

// settledGoroutines waits until there are at most so many goroutines and returns
// how many there are; those that have work come and go.
func settledGoroutines(t *testing.T, most int) int {
	t.Helper()
	ctx := within(t, patience)
	for {
		stacks := nodeGoroutines()
		if len(stacks) <= most {
			return len(stacks)
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%d goroutines, more than %d:\n%s", len(stacks), most, strings.Join(stacks, "\n\n"))
		case <-time.After(100 * time.Millisecond):
		}
	}
}
