package vpn

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/vpn/internal/wire"
)

// A frontEnd is how an application applies updates and what it then shows.
type frontEnd interface {
	apply(*wire.PeerUpdate) error
	agents() map[ID]*wire.Agent
	workspaces() map[ID]*wire.Workspace
}

// A mac applies as the macOS application does (vpn-tunnel.md section 5): deleted
// agents, deleted workspaces with their agents, upserted workspaces, whose agents
// are forgotten, upserted agents, which evict others of the same name.
type mac struct {
	ws map[ID]*wire.Workspace
	as map[ID]*wire.Agent
}

func (m *mac) agents() map[ID]*wire.Agent         { return m.as }
func (m *mac) workspaces() map[ID]*wire.Workspace { return m.ws }

func (m *mac) drop(workspace []byte) {
	maps.DeleteFunc(m.as, func(_ ID, a *wire.Agent) bool { return string(a.GetWorkspaceId()) == string(workspace) })
}

func (m *mac) apply(u *wire.PeerUpdate) error {
	for _, a := range u.GetDeletedAgents() {
		delete(m.as, ID(a.GetId()))
	}
	for _, w := range u.GetDeletedWorkspaces() {
		delete(m.ws, ID(w.GetId()))
		m.drop(w.GetId())
	}
	for _, w := range u.GetUpsertedWorkspaces() {
		m.ws[ID(w.GetId())] = w
		m.drop(w.GetId())
	}
	for _, a := range u.GetUpsertedAgents() {
		if m.ws[ID(a.GetWorkspaceId())] == nil {
			return fmt.Errorf("agent %s of an unknown workspace", a.GetName())
		}
		maps.DeleteFunc(m.as, func(id ID, old *wire.Agent) bool {
			return string(old.GetWorkspaceId()) == string(a.GetWorkspaceId()) && old.GetName() == a.GetName()
		})
		m.as[ID(a.GetId())] = a
	}
	return nil
}

// A windows applies as the Windows application does: for each kind upserts, then
// deletions; what looks like no UUID of version 4 is not shown.
type windows struct{ mac }

func (w *windows) apply(u *wire.PeerUpdate) error {
	for _, ws := range u.GetUpsertedWorkspaces() {
		w.ws[ID(ws.GetId())] = ws
	}
	for _, ws := range u.GetDeletedWorkspaces() {
		delete(w.ws, ID(ws.GetId()))
	}
	for _, a := range u.GetUpsertedAgents() {
		if a.GetId()[6]>>4 != 4 {
			return fmt.Errorf("agent %s is hidden", a.GetName())
		}
		w.as[ID(a.GetId())] = a
	}
	for _, a := range u.GetDeletedAgents() {
		delete(w.as, ID(a.GetId()))
	}
	return nil
}

// VT-09: whatever happens in a tailnet, both applications show what there is.
func TestFrontEndsFollow(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 0))
		shows := map[string]frontEnd{}
		for _, name := range []string{"macOS", "Windows"} {
			m := mac{make(map[ID]*wire.Workspace), make(map[ID]*wire.Agent)}
			if shows[name] = &m; name == "Windows" {
				shows[name] = &windows{m}
			}
		}
		old := newRoster()
		w := &weather{r: r, peers: make(map[int]*netmap.Peer), traffic: make(map[netmap.StableID]Traffic), now: noon}
		for step := range 60 {
			w.change()
			next := rosterOf(w.netmap(), knowledge{traffic: w.traffic, now: w.now}, []Grouping{GroupByOwner, GroupByNode}[seed%2])
			updates, after := changes(old, next)
			for _, u := range updates {
				checkUpdate(t, &u)
				for _, part := range u.split() {
					for name, f := range shows {
						if err := f.apply(part); err != nil {
							t.Fatalf("seed %d, step %d: %s: %v", seed, step, name, err)
						}
					}
				}
			}
			for name, f := range shows {
				if err := showsAll(f, next); err != nil {
					t.Fatalf("seed %d, step %d: %s: %v", seed, step, name, err)
				}
			}
			if len(after) > 0 {
				old = after[len(after)-1]
			}
			if more, _ := changes(old, next); len(more) != 0 {
				t.Fatalf("seed %d, step %d: told everything, and there is more: %+v", seed, step, more)
			}
		}
	}
}

