package node

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/internal/simnet"
)

// surrounding are the networks that a node of the matrix may be in.
var surroundings = []struct {
	name   string
	router *simnet.RouterConfig // nil: on the internet itself
}{
	{"none", nil},
	{"easy NAT", &easy},
	{"symmetric NAT", &symmetric},
	{"UDP blocked", &blocked},
	{"port mapped", &mapping},
}

// wantDirect says which pairs of surroundings reach each other directly: all but
// those without UDP, and a symmetric NAT with one that filters by port.
func wantDirect(a, b string) bool {
	if a > b {
		a, b = b, a
	}
	switch {
	case a == "UDP blocked" || b == "UDP blocked":
		return false
	case a == "easy NAT" && b == "symmetric NAT", a == "symmetric NAT" && b == "symmetric NAT":
		return false
	}
	return true
}

// TestNATMatrix prints which path each pair of surroundings reaches, and how
// long after the first data; doc/paths.md keeps the table. With every pair the
// data arrives.
func TestNATMatrix(t *testing.T) {
	cells := make(map[[2]string]string)
	for _, a := range surroundings {
		for _, b := range surroundings {
			t.Run(a.name+" to "+b.name, func(t *testing.T) {
				onGround(t, func(t *testing.T, g *ground) {
					cells[[2]string{a.name, b.name}] = g.pair(t, a.router, b.router, wantDirect(a.name, b.name))
				})
			})
		}
	}
	t.Log("\n" + matrix(cells))
}

// pair joins two nodes, sends from the first to the second, and describes the
// path they reach.
func (g *ground) pair(t *testing.T, ar, br *simnet.RouterConfig, direct bool) string {
	a, b := g.within(ar), g.within(br)
	time.Sleep(settled)
	flow := a.send(b, 7, 10*time.Millisecond)
	first := until(t, 5*time.Second, func() bool { return flow.received() > 0 })
	limit := 10 * time.Second
	took := time.Duration(0)
	for ; took < limit && !a.direct(b); took += 10 * time.Millisecond {
		time.Sleep(10 * time.Millisecond)
	}
	flow.end()
	if flow.lost() > 0 {
		t.Errorf("%d of %d packets were lost", flow.lost(), flow.sent)
	}
	if got := a.direct(b); got != direct {
		best, _ := a.path(b)
		t.Errorf("direct %v, want %v; path %+v", got, direct, best)
	}
	if !a.direct(b) {
		return fmt.Sprintf("relay, %d ms", first.Milliseconds())
	}
	if took+first > time.Second {
		t.Errorf("direct only after %v", took+first)
	}
	return fmt.Sprintf("direct, %d ms", (took + first).Milliseconds())
}

// within joins a node behind a router, or on the internet itself.
func (g *ground) within(r *simnet.RouterConfig) *member {
	if r == nil {
		return g.join(g.net.AddHost("host", simnet.HostConfig{Link: wide}))
	}
	m, _ := g.behind(*r)
	return m
}

// received is how many packets of the flow have arrived.
func (f *testFlow) received() int {
	f.at.mu.Lock()
	defer f.at.mu.Unlock()
	return len(f.seen)
}

// matrix formats the cells as a table.
func matrix(cells map[[2]string]string) string {
	var b strings.Builder
	b.WriteString("| from \\ to |")
	for _, s := range surroundings {
		fmt.Fprintf(&b, " %s |", s.name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(surroundings)) + "\n")
	for _, from := range surroundings {
		fmt.Fprintf(&b, "| **%s** |", from.name)
		for _, to := range surroundings {
			fmt.Fprintf(&b, " %s |", cells[[2]string{from.name, to.name}])
		}
		b.WriteString("\n")
	}
	return b.String()
}
