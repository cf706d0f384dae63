package vpn

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// An ID identifies a workspace or an agent; it is a UUID.
type ID [16]byte

// String is the usual text of a UUID.
func (id ID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// MarshalText is the usual text of a UUID.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// A WorkspaceStatus says what has become of a workspace.
type WorkspaceStatus int32

// States of a workspace (vpn-tunnel.md section 4.4). Tunnels of this package use
// unknown, running and stopped.
const (
	StatusUnknown WorkspaceStatus = iota
	StatusPending
	StatusStarting
	StatusRunning
	StatusStopping
	StatusStopped
	StatusFailed
	StatusCanceling
	StatusCanceled
	StatusDeleting
	StatusDeleted
)

var statusNames = [...]string{
	"unknown", "pending", "starting", "running", "stopping", "stopped",
	"failed", "canceling", "canceled", "deleting", "deleted",
}

// String is the state's name; a number for one that is newer than this package.
func (s WorkspaceStatus) String() string {
	if s >= 0 && int(s) < len(statusNames) {
		return statusNames[s]
	}
	return fmt.Sprint(int32(s))
}

// MarshalText is the state's name.
func (s WorkspaceStatus) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A Workspace is a heading over agents: the owner of nodes, or the tags that they
// have in common.
type Workspace struct {
	ID     ID
	Name   string // no other workspace has it
	Status WorkspaceStatus
}

// An Agent is a node of the tailnet.
type Agent struct {
	ID            ID
	Name          string // no other agent of the workspace has it
	Workspace     ID
	FQDN          []string // DNS names with trailing dot, shortest first
	Addrs         []netip.Addr
	LastHandshake time.Time `json:",omitzero"`  // of WireGuard; zero: none
	LastPing      *Ping     `json:",omitempty"` // nil: none yet
}

// A Ping is the newest answer of an agent.
type Ping struct {
	Latency      time.Duration // there and back
	Direct       bool          // not by way of a relay
	Relay        string        // display name of the agent's home relay region; empty: unknown
	RelayLatency time.Duration `json:",omitzero"` // from this node; 0: unknown
}

// equal reports whether two agents are told in the same words.
func (a *Agent) equal(b *Agent) bool {
	if a == b {
		return true
	}
	samePing := a.LastPing == b.LastPing || a.LastPing != nil && b.LastPing != nil && *a.LastPing == *b.LastPing
	return samePing && a.ID == b.ID && a.Name == b.Name && a.Workspace == b.Workspace &&
		a.LastHandshake.Equal(b.LastHandshake) && slices.Equal(a.FQDN, b.FQDN) && slices.Equal(a.Addrs, b.Addrs)
}

// An Update is a change of the peers. Who applies it deletes first, then upserts
// workspaces, then agents (VPN-53).
type Update struct {
	Workspaces        []Workspace `json:",omitempty"` // new or changed
	Agents            []Agent     `json:",omitempty"` // new or changed
	DeletedWorkspaces []Workspace `json:",omitempty"`
	DeletedAgents     []Agent     `json:",omitempty"`
}

// empty reports whether there is nothing to tell.
func (u *Update) empty() bool {
	return len(u.Workspaces)+len(u.Agents)+len(u.DeletedWorkspaces)+len(u.DeletedAgents) == 0
}
