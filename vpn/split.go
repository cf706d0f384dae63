package vpn

import (
	"google.golang.org/protobuf/proto"

	"github.com/seed94491740/tsnode/vpn/internal/wire"
)

// Sizes of notifications about peers, in bytes (VPN-47).
const (
	maxUpdate = 1 << 20            // of one with several workspaces
	maxPiece  = maxMessage - 1<<10 // of one workspace: what can be sent at all
)

// split cuts an update into messages of about maxUpdate: what is deleted first. A
// workspace and its agents are in one message, which may be longer for that.
func (u *Update) split() (parts []*wire.PeerUpdate) {
	whole := u.toWire()
	if proto.Size(whole) <= maxUpdate {
		return []*wire.PeerUpdate{whole}
	}
	var part *wire.PeerUpdate
	size := 0 // of part
	for _, p := range u.pieces(whole) {
		n := proto.Size(p)
		if part == nil || size+n > maxUpdate {
			part, size = new(wire.PeerUpdate), 0
			parts = append(parts, part)
		}
		add(part, p)
		size += n
	}
	return parts
}

// add puts what is in piece into part.
func add(part, piece *wire.PeerUpdate) {
	part.UpsertedWorkspaces = append(part.UpsertedWorkspaces, piece.UpsertedWorkspaces...)
	part.UpsertedAgents = append(part.UpsertedAgents, piece.UpsertedAgents...)
	part.DeletedWorkspaces = append(part.DeletedWorkspaces, piece.DeletedWorkspaces...)
	part.DeletedAgents = append(part.DeletedAgents, piece.DeletedAgents...)
}

// pieces are what an update says of each workspace: first what is deleted, then the
// rest. Whole is the update as sent.
func (u *Update) pieces(whole *wire.PeerUpdate) (all []*wire.PeerUpdate) {
	gone, rest := newSorter(), newSorter()
	for i, a := range whole.DeletedAgents {
		p := gone.of(u.DeletedAgents[i].Workspace)
		p.DeletedAgents = append(p.DeletedAgents, a)
	}
	for i, w := range whole.DeletedWorkspaces {
		p := gone.of(u.DeletedWorkspaces[i].ID)
		p.DeletedWorkspaces = append(p.DeletedWorkspaces, w)
	}
	for i, w := range whole.UpsertedWorkspaces {
		p := rest.of(u.Workspaces[i].ID)
		p.UpsertedWorkspaces = append(p.UpsertedWorkspaces, w)
	}
	for i, a := range whole.UpsertedAgents {
		p := rest.of(u.Agents[i].Workspace)
		p.UpsertedAgents = append(p.UpsertedAgents, a)
	}
	for _, p := range append(gone.pieces, rest.pieces...) {
		all = append(all, halves(p)...)
	}
	return all
}

// A sorter has a piece for each workspace, in the order in which they came.
type sorter struct {
	pieces []*wire.PeerUpdate
	index  map[ID]*wire.PeerUpdate
}

func newSorter() *sorter { return &sorter{index: make(map[ID]*wire.PeerUpdate)} }

// of is the piece of a workspace.
func (s *sorter) of(id ID) *wire.PeerUpdate {
	p := s.index[id]
	if p == nil {
		p = new(wire.PeerUpdate)
		s.index[id] = p
		s.pieces = append(s.pieces, p)
	}
	return p
}

// halves cuts a piece that no message can hold: agents that are deleted come before
// their workspace, others behind it.
func halves(p *wire.PeerUpdate) []*wire.PeerUpdate {
	up, down := len(p.UpsertedAgents), len(p.DeletedAgents)
	if proto.Size(p) <= maxPiece || up+down < 2 {
		return []*wire.PeerUpdate{p}
	}
	first := &wire.PeerUpdate{
		UpsertedWorkspaces: p.UpsertedWorkspaces, UpsertedAgents: p.UpsertedAgents[:up/2], DeletedAgents: p.DeletedAgents[:down/2],
	}
	second := &wire.PeerUpdate{
		UpsertedAgents: p.UpsertedAgents[up/2:], DeletedAgents: p.DeletedAgents[down/2:], DeletedWorkspaces: p.DeletedWorkspaces,
	}
	return append(halves(first), halves(second)...)
}
