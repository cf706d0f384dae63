package vpn

import (
	"slices"
	"strings"
)

// changes are the updates that lead from one roster to another, in order, and the
// roster that each leads to. There are two when agents change hands: front ends
// differ in what they apply first (VPN-46).
func changes(old, next roster) (updates []Update, after []roster) {
	between := withoutMoved(old, next)
	for _, r := range []roster{between, next} {
		if u := difference(old, r); !u.empty() {
			updates, after = append(updates, u), append(after, r)
		}
		old = r
	}
	return updates, after
}

// withoutMoved is next without the agents that were under another workspace.
func withoutMoved(old, next roster) roster {
	r := next
	r.agents = make(map[ID]*Agent, len(next.agents))
	for id, a := range next.agents {
		if was, ok := old.agents[id]; !ok || was.Workspace == a.Workspace {
			r.agents[id] = a
		}
	}
	return r
}

// difference is the update from old to next, in which no agent changes hands. It
// lists no id twice, all agents of a deleted workspace as deleted, and all agents
// of an upserted workspace as upserted, for some front ends drop these.
func difference(old, next roster) (u Update) {
	touched := make(map[ID]bool)
	for id, w := range next.workspaces {
		if was, ok := old.workspaces[id]; !ok || was != w {
			touched[id] = true
			u.Workspaces = append(u.Workspaces, w)
		}
	}
	for id, a := range next.agents {
		if was, ok := old.agents[id]; !ok || touched[a.Workspace] || !was.equal(a) {
			u.Agents = append(u.Agents, *a)
		}
	}
	for id, w := range old.workspaces {
		if _, ok := next.workspaces[id]; !ok {
			u.DeletedWorkspaces = append(u.DeletedWorkspaces, w)
		}
	}
	for id, a := range old.agents {
		if _, ok := next.agents[id]; !ok {
			u.DeletedAgents = append(u.DeletedAgents, gone(a))
		}
	}
	u.sort()
	return u
}

// gone is what is told of a deleted agent.
func gone(a *Agent) Agent { return Agent{ID: a.ID, Name: a.Name, Workspace: a.Workspace} }

// sort puts each list in order, so that equal changes are told in equal words.
func (u *Update) sort() {
	workspaces := func(a, b Workspace) int { return strings.Compare(string(a.ID[:]), string(b.ID[:])) }
	agents := func(a, b Agent) int { return strings.Compare(string(a.ID[:]), string(b.ID[:])) }
	slices.SortFunc(u.Workspaces, workspaces)
	slices.SortFunc(u.DeletedWorkspaces, workspaces)
	slices.SortFunc(u.Agents, agents)
	slices.SortFunc(u.DeletedAgents, agents)
}
