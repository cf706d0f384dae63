package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// A WhoIsResponse tells who is behind an address. Look at Node.Tags first: a
// tagged node belongs to nobody.
type WhoIsResponse struct {
	Node        PeerStatus
	UserProfile netmap.UserProfile           // of the owner; of a tagged node TaggedDevices (SVC-119)
	CapMap      map[string][]json.RawMessage // what the policy grants it towards this node (SVC-118); see CapValues
}

// TaggedDevices is the login name of the user profile of every tagged node.
const TaggedDevices = "tagged-devices"

// WhoIs tells which node has an address, an IP with or without a port, or a key
// written as nodekey:…; who owns it; and what the policy grants it towards us. An
// address with a port that this node forwards from for a peer stands for that peer
// (SVC-54). An address behind a subnet router belongs to no node (SVC-117). To ask
// for an accepted connection, WhoIsConn is better. When no node has it, the error
// is ErrUnknownAddress.
func (n *Node) WhoIs(_ context.Context, addr string) (*WhoIsResponse, error) {
	nm := n.netmap()
	if nm == nil {
		return nil, fmt.Errorf("who is %s: %w", addr, ErrNotRunning)
	}
	p, a, err := find(nm, addr)
	if peer, ok := n.run.behalf.peer(addr); ok && errors.Is(err, ErrUnknownAddress) {
		p, a, err = find(nm, peer.String())
	}
	if err != nil {
		return nil, fmt.Errorf("who is %s: %w", addr, err)
	}
	return &WhoIsResponse{
		Node:        n.peerStatus(nm, p),
		UserProfile: profileOf(nm.Users, p),
		CapMap:      n.Capabilities(a, netip.Addr{}),
	}, nil
}

// WhoIsConn tells who opened a connection that a listener of this node has
// accepted, itself or inside a tls.Conn. It says who that was when it was
// accepted, even if the node has left the tailnet since. For another connection
// it is WhoIs of the remote address.
func (n *Node) WhoIsConn(c net.Conn) (*WhoIsResponse, error) {
	for inner := c; inner != nil; inner = unwrap(inner) {
		if o := openerOf(inner); o != nil {
			return n.whoOpened(inner, o)
		}
	}
	return n.WhoIs(context.Background(), c.RemoteAddr().String())
}

// unwrap returns the connection inside another, as of a tls.Conn; nil for none.
func unwrap(c net.Conn) net.Conn {
	if w, ok := c.(interface{ NetConn() net.Conn }); ok {
		return w.NetConn()
	}
	return nil
}

func (n *Node) whoOpened(c net.Conn, o *opener) (*WhoIsResponse, error) {
	nm := n.netmap()
	if nm == nil {
		return nil, fmt.Errorf("who is %v: %w", c.RemoteAddr(), ErrNotRunning)
	}
	w := &WhoIsResponse{Node: n.peerStatus(nm, o.peer), UserProfile: profileOf(o.users, o.peer), CapMap: o.caps}
	w.Node.User = w.UserProfile.LoginName
	return w, nil
}

// find returns the node that has an address or key as its own, and the address.
func find(nm *netmap.Netmap, text string) (p *netmap.Peer, a netip.Addr, err error) {
	if strings.HasPrefix(text, "nodekey:") {
		k, err := key.ParseNodePublic(text)
		if err != nil {
			return nil, a, err
		}
		p, ok := nm.PeerByKey(k)
		if !ok && nm.Self.Key == k {
			p, ok = nm.Self, true
		}
		if !ok {
			return nil, a, ErrUnknownAddress
		}
		return p, firstAddr(p), nil
	}
	if a, err = parseWho(text); err != nil {
		return nil, a, err
	}
	p, ok := nm.PeerByAddr(a)
	if !ok {
		return nil, a, ErrUnknownAddress
	}
	return p, a, nil
}

func parseWho(addr string) (netip.Addr, error) {
	if ap, err := netip.ParseAddrPort(addr); err == nil {
		return ap.Addr().Unmap(), nil
	}
	a, err := netip.ParseAddr(addr)
	if err != nil {
		return a, errors.New("want an IP address, with or without a port, or nodekey:…")
	}
	return a.Unmap(), nil
}

// firstAddr is the address that stands for a node.
func firstAddr(p *netmap.Peer) netip.Addr {
	if len(p.Addresses) == 0 {
		return netip.Addr{}
	}
	return p.Addresses[0].Addr()
}

// profileOf returns the profile of a node's owner. All tagged nodes share one,
// whatever the server says of who tagged them (SVC-119).
func profileOf(users map[netmap.UserID]netmap.UserProfile, p *netmap.Peer) netmap.UserProfile {
	if len(p.Tags) > 0 {
		return netmap.UserProfile{ID: p.User, LoginName: TaggedDevices, DisplayName: "Tagged Devices"}
	}
	return users[p.User]
}

// Capabilities returns what the policy grants src towards dst, by capability:
// the values of all rules in turn (SVC-118). A dst that is not valid stands for
// our own address of the same family. It is nil when nothing is granted.
func (n *Node) Capabilities(src, dst netip.Addr) map[string][]json.RawMessage {
	n.life.Lock()
	r := n.run
	n.life.Unlock()
	if r == nil {
		return nil
	}
	nm, p := r.netmap(), r.plane.Load()
	if nm == nil || p == nil {
		return nil
	}
	src = src.Unmap()
	if !dst.IsValid() {
		dst = ownAddr(nm, src)
	}
	return p.data.Caps(src, dst.Unmap())
}

// ServiceCapabilities returns what the policy grants src towards a service that
// this node hosts, by a name such as svc:web: that towards all of its addresses of
// src's family (SVC-118). It is nil when nothing is granted, and for a service that
// this node does not host.
func (n *Node) ServiceCapabilities(src netip.Addr, service string) map[string][]json.RawMessage {
	nm := n.netmap()
	if nm == nil {
		return nil
	}
	var all map[string][]json.RawMessage
	src = src.Unmap()
	for _, a := range nm.ServiceAddrs(service) {
		if a.Is4() != src.Is4() {
			continue
		}
		for name, values := range n.Capabilities(src, a) {
			if all == nil {
				all = make(map[string][]json.RawMessage)
			}
			all[name] = append(slices.Clip(all[name]), values...)
		}
	}
	return all
}

// ownAddr returns our own address of the family of a; not valid when we have
// none.
func ownAddr(nm *netmap.Netmap, a netip.Addr) netip.Addr {
	for _, own := range nm.Self.Addresses {
		if own.Addr().Is4() == a.Is4() {
			return own.Addr()
		}
	}
	return netip.Addr{}
}

// CapValues returns the values of a capability that the policy grants, each
// decoded from JSON into a T. It is empty, and there is no error, when the
// capability is not granted or has no values; look for it in CapMap to tell
// whether it is granted at all.
func CapValues[T any](w *WhoIsResponse, capability string) (values []T, err error) {
	for i, raw := range w.CapMap[capability] {
		var v T
		if err := json.Unmarshal(raw, &v); err != nil {
			return nil, fmt.Errorf("capability %s of %s, value %d: %w: correct the policy", capability, w.Node.Name, i, err)
		}
		values = append(values, v)
	}
	return values, nil
}
