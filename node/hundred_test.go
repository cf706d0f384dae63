package node_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/node"
)

// What each of a hundred nodes in one process may take that has a forward both
// ways, its port on loopback and a capture, all of them in use; with the server's
// part for it.
const (
	maxBusyGoroutines = 70
	maxBusyHeap       = 4.0 // MB
)

// Acceptance item 7: a hundred nodes in one process, each with all that a sidecar
// has, take a bounded number of goroutines and bytes each, and leave none behind.
func TestHundredSidecars(t *testing.T) {
	count := 100
	if raceEnabled {
		count = 20 // the work grows by the square, and the detector makes it ten times as much
	}
	tailnet := startDevnet(t, devnet.Config{})
	target := echoOfThisMachine(t)
	runSidecars(t, tailnet, target, 2) // makes whatever a process makes once
	ignore, before := goleak.IgnoreCurrent(), heapInUse()
	runSidecars(t, tailnet, target, count)
	resting := goleak.IgnoreAnyFunction("github.com/seed94491740/tsnode/transport/derp/relay.(*sender).run") // for a second after the server's last packet
	if err := goleak.Find(ignore, resting); err != nil {
		t.Error(err)
	}
	if grown := int64(heapInUse()) - int64(before); grown > 16<<20 {
		t.Errorf("the heap has grown by %d KiB", grown>>10)
	} else {
		t.Logf("the heap has grown by %d KiB", grown>>10)
	}
}

// A sidecar is a node with all that it can do beside the tailnet.
type sidecar struct {
	*node.Node
	local   string // where its forward into the tailnet listens
	capture string // file
	stop    func() // ends the forwards
}

// runSidecars starts sidecars, uses, measures and ends them. Nothing may keep them
// then, as t.Cleanup would.
func runSidecars(t *testing.T, tailnet *devnet.Net, target string, count int) {
	dir := t.TempDir()
	goroutines, heap := runtime.NumGoroutine(), heapInUse()
	all := make([]*sidecar, count)
	name := func(i int) string { return fmt.Sprintf("c%d-%d", count, i%count) }
	each := func(do func(i int)) {
		var wg sync.WaitGroup
		for i := range all {
			wg.Go(func() { do(i) })
		}
		wg.Wait()
	}
	for i := range all {
		all[i] = &sidecar{Node: makeNode(t, tailnet, name(i)), capture: filepath.Join(dir, name(i))}
		defer all[i].Close()
	}
	each(func(i int) {
		if _, err := all[i].Up(within(t, patience)); err != nil {
			t.Errorf("%s: %v", name(i), err)
		}
	})
	for i, s := range all {
		if err := s.equip(t, name(i+1), target); err != nil {
			t.Fatalf("%s: %v", name(i), err)
		}
		defer s.stop()
	}
	each(func(i int) {
		sees(t, all[i].Node, name(i+1))
		if err := all[i].use(); err != nil {
			t.Errorf("%s: %v", name(i), err)
		}
	})
	for i, s := range all {
		addr, _, credential, err := s.Loopback()
		if err != nil {
			t.Fatal(err)
		}
		if got := askLoopback(t, addr, "localapi", credential); got != http.StatusOK {
			t.Errorf("the port of %s answers %d", name(i), got)
		}
	}
	perNode := (runtime.NumGoroutine() - goroutines) / count
	mb := float64(int64(heapInUse())-int64(heap)) / 1e6 / float64(count)
	t.Logf("a sidecar takes %d goroutines and %.2f MB", perNode, mb)
	if perNode > maxBusyGoroutines || count > 10 && mb > maxBusyHeap {
		t.Errorf("want at most %d goroutines and %.2f MB", maxBusyGoroutines, maxBusyHeap)
	}
	each(func(i int) {
		all[i].stop()
		if err := all[i].Close(); err != nil {
			t.Errorf("close %s: %v", name(i), err)
		}
		if st, err := os.Stat(all[i].capture); err != nil || st.Size() < 10_000 {
			t.Errorf("%s has captured %v, %v; want all that went through", name(i), st, err)
		}
	})
}

// equip turns everything on: a forward to the next node, one from the tailnet to
// target, the port on loopback and a capture.
func (s *sidecar) equip(t *testing.T, next, target string) error {
	set, stop := startForwards(t, s.Node, "-L 0:"+next+":80", "-R 80:"+target)
	s.stop = stop
	s.local = listens(t, set, 0)
	if _, _, _, err := s.Loopback(); err != nil {
		return err
	}
	return s.CapturePcap(context.Background(), s.capture)
}

// use sends data through the node to the next one and back.
func (s *sidecar) use() error {
	c, err := net.Dial("tcp", s.local)
	if err != nil {
		return err
	}
	return echoes(c, 10_000)
}
