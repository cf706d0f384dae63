package node

import (
	"net/netip"
	"testing"

	"github.com/seed94491740/tsnode/netmap"
)

// What front ends ask of a node that does not run has an answer, and starts
// nothing.
func TestFrontendOfAStoppedNode(t *testing.T) {
	n := new(Node)
	if nm, changed := n.Netmap(); nm != nil || changed != nil {
		t.Errorf("netmap %v, %v", nm, changed)
	}
	if n.Routes(netip.MustParsePrefix("10.0.0.0/8"), new(netmap.Peer)) {
		t.Error("it routes")
	}
	n.Wake()
	if s := n.Status(); s.State != StateStopped {
		t.Errorf("state %v", s.State)
	}
}
