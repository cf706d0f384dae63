package vpn

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/seed94491740/tsnode/netmap"
)

// A tailnet of 1,000 peers with 100 changes each second for a minute: what the
// manager has merged is what there is, and the stream carries far fewer updates
// than there were changes, in the manager's pace (VPN-28).
func TestThousandPeers(t *testing.T) {
	for name, slow := range map[string]time.Duration{"fast": 0, "slow": 2 * time.Second} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { thousandPeers(t, slow) }) })
	}
}

// A crowd is the peers of a large tailnet.
type crowd struct {
	peers []*netmap.Peer
	r     *rand.Rand
	made  int // changes
}

func newCrowd(peers int) *crowd {
	c := &crowd{r: rand.New(rand.NewPCG(1, 2))}
	for i := range peers {
		c.peers = append(c.peers, testPeer(1+i))
	}
	return c
}

// change changes one peer, and returns the netmap with it.
func (c *crowd) change(nm netmap.Netmap) *netmap.Netmap {
	k := c.r.IntN(len(c.peers))
	p := *c.peers[k]
	switch c.made++; c.r.IntN(4) {
	case 0:
		p.Name = fmt.Sprintf("name-%d.tailnet.test.", c.made)
	case 1:
		p.Online = netmap.Online(c.r.IntN(3))
	case 2:
		p.User = netmap.UserID(1 + c.r.IntN(3))
	case 3:
		p = *testPeer(2000 + c.made) // another node in its place
	}
	c.peers[k] = &p
	nm.Peers = slices.Clone(c.peers)
	return &nm
}

// thousandPeers runs the tailnet beside a manager that takes some time for each
// update.
func thousandPeers(t *testing.T, slow time.Duration) {
	const changes, seconds = 100, 60
	c := newCrowd(1000)
	n := newTestNode(testNetmap(c.peers...))
	own, peer := streams()
	tunnel := &Tunnel{NewNode: nodes(n)}
	served := make(chan error, 1)
	go func() { served <- tunnel.Serve(t.Context(), own) }()
	updates := 0
	m, err := Dial(t.Context(), peer, ManagerConfig{Events: func(e Event) {
		if _, ok := e.(Update); ok {
			updates++
			if slow > 0 {
				time.Sleep(slow) // fake time
			}
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Start(t.Context(), testStart()); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for range changes * seconds {
		time.Sleep(time.Second / changes) // fake time
		n.maps.Store(c.change(*n.maps.Get()))
	}
	if took := time.Since(began); took != seconds*time.Second {
		t.Errorf("%d changes took %v: the stream holds the node up", changes*seconds, took)
	}
	time.Sleep(time.Minute) // even a slow manager has read all
	showsCrowd(t, m.Peers(), rosterOf(n.maps.Get(), knowledge{now: time.Now()}, GroupByOwner))
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	<-served
	t.Logf("%d changes made %d updates", changes*seconds, updates)
	if most := 2 * (seconds + 1) * int(time.Second/updateGap); updates > most { // two when a peer changes hands
		t.Errorf("%d updates, more than %d", updates, most)
	}
}

// showsCrowd checks what a manager shows.
func showsCrowd(t *testing.T, got Table, want roster) {
	t.Helper()
	if len(got.Agents) != len(want.agents) || len(got.Workspaces) != len(want.workspaces) {
		t.Errorf("%d agents of %d, %d workspaces of %d", len(got.Agents), len(want.agents), len(got.Workspaces), len(want.workspaces))
	}
	for _, a := range got.Agents {
		if b := want.agents[a.ID]; b == nil || b.Name != a.Name || b.Workspace != a.Workspace {
			t.Errorf("agent %s is shown in place of %+v", a.Name, b)
		}
	}
	for _, w := range got.Workspaces {
		if want.workspaces[w.ID] != w {
			t.Errorf("workspace %v is shown as %v", want.workspaces[w.ID], w)
		}
	}
}
