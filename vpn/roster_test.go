package vpn

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// noon is the time of tests without a clock.
var noon = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

// section 7.1: owners are workspaces, tags take the place of owners, and names that
// are taken have a number.
func TestRosterByOwner(t *testing.T) {
	tagged := testPeer(4)
	tagged.Tags = []string{"tag:web", "tag:prod"}
	same := testPeer(8) // of user 3, as peer 2: another ann than that of peers 3 and 6
	same.Name = "Peer-2.other.test."
	offline := testPeer(6)
	offline.Online = netmap.OnlineNo
	bob := testPeer(1) // user 2
	bob.Online = netmap.OnlineNo
	r := rosterOf(testNetmap(bob, testPeer(2), testPeer(3), tagged, offline, same), knowledge{now: noon}, GroupByOwner)
	var got []string
	for id, w := range r.workspaces {
		line := fmt.Sprintf("%s %v:", w.Name, w.Status)
		var names []string
		for _, a := range r.agents {
			if a.Workspace == id {
				names = append(names, a.Name)
			}
		}
		slices.Sort(names)
		got = append(got, line+strings.Join(names, ","))
	}
	slices.Sort(got)
	// Which ann and which peer-2 has the number follows from their ids.
	want := []string{"ann running:peer-2,peer-2-2", "ann-2 running:peer-3", "bob stopped:", "prod-web running:peer-4"}
	other := []string{"ann running:peer-3", "ann-2 running:peer-2,peer-2-2", "bob stopped:", "prod-web running:peer-4"}
	if !slices.Equal(got, want) && !slices.Equal(got, other) {
		t.Errorf("got %q", got)
	}
}

// VPN-45: ids look like UUIDs of version 4, and are the same after a restart and a
// new node key: their formula is that of section 7.1.
func TestIDs(t *testing.T) {
	p := testPeer(7)
	p.Key = key.NewNode().Public()
	first := rosterOf(testNetmap(p), knowledge{}, GroupByOwner)
	renamed := *p
	renamed.Name, renamed.Key = "else.tailnet.test.", key.NewNode().Public()
	second := rosterOf(testNetmap(&renamed), knowledge{}, GroupByOwner)
	for id, a := range first.agents {
		if id[6]>>4 != 4 || id[8]>>6 != 2 {
			t.Errorf("%v is no UUID of version 4", id)
		}
		if b, ok := second.agents[id]; !ok || b.Name != "else" || b.Workspace != a.Workspace {
			t.Errorf("after a change of name: %v", b)
		}
	}
	tagged := *p
	tagged.Tags = []string{"tag:web", "tag:prod"}
	for _, tt := range []struct {
		peer             *netmap.Peer
		by               Grouping
		workspace, agent string
	}{
		{p, GroupByOwner, "7f19f9cd-5a2f-4b6f-af80-7ab47392ed38", "9d89a472-f8b0-417d-80d7-d018f3fae6a7"},
		{&tagged, GroupByOwner, "e37998e1-39c6-4d79-bb62-b3b0f1a38388", "9d89a472-f8b0-417d-80d7-d018f3fae6a7"},
		{p, GroupByNode, "b6611aff-5b93-4ce8-9368-03a1a24057fe", "9d89a472-f8b0-417d-80d7-d018f3fae6a7"},
	} {
		for id, a := range rosterOf(testNetmap(tt.peer), knowledge{}, tt.by).agents {
			if id.String() != tt.agent || a.Workspace.String() != tt.workspace {
				t.Errorf("by %s with tags %v: agent %v, workspace %v", tt.by, tt.peer.Tags, id, a.Workspace)
			}
		}
	}
}

// VPN-30, section 5: handshakes are not in the future, and never when there was
// none; a node that is offline stays for 5 min after its last.
func TestRosterHandshakes(t *testing.T) {
	offline := testPeer(1)
	offline.Online = netmap.OnlineNo
	nm := testNetmap(offline, testPeer(2), testPeer(3))
	k := knowledge{now: noon, traffic: map[netmap.StableID]Traffic{
		"n1": {LastHandshake: noon.Add(-4 * time.Minute)}, "n2": {LastHandshake: noon.Add(time.Minute)},
	}}
	at := func(k knowledge) (times []string) {
		for _, a := range rosterOf(nm, k, GroupByOwner).agents {
			at := "never"
			if m := agentToWire(*a).GetLastHandshake(); m != nil {
				at = m.AsTime().Format(time.TimeOnly)
			}
			times = append(times, a.Name+" "+at)
		}
		slices.Sort(times)
		return times
	}
	if got := at(k); !slices.Equal(got, []string{"peer-1 11:56:00", "peer-2 12:00:00", "peer-3 never"}) {
		t.Errorf("got %q", got)
	}
	k.now = noon.Add(2 * time.Minute)
	if got := at(k); !slices.Equal(got, []string{"peer-2 12:01:00", "peer-3 never"}) {
		t.Errorf("two minutes later %q", got)
	}
}

// Section 7.1: the other grouping has a row for each node, online or not.
func TestRosterByNode(t *testing.T) {
	offline, unknown := testPeer(1), testPeer(2)
	offline.Online, unknown.Online = netmap.OnlineNo, netmap.OnlineUnknown
	r := rosterOf(testNetmap(offline, unknown, testPeer(3)), knowledge{}, GroupByNode)
	var got []string
	for _, w := range r.workspaces {
		got = append(got, fmt.Sprint(w.Name, " ", w.Status))
	}
	slices.Sort(got)
	if !slices.Equal(got, []string{"peer-1 stopped", "peer-2 unknown", "peer-3 running"}) || len(r.agents) != 2 {
		t.Errorf("got %q with %d agents", got, len(r.agents))
	}
}

// Front ends need a name in the DNS, and IPv4 first.
func TestAgentNamesAndAddresses(t *testing.T) {
	bare := &netmap.Peer{StableID: "N9", Hostname: "Box", Addresses: []netip.Prefix{
		netip.MustParsePrefix("fd7a:115c:a1e0::9/128"), netip.MustParsePrefix("100.64.0.9/32"), netip.MustParsePrefix("10.0.0.0/8"),
	}}
	if got := fmt.Sprint(agentName(bare), fqdn(bare), agentAddrs(bare)); got != "boxbox.[100.64.0.9 fd7a:115c:a1e0::9]" {
		t.Errorf("got %s", got)
	}
}
