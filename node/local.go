package node

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/seed94491740/tsnode/netmap"
)

// A LocalClient asks a node about itself and about who connects to it: the
// idioms tsnet programs use.
type LocalClient struct{ node *Node }

// LocalClient returns a client of the node, which it starts if necessary.
func (n *Node) LocalClient() (*LocalClient, error) {
	if err := n.Start(); err != nil {
		return nil, err
	}
	return &LocalClient{n}, nil
}

// Status returns a snapshot of the node.
func (c *LocalClient) Status(context.Context) (*Status, error) { return c.node.Status(), nil }

// WhoIs tells who is behind an address, as Node.WhoIs does.
func (c *LocalClient) WhoIs(ctx context.Context, addr string) (*WhoIsResponse, error) {
	return c.node.WhoIs(ctx, addr)
}

// A WhoIsResponse tells who is behind an address.
type WhoIsResponse struct {
	Node        PeerStatus
	UserProfile netmap.UserProfile           // of the owner; for a tagged node that of its tags
	CapMap      map[string][]json.RawMessage // what the policy grants it towards this node (SVC-118)
}

// WhoIs tells which node has the address, an IP with or without a port, such as
// the remote address of an accepted connection; who owns it; and what the
// policy grants it towards us. An address behind a subnet router belongs to no
// node (SVC-117). For a tagged node look at its tags, not at its user (SVC-119).
func (n *Node) WhoIs(_ context.Context, addr string) (*WhoIsResponse, error) {
	a, err := parseWho(addr)
	if err != nil {
		return nil, err
	}
	nm := n.netmap()
	if nm == nil {
		return nil, fmt.Errorf("who is %s: %w", addr, ErrNotRunning)
	}
	p, ok := nm.PeerByAddr(a)
	if !ok {
		return nil, fmt.Errorf("who is %v: %w", a, ErrNoRoute)
	}
	return &WhoIsResponse{
		Node:        n.peerStatus(nm, p),
		UserProfile: nm.Users[p.User],
		CapMap:      n.capsOf(nm, a),
	}, nil
}

func parseWho(addr string) (netip.Addr, error) {
	if ap, err := netip.ParseAddrPort(addr); err == nil {
		return ap.Addr().Unmap(), nil
	}
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return a, fmt.Errorf("who is %q: want an IP address, with or without a port", addr)
	}
	return a.Unmap(), nil
}

// capsOf returns what the policy grants src towards our own address of its
// family.
func (n *Node) capsOf(nm *netmap.Netmap, src netip.Addr) map[string][]json.RawMessage {
	for _, own := range nm.Self.Addresses {
		if own.Addr().Is4() == src.Is4() {
			return n.capabilities(src, own.Addr())
		}
	}
	return nil
}
