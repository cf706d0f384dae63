package vpn

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/netmap"
)

// handshakeFresh is how long after a handshake a node counts as there although
// control says that it is offline; front ends show older ones as a problem.
const handshakeFresh = 5 * time.Minute

// A Grouping says what is a workspace to the manager.
type Grouping string

// Groupings (vpn-tunnel.md section 7.1).
const (
	GroupByOwner Grouping = "owner" // an owner, or a set of tags, with its nodes
	GroupByNode  Grouping = "node"  // each node, with itself if it is online
)

// A roster is all that the manager is to show.
type roster struct {
	workspaces map[ID]Workspace
	agents     map[ID]*Agent // never changed
}

func newRoster() roster {
	return roster{make(map[ID]Workspace), make(map[ID]*Agent)}
}

// update is the change from nothing to the whole roster.
func (r roster) update() Update { return difference(newRoster(), r) }

// A knowledge is what a roster is made of beside the netmap.
type knowledge struct {
	traffic map[netmap.StableID]Traffic
	pings   map[netmap.StableID]Ping
	now     time.Time
}

// rosterOf is the roster of a netmap. It is a pure function, so that all of it is
// the same after a restart (VPN-45).
func rosterOf(nm *netmap.Netmap, k knowledge, by Grouping) roster {
	r := newRoster()
	if nm == nil || nm.Self == nil {
		return r
	}
	l := &lister{nm: nm, know: k, by: by, roster: r, online: make(map[ID]netmap.Online)}
	for _, p := range nm.Peers {
		l.add(p)
	}
	l.finish()
	return r
}

// A lister fills a roster.
type lister struct {
	nm     *netmap.Netmap
	know   knowledge
	by     Grouping
	roster roster
	online map[ID]netmap.Online // of each workspace, the best of its nodes
}

// add lists a node under its owner.
func (l *lister) add(p *netmap.Peer) {
	id, name := l.heading(p)
	l.roster.workspaces[id] = Workspace{ID: id, Name: name}
	l.online[id] = max(l.online[id], p.Online)
	t := l.know.traffic[p.StableID]
	if p.Online == netmap.OnlineNo && (t.LastHandshake.IsZero() || l.know.now.Sub(t.LastHandshake) >= handshakeFresh) {
		return
	}
	a := &Agent{
		ID: newID("vpn-node", string(p.StableID)), Name: agentName(p), Workspace: id,
		FQDN: []string{fqdn(p)}, Addrs: agentAddrs(p),
	}
	if !t.LastHandshake.IsZero() {
		a.LastHandshake = earlier(t.LastHandshake, l.know.now).UTC()
	}
	if ping, ok := l.know.pings[p.StableID]; ok {
		a.LastPing = &ping
	}
	l.roster.agents[a.ID] = a
}

// earlier clamps a time in the future, which a front end takes for none.
func earlier(t, now time.Time) time.Time {
	if t.After(now) {
		return now
	}
	return t
}

// heading is the workspace that a node belongs to. Numbers make names unique
// later.
func (l *lister) heading(p *netmap.Peer) (ID, string) {
	switch {
	case l.by == GroupByNode:
		return newID("vpn-ws-node", string(p.StableID)), agentName(p)
	case len(p.Tags) > 0:
		tags := slices.Sorted(slices.Values(p.Tags))
		names := make([]string, len(tags))
		for i, t := range tags {
			names[i] = strings.TrimPrefix(t, "tag:")
		}
		return newID("vpn-ws", l.nm.Domain, strings.Join(tags, ",")), strings.ToLower(strings.Join(names, "-"))
	}
	user := strconv.FormatInt(int64(p.User), 10)
	login, _, _ := strings.Cut(l.nm.Users[p.User].LoginName, "@")
	return newID("vpn-ws", l.nm.Domain, user), strings.ToLower(cmp.Or(login, "user-"+user))
}

// finish gives workspaces their status, and all a name of their own.
func (l *lister) finish() {
	for id, w := range l.roster.workspaces {
		w.Status = statusOf(l.online[id])
		l.roster.workspaces[id] = w
	}
	var names []named
	for id, w := range l.roster.workspaces {
		names = append(names, named{name: w.Name, id: id})
	}
	for id, name := range unique(names) {
		w := l.roster.workspaces[id]
		w.Name = name
		l.roster.workspaces[id] = w
	}
	names = names[:0]
	for id, a := range l.roster.agents {
		names = append(names, named{a.Workspace, a.Name, id})
	}
	for id, name := range unique(names) {
		l.roster.agents[id].Name = name
	}
}

// statusOf is the status of a workspace whose best node is online or not.
func statusOf(o netmap.Online) WorkspaceStatus {
	switch o {
	case netmap.OnlineYes:
		return StatusRunning
	case netmap.OnlineNo:
		return StatusStopped
	}
	return StatusUnknown
}

// A named thing must differ from others of the same scope.
type named struct {
	scope ID
	name  string
	id    ID
}

// unique returns new names for those that are taken: the first by id keeps its
// own, the others have a number behind it.
func unique(all []named) map[ID]string {
	slices.SortFunc(all, func(a, b named) int { return strings.Compare(string(a.id[:]), string(b.id[:])) })
	type key struct {
		scope ID
		name  string
	}
	taken, renamed := make(map[key]bool), make(map[ID]string)
	var again []named
	for _, n := range all {
		k := key{n.scope, strings.ToLower(n.name)}
		if taken[k] {
			again = append(again, n)
		}
		taken[k] = true
	}
	for _, n := range again {
		for i := 2; ; i++ {
			name := fmt.Sprintf("%s-%d", n.name, i)
			if k := (key{n.scope, strings.ToLower(name)}); !taken[k] {
				taken[k], renamed[n.id] = true, name
				break
			}
		}
	}
	return renamed
}

// newID derives an id from a kind and a name that does not change. It looks like
// a UUID of version 4: one front end hides others (VPN-45).
func newID(kind string, parts ...string) ID {
	h := sha256.Sum256([]byte(kind + strings.Join(parts, "\x00")))
	id := ID(h[:16])
	id[6] = 0x40 | id[6]&0x0f
	id[8] = 0x80 | id[8]&0x3f
	return id
}

// agentName is the first label of the node's name in the tailnet.
func agentName(p *netmap.Peer) string {
	return strings.ToLower(cmp.Or(p.BaseName(), p.Hostname, string(p.StableID)))
}

// fqdn is the name that our resolver answers for; front ends need one.
func fqdn(p *netmap.Peer) string {
	return strings.TrimSuffix(cmp.Or(p.Name, agentName(p)), ".") + "."
}

// agentAddrs are a node's own addresses, IPv4 first.
func agentAddrs(p *netmap.Peer) (addrs []netip.Addr) {
	for _, a := range p.Addresses {
		if a.IsSingleIP() {
			addrs = append(addrs, a.Addr())
		}
	}
	slices.SortStableFunc(addrs, func(a, b netip.Addr) int { return cmp.Compare(a.BitLen(), b.BitLen()) })
	return slices.Compact(addrs)
}
