package interop

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/interop/ground"
	"github.com/seed94491740/tsnode/interop/peer"
)

const (
	// matrixFlow is the time between datagrams of a cell's conversation: less
	// often than elsewhere, for many cells talk at once.
	matrixFlow = 20 * time.Millisecond

	// matrixWidth is how many cells of each row are filled at once.
	matrixWidth = 2

	// referenceRestart is how many datagrams a reference node may lose at the start
	// of a conversation: those of a handshake's time. Its workers at times take the
	// two copies of a response that came by relay and directly, both, and count
	// from zero again (WG-32).
	referenceRestart = int(200 * time.Millisecond / matrixFlow)

	// matrixPatience is how long a cell is given for a direct path.
	matrixPatience = 8 * time.Second
)

var kinds = []peer.Kind{peer.Ours, peer.Reference}

// reachable reports whether two nodes behind such gateways can talk directly.
// A side that lets only those answer to whom it has sent never hears one whose
// port nobody can foretell.
func reachable(a, b ground.NAT) bool {
	filters := func(n ground.NAT) bool { return n == ground.Easy || n == ground.Symmetric }
	hides := func(n ground.NAT) bool { return n == ground.Symmetric }
	switch {
	case a == ground.Blocked || b == ground.Blocked:
		return false
	default:
		return !(hides(a) && filters(b) || hides(b) && filters(a))
	}
}

// A cell is what became of a conversation between two kinds of gateways.
type cell struct {
	path      peer.Path
	took      time.Duration // until direct; 0 for never
	lost, all int           // datagrams
	err       error
}

func (c cell) String() string {
	if c.path.Direct.IsValid() {
		return fmt.Sprintf("direct %.2f s", c.took.Seconds())
	}
	return "relay"
}

// TestNATMatrix makes a node behind each kind of gateway talk to one behind each
// other, for each pair of ours and the reference's, and prints which path they
// reach and how long after the first data:
//
//	go test -run TestNATMatrix -v .
func TestNATMatrix(t *testing.T) {
	a := newArena(t)
	left, right := a.matrixNodes("left"), a.matrixNodes("right")
	results := make(map[pair]map[[2]ground.NAT]cell)
	for _, p := range pairs() {
		results[p] = make(map[[2]ground.NAT]cell)
	}
	var mu sync.Mutex
	for round := 0; round < len(ground.NATs); round += matrixWidth {
		var cells sync.WaitGroup
		for i := range len(ground.NATs) * matrixWidth {
			from := ground.NATs[i/matrixWidth]
			to := ground.NATs[(i/matrixWidth+round+i%matrixWidth)%len(ground.NATs)]
			for _, p := range pairs() {
				cells.Go(func() {
					c := talk(left[p.from][from], right[p.to][to])
					mu.Lock()
					defer mu.Unlock()
					results[p][[2]ground.NAT{from, to}] = c
				})
			}
		}
		cells.Wait()
	}
	for _, p := range pairs() {
		t.Logf("%v:\n%s", p, table(results[p]))
		for at, c := range results[p] {
			if c.err != nil {
				t.Errorf("%v, %v to %v: %v", p, at[0], at[1], c.err)
			} else if c.path.Direct.IsValid() != reachable(at[0], at[1]) {
				t.Errorf("%v, %v to %v: %v", p, at[0], at[1], c.path)
			} else if c.lost > 0 && p.ours() || c.lost > max(int(referenceLoss*float64(c.all)), referenceRestart) {
				t.Errorf("%v, %v to %v: %d of %d datagrams lost", p, at[0], at[1], c.lost, c.all)
			}
		}
	}
}

// matrixNodes starts a node of ours and one of the reference's behind each kind
// of gateway, the two on the same LAN.
func (a *arena) matrixNodes(side string) map[peer.Kind]map[ground.NAT]*peer.Process {
	a.Helper()
	var nodes []newNode
	for i, nat := range ground.NATs {
		s := a.site(nat, lastMile)
		for _, kind := range kinds {
			name := fmt.Sprintf("%s%d-%s", side, i, kind)
			nodes = append(nodes, newNode{kind, name, a.host(s, name)})
		}
	}
	started := map[peer.Kind]map[ground.NAT]*peer.Process{peer.Ours: {}, peer.Reference: {}}
	for i, p := range a.startAll(nodes...) {
		started[p.Kind][ground.NATs[i/len(kinds)]] = p
	}
	return started
}

// talk makes one node send datagrams to another for a while, and returns the
// path the sender has found.
func talk(from, to *peer.Process) (c cell) {
	if c.err = acquaint(from, to); c.err != nil {
		return c
	}
	if _, c.err = from.Watch(to); c.err != nil {
		return c
	}
	began := time.Now()
	flow, err := from.StartFlow(to, matrixFlow)
	if err != nil {
		return cell{err: err}
	}
	for time.Since(began) < matrixPatience && !c.path.Direct.IsValid() {
		time.Sleep(lookEvery) // real nodes cannot run in a bubble
		if c.path, c.took, c.err = firstDirect(from, to, began); c.err != nil {
			return c
		}
	}
	time.Sleep(settleTime)
	f, err := from.StopFlow(flow, to)
	there, back := f.Lost()
	c.lost, c.all, c.err = there+back, len(f.Sent), err
	return c
}

// firstDirect returns the first direct path since a moment, or else the path of
// now.
func firstDirect(from, to *peer.Process, since time.Time) (path peer.Path, took time.Duration, err error) {
	changes, err := from.Watch(to)
	for _, ch := range changes {
		path = ch.Path
		if path.Direct.IsValid() {
			return path, ch.At.Sub(since), err
		}
	}
	return path, 0, err
}

// table prints results in Markdown, a row for each kind of gateway of the
// sender.
func table(cells map[[2]ground.NAT]cell) string {
	var b strings.Builder
	b.WriteString("| sender behind | ")
	for _, to := range ground.NATs {
		fmt.Fprintf(&b, "%v | ", to)
	}
	b.WriteString("\n|---" + strings.Repeat("|---", len(ground.NATs)) + "|\n")
	for _, from := range ground.NATs {
		fmt.Fprintf(&b, "| %v | ", from)
		for _, to := range ground.NATs {
			fmt.Fprintf(&b, "%v | ", cells[[2]ground.NAT{from, to}])
		}
		b.WriteString("\n")
	}
	return b.String()
}