// showsAll reports what a front end shows otherwise than it is.
func showsAll(f frontEnd, r roster) error {
	if len(f.agents()) != len(r.agents) || len(f.workspaces()) != len(r.workspaces) {
		return fmt.Errorf("shows %d agents of %d, %d workspaces of %d", len(f.agents()), len(r.agents), len(f.workspaces()), len(r.workspaces))
	}
	for id, a := range r.agents {
		if !proto.Equal(f.agents()[id], agentToWire(*a)) {
			return fmt.Errorf("shows %v in place of %v", f.agents()[id], a)
		}
	}
	for id, w := range r.workspaces {
		if !proto.Equal(f.workspaces()[id], workspaceToWire(w)) {
			return fmt.Errorf("shows %v in place of %v", f.workspaces()[id], w)
		}
	}
	return nil
}

// checkUpdate checks what front ends cannot stand.
func checkUpdate(t *testing.T, u *Update) {
	t.Helper()
	seen := make(map[ID]bool)
	for _, list := range [][]Agent{u.Agents, u.DeletedAgents} {
		for _, a := range list {
			if seen[a.ID] {
				t.Errorf("agent %s is there twice", a.Name)
			}
			seen[a.ID] = true
		}
	}
	for _, list := range [][]Workspace{u.Workspaces, u.DeletedWorkspaces} {
		for _, w := range list {
			if seen[w.ID] {
				t.Errorf("workspace %s is there twice", w.Name)
			}
			seen[w.ID] = true
		}
	}
	for _, a := range u.Agents {
		for i, name := range a.FQDN {
			if name == "" || !strings.HasSuffix(name, ".") || i > 0 && len(name) < len(a.FQDN[i-1]) {
				t.Errorf("names %q", a.FQDN)
			}
		}
		if len(a.FQDN) == 0 {
			t.Errorf("agent %s has no name in the DNS", a.Name)
		}
	}
	for _, a := range u.DeletedAgents {
		if !a.LastHandshake.IsZero() || a.LastPing != nil {
			t.Errorf("agent %s is deleted with its past", a.Name)
		}
	}
}

// A weather changes a tailnet at random.
type weather struct {
	r       *rand.Rand
	peers   map[int]*netmap.Peer
	traffic map[netmap.StableID]Traffic
	now     time.Time
}

func (w *weather) netmap() *netmap.Netmap {
	var peers []*netmap.Peer
	for _, p := range w.peers {
		peers = append(peers, p)
	}
	return testNetmap(peers...)
}

// change does a few things to a few peers.
func (w *weather) change() {
	w.now = w.now.Add(time.Minute)
	for range 1 + w.r.IntN(4) {
		n := w.r.IntN(12)
		old, there := w.peers[n]
		if !there {
			w.peers[n] = testPeer(n)
			continue
		}
		p := *old
		switch w.r.IntN(7) {
		case 0:
			delete(w.peers, n)
			delete(w.traffic, p.StableID)
			continue
		case 1:
			p.User = netmap.UserID(1 + w.r.IntN(3)) // the owner changes
		case 2:
			p.Tags = [][]string{nil, {"tag:a"}, {"tag:b", "tag:a"}}[w.r.IntN(3)]
		case 3:
			p.Name = fmt.Sprintf("name-%d.tailnet.test.", w.r.IntN(4)) // some have the same
		case 4:
			p.Online = netmap.Online(w.r.IntN(3))
		case 5:
			w.traffic = maps.Clone(w.traffic)
			w.traffic[p.StableID] = Traffic{LastHandshake: w.now.Add(-time.Duration(w.r.IntN(600)) * time.Second)}
		case 6:
			p.Addresses = append(p.Addresses[:1:1], netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 15: byte(w.r.IntN(9))}), 128))
		}
		w.peers[n] = &p
	}
}

