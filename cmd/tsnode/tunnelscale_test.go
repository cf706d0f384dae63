package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/devnet"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/node"
	"github.com/seed94491740/tsnode/vpn"
)

// VPN-28, VPN-29, VPN-45, with a real node: while the peers of a tailnet of 1,000
// change all the time and the manager is told, packets flow; and what the manager
// has merged in the end is what the netmap says. The changes are those of a minute
// with 100 a second, or as many of them as there is time for: the node's stack takes
// no fake time.
func TestTunnelThousandPeers(t *testing.T) {
	const peers, changes, transfer = 1000, 6000, 5 * time.Second
	noneLeft(t)
	tailnet := devnet.New(t, devnet.Config{})
	web := neighbour(t, tailnet, "web")
	ln, err := web.Listen("tcp", ":7")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		echoOne(ln.Accept)
		echoOne(ln.Accept)
	}()
	synthetic(t, tailnet, peers)
	f := newFronted(t, nil)
	if err := f.Start(t.Context(), startOf(tailnet)); err != nil {
		t.Fatal(err)
	}
	n := <-f.nodes
	f.showsNetmap(t, n, peers)
	quiet := echoRate(t, n.Node, "web:7", transfer/2)

	stop, made := make(chan struct{}), make(chan int)
	go func() { made <- stir(t, tailnet, changes, transfer/changes, stop) }()
	busy := echoRate(t, n.Node, "web:7", transfer)
	close(stop)
	count := <-made
	if err := tailnet.EditSyntheticPeers(func(i int, p *devnet.SyntheticPeer) {
		if i == 0 {
			p.Name, p.Online = "last", true
		}
	}); err != nil {
		t.Fatal(err)
	}
	becomes(t, func() bool { return slices.Contains(agentsOf(n), "last") }, func() string { return "the node does not hear of the last change" })
	f.showsNetmap(t, n, 1)
	t.Logf("an echo of %.0f MB/s while nothing changes, of %.0f MB/s beside %d changes in %v (%.0f %%); %d updates",
		quiet/1e6, busy/1e6, count, transfer, 100*busy/quiet, f.updates.Load())
	if count < changes/10 {
		t.Errorf("%d changes: not even those of a tenth of the time", count)
	}
	if busy < quiet/10 {
		t.Errorf("an echo of %.0f MB/s in place of %.0f MB/s: the changes hold up the packets", busy/1e6, quiet/1e6)
	}
	f.stops(t)
}

// echoRate sends through the tailnet for some time, and returns how many bytes come
// back each second.
func echoRate(t *testing.T, n *node.Node, address string, d time.Duration) float64 {
	t.Helper()
	c, err := n.Dial(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(d))
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(c, zeros{})
		sent <- err
	}()
	got, err := io.Copy(io.Discard, c)
	if other := <-sent; !errors.Is(err, os.ErrDeadlineExceeded) || !errors.Is(other, os.ErrDeadlineExceeded) {
		t.Errorf("the echo ends with %v, %v", err, other)
	}
	return float64(got) / d.Seconds()
}

// stir changes one synthetic peer every now and then: its name, its tags, or
// whether it is online. It returns how often it has.
func stir(t *testing.T, tailnet *devnet.Net, most int, every time.Duration, stop <-chan struct{}) (made int) {
	r := rand.New(rand.NewPCG(1, 2))
	tick := time.NewTicker(every)
	defer tick.Stop()
	for ; made < most; made++ {
		select {
		case <-tick.C:
		case <-stop:
			return made
		}
		which, kind := r.IntN(1000), r.IntN(3)
		err := tailnet.EditSyntheticPeers(func(i int, p *devnet.SyntheticPeer) {
			switch {
			case i != which:
			case kind == 0:
				p.Name = fmt.Sprintf("name-%d", made)
			case kind == 1:
				p.Online = !p.Online
			default:
				p.Tags = [][]string{nil, {"tag:a"}, {"tag:a", "tag:b"}}[r.IntN(3)]
			}
		})
		if err != nil {
			t.Error(err)
			return made
		}
	}
	return made
}

// showsNetmap waits until the manager shows exactly what the node's netmap says, and
// so many agents at least.
func (f *fronted) showsNetmap(t *testing.T, n *tunnelNode, least int) {
	t.Helper()
	var err error
	becomes(t, func() bool {
		nm, _ := n.Netmap()
		err = differs(f.Peers(), nm)
		return err == nil && len(f.Peers().Agents) >= least
	}, func() string { return fmt.Sprintf("the manager shows %d agents: %v", len(f.Peers().Agents), err) })
}

// differs says where a table is not what a netmap says.
func differs(got vpn.Table, nm *netmap.Netmap) error {
	want := make(map[string]*netmap.Peer)
	online := make(map[string]bool) // owners: whether a node of theirs is
	for _, p := range nm.Peers {
		online[headingOf(p)] = online[headingOf(p)] || p.Online == netmap.OnlineYes
		if p.Online != netmap.OnlineNo {
			want[p.BaseName()] = p
		}
	}
	if len(got.Agents) != len(want) || len(got.Workspaces) != len(online) {
		return fmt.Errorf("%d agents, %d workspaces; want %d, %d", len(got.Agents), len(got.Workspaces), len(want), len(online))
	}
	status := make(map[vpn.ID]vpn.WorkspaceStatus)
	for _, w := range got.Workspaces {
		status[w.ID] = w.Status
	}
	workspaces := make(map[string]vpn.ID)
	for _, a := range got.Agents {
		p := want[a.Name]
		if p == nil || a.FQDN[0] != p.Name || len(a.Addrs) != len(p.Addresses) || a.Addrs[0] != p.Addresses[0].Addr() {
			return fmt.Errorf("agent %+v in place of %+v", a, p)
		}
		owner := headingOf(p)
		if id, known := workspaces[owner]; known && id != a.Workspace {
			return fmt.Errorf("agent %s is not with others of %s", a.Name, owner)
		}
		workspaces[owner] = a.Workspace
		if (status[a.Workspace] == vpn.StatusRunning) != online[owner] {
			return fmt.Errorf("the workspace of %s is %v", a.Name, status[a.Workspace])
		}
	}
	owners := make(map[vpn.ID]string)
	for owner, id := range workspaces {
		if other, taken := owners[id]; taken {
			return fmt.Errorf("%s and %s have one workspace", owner, other)
		}
		owners[id] = owner
	}
	return nil
}

// headingOf tells nodes of one owner, or of the same tags, from others.
func headingOf(p *netmap.Peer) string {
	if len(p.Tags) > 0 {
		return strings.Join(p.Tags, ",")
	}
	return fmt.Sprint(p.User)
}
