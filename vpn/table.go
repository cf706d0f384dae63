package vpn

import (
	"maps"
	"slices"
	"strings"
)

// A Table is all peers that a tunnel has told of. Its lists are in the order of
// their names.
type Table struct {
	Workspaces []Workspace
	Agents     []Agent
}

// A table merges updates (VPN-53).
type table struct {
	workspaces map[ID]Workspace
	agents     map[ID]Agent
}

func newTable() *table { return &table{make(map[ID]Workspace), make(map[ID]Agent)} }

// apply merges a change: deletions, then workspaces, then agents.
func (t *table) apply(u *Update) {
	for _, a := range u.DeletedAgents {
		delete(t.agents, a.ID)
	}
	for _, w := range u.DeletedWorkspaces {
		delete(t.workspaces, w.ID)
	}
	for _, w := range u.Workspaces {
		t.workspaces[w.ID] = w
	}
	for _, a := range u.Agents {
		t.agents[a.ID] = a
	}
}

// snapshot is the table as a manager shows it.
func (t *table) snapshot() Table {
	return Table{
		Workspaces: slices.SortedFunc(maps.Values(t.workspaces), func(a, b Workspace) int { return strings.Compare(a.Name, b.Name) }),
		Agents: slices.SortedFunc(maps.Values(t.agents), func(a, b Agent) int {
			if c := strings.Compare(a.Name, b.Name); c != 0 {
				return c
			}
			return strings.Compare(string(a.ID[:]), string(b.ID[:]))
		}),
	}
}