// VPN-47: what is longer than 1 MiB is told in parts that add up to it.
func TestSplit(t *testing.T) {
	var peers []*netmap.Peer
	for n := range 12000 {
		peers = append(peers, testPeer(n))
	}
	next := rosterOf(testNetmap(peers...), knowledge{}, GroupByOwner)
	u := next.update()
	parts := u.split()
	if len(parts) < 2 {
		t.Fatalf("%d part of %d bytes", len(parts), proto.Size(parts[0]))
	}
	table := newTable()
	for _, part := range parts {
		if n := proto.Size(part); n > maxUpdate {
			t.Errorf("a part of %d bytes", n)
		}
		got, err := updateOf(part)
		if err != nil {
			t.Fatal(err)
		}
		table.apply(&got)
	}
	if !sameAgents(table, next) || len(table.workspaces) != len(next.workspaces) {
		t.Errorf("%d agents, %d workspaces arrived of %d, %d", len(table.agents), len(table.workspaces), len(next.agents), len(next.workspaces))
	}
	gone := difference(next, newRoster())
	for _, part := range gone.split() {
		got, err := updateOf(part)
		if err != nil {
			t.Fatal(err)
		}
		table.apply(&got)
	}
	if len(table.agents)+len(table.workspaces) != 0 {
		t.Errorf("%d agents, %d workspaces remain", len(table.agents), len(table.workspaces))
	}
}

// VPN-47: a workspace and its agents are told in one part, also when they are longer
// than others may be; only what no message can hold is cut. So it is with what is
// deleted.
func TestSplitKeepsWorkspacesTogether(t *testing.T) {
	long := strings.Repeat("x", 1000) + "."
	for name, tt := range map[string]struct{ agents, parts int }{ // of each of three workspaces, about 1 kB each
		"small":  {300, 1},
		"medium": {700, 3},
		"large":  {2000, 3},
		"huge":   {20000, 6},
	} {
		var u Update
		for w := range byte(3) {
			u.Workspaces = append(u.Workspaces, Workspace{ID: ID{w}, Name: fmt.Sprint(w)})
			for a := range tt.agents {
				u.Agents = append(u.Agents, Agent{ID: ID{w, byte(a >> 8), byte(a)}, Workspace: ID{w}, FQDN: []string{long}})
			}
		}
		gone := Update{DeletedWorkspaces: u.Workspaces, DeletedAgents: u.Agents}
		for _, u := range []*Update{&u, &gone} {
			table := newTable()
			for _, w := range gone.DeletedWorkspaces {
				table.workspaces[w.ID] = w
			}
			parts := u.split()
			if len(parts) != tt.parts {
				t.Errorf("%s: %d parts, want %d", name, len(parts), tt.parts)
			}
			agents, in := 0, make(map[ID]map[int]bool) // parts of each workspace
			for i, part := range parts {
				if n := proto.Size(part); n > maxMessage {
					t.Errorf("%s: a part of %d bytes", name, n)
				}
				got, err := updateOf(part)
				if err != nil {
					t.Fatal(err)
				}
				for _, a := range slices.Concat(got.Agents, got.DeletedAgents) {
					if _, known := table.workspaces[a.Workspace]; !known {
						t.Errorf("%s: agents of a workspace that is gone", name)
					}
					if in[a.Workspace] == nil {
						in[a.Workspace] = make(map[int]bool)
					}
					in[a.Workspace][i] = true
					agents++
				}
				table.apply(&got)
			}
			for id, parts := range in {
				if want := max(1, tt.parts/3); len(parts) != want {
					t.Errorf("%s: workspace %v is in %d parts, want %d", name, id, len(parts), want)
				}
			}
			if agents != 3*tt.agents || len(table.workspaces) != len(u.Workspaces) {
				t.Errorf("%s: %d agents, %d workspaces arrive", name, agents, len(table.workspaces))
			}
		}
	}
}

// Ids of other lengths are left out, and the rest is taken.
func TestUpdateOfRefuses(t *testing.T) {
	good := testPeer(1)
	a := rosterOf(testNetmap(good), knowledge{}, GroupByOwner).update()
	m := a.toWire()
	m.UpsertedAgents = append(m.UpsertedAgents, &wire.Agent{Id: []byte("short")}, &wire.Agent{Id: make([]byte, 16), IpAddrs: []string{"x"}},
		&wire.Agent{Id: make([]byte, 16), WorkspaceId: []byte{1}})
	m.UpsertedWorkspaces = append(m.UpsertedWorkspaces, &wire.Workspace{Id: make([]byte, 17)})
	got, err := updateOf(m)
	if err == nil || len(got.Agents) != 1 || len(got.Workspaces) != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
}
