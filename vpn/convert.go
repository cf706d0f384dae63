package vpn

import (
	"fmt"
	"net/netip"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/seed94491740/tsnode/vpn/internal/wire"
)

// toWire is an update as sent.
func (u *Update) toWire() *wire.PeerUpdate {
	return &wire.PeerUpdate{
		UpsertedWorkspaces: each(u.Workspaces, workspaceToWire), UpsertedAgents: each(u.Agents, agentToWire),
		DeletedWorkspaces: each(u.DeletedWorkspaces, workspaceToWire), DeletedAgents: each(u.DeletedAgents, agentToWire),
	}
}

func each[From, To any](list []From, convert func(From) To) []To {
	if len(list) == 0 {
		return nil
	}
	to := make([]To, len(list))
	for i, v := range list {
		to[i] = convert(v)
	}
	return to
}

func workspaceToWire(w Workspace) *wire.Workspace {
	return &wire.Workspace{Id: w.ID[:], Name: valid(w.Name), Status: wire.Workspace_Status(w.Status)}
}

func agentToWire(a Agent) *wire.Agent {
	m := &wire.Agent{
		Id: a.ID[:], Name: valid(a.Name), WorkspaceId: a.Workspace[:],
		Fqdn: each(a.FQDN, valid), IpAddrs: each(a.Addrs, netip.Addr.String),
	}
	if !a.LastHandshake.IsZero() {
		m.LastHandshake = timestamppb.New(a.LastHandshake)
	}
	if p := a.LastPing; p != nil {
		m.LastPing = &wire.LastPing{Latency: durationpb.New(p.Latency), DidP2P: p.Direct, PreferredDerp: valid(p.Relay)}
		if p.RelayLatency > 0 {
			m.LastPing.PreferredDerpLatency = durationpb.New(p.RelayLatency)
		}
	}
	return m
}

// updateOf reads an update that a tunnel has sent. What has no proper id is left
// out and told in the error, and the rest is good.
func updateOf(m *wire.PeerUpdate) (u Update, err error) {
	add := func(list *[]Workspace, from []*wire.Workspace) {
		for _, w := range from {
			id, e := idOf(w.GetId())
			if e != nil {
				err = fmt.Errorf("vpn: workspace %q: %w", w.GetName(), e)
				continue
			}
			*list = append(*list, Workspace{id, w.GetName(), WorkspaceStatus(w.GetStatus())})
		}
	}
	add(&u.Workspaces, m.GetUpsertedWorkspaces())
	add(&u.DeletedWorkspaces, m.GetDeletedWorkspaces())
	agents := func(list *[]Agent, from []*wire.Agent) {
		for _, a := range from {
			agent, e := agentOf(a)
			if e != nil {
				err = fmt.Errorf("vpn: agent %q: %w", a.GetName(), e)
				continue
			}
			*list = append(*list, agent)
		}
	}
	agents(&u.Agents, m.GetUpsertedAgents())
	agents(&u.DeletedAgents, m.GetDeletedAgents())
	return u, err
}

func idOf(b []byte) (id ID, err error) {
	if len(b) != len(id) {
		return id, fmt.Errorf("id of %d bytes: want %d", len(b), len(id))
	}
	return ID(b), nil
}

func agentOf(m *wire.Agent) (a Agent, err error) {
	if a.ID, err = idOf(m.GetId()); err != nil {
		return a, err
	}
	if len(m.GetWorkspaceId()) != 0 { // one that is deleted may have none
		if a.Workspace, err = idOf(m.GetWorkspaceId()); err != nil {
			return a, fmt.Errorf("workspace: %w", err)
		}
	}
	a.Name, a.FQDN = m.GetName(), m.GetFqdn()
	for _, text := range m.GetIpAddrs() {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return a, err
		}
		a.Addrs = append(a.Addrs, addr)
	}
	a.LastHandshake = timeOf(m.GetLastHandshake())
	if p := m.GetLastPing(); p != nil {
		a.LastPing = &Ping{
			Latency: p.GetLatency().AsDuration(), Direct: p.GetDidP2P(),
			Relay: p.GetPreferredDerp(), RelayLatency: p.GetPreferredDerpLatency().AsDuration(),
		}
	}
	return a, nil
}

// timeOf is a time that a tunnel has sent; years up to 1970 stand for none, as
// some tunnels have it (vpn-tunnel.md section 5).
func timeOf(t *timestamppb.Timestamp) time.Time {
	if t.GetSeconds() <= 0 {
		return time.Time{}
	}
	return t.AsTime()
}
