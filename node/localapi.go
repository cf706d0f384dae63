package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/localapi"
	"github.com/seed94491740/tsnode/transport"
)

// LocalAPI returns the node, which it starts if necessary, as what a
// localapi.Server shows and changes.
func (n *Node) LocalAPI() (localapi.Node, error) {
	if err := n.Start(); err != nil {
		return nil, err
	}
	return localNode{n.run, n}, nil
}

// CapabilityVersion is the version of the control protocol that nodes speak.
const CapabilityVersion = control.CapabilityVersion

// A localNode is a node for programs of the same machine.
type localNode struct {
	*runtime
	node *Node
}

var localStates = map[State]localapi.State{
	StateStopped: localapi.Stopped, StateStarting: localapi.Starting, StateNeedsLogin: localapi.NeedsLogin,
	StateNeedsApproval: localapi.NeedsMachineAuth, StateRunning: localapi.Running,
}

// Snapshot is part of localapi.Node.
func (l localNode) Snapshot() *localapi.Snapshot {
	life := l.lifeState.Get()
	s := &localapi.Snapshot{
		State: localStates[life.state], AuthURL: life.authURL, Netmap: l.netmap(),
		HomeRegion: l.home.Get(), ExitNode: l.exit.Get().id,
	}
	if k := l.control.NodeKey.Get(); !k.IsZero() {
		s.NodeKey = k.Public()
	}
	if life.problem != nil {
		s.Health = append(s.Health, life.problem.Error())
	}
	if s.Netmap != nil {
		s.Health = append(s.Health, health(s.Netmap, l.runtime)...)
	}
	return s
}

// Changes is part of localapi.Node.
func (l localNode) Changes() (c localapi.Changes) {
	_, c.State = l.lifeState.Load()
	_, c.Netmap = l.control.Netmap.Load()
	_, c.Preferences = l.prefs.Load()
	_, c.Relays = l.relays.Load()
	_, c.ExitNode = l.exit.Load()
	_, c.Control = l.control.Status.Load()
	return c
}

// Traffic is part of localapi.Node.
func (l localNode) Traffic(k key.NodePublic) (t localapi.Traffic) {
	plane := l.plane.Load()
	if plane == nil {
		return t
	}
	d, ok := plane.data.Peer(k)
	if !ok {
		return t
	}
	t = localapi.Traffic{
		Known: true, RxBytes: d.RxBytes, TxBytes: d.TxBytes, LastHandshake: d.LastHandshake, LastSent: d.LastSent,
	}
	switch best := d.Path.Best; {
	case best.IsDERP():
	case best.VNI != 0:
		t.PeerRelay = viaPeer(best)
	default:
		t.Direct = best.Addr
	}
	return t
}

// viaPeer names a way through a peer relay as the API does (SVC-129).
func viaPeer(e transport.Endpoint) string { return fmt.Sprintf("%v:vni:%d", e.Addr, e.VNI) }

// WhoIs is part of localapi.Node.
func (l localNode) WhoIs(ctx context.Context, addr string, dst netip.Addr) (*localapi.Identity, error) {
	who, err := l.node.WhoIs(ctx, addr)
	switch {
	case errors.Is(err, ErrUnknownAddress):
		return nil, fmt.Errorf("who is %s: %w", addr, localapi.ErrNotFound)
	case errors.Is(err, ErrNotRunning):
		return nil, fmt.Errorf("%w: %w", localapi.ErrNoNetmap, err)
	case err != nil:
		return nil, err
	}
	nm := l.netmap()
	if nm == nil {
		return nil, localapi.ErrNoNetmap
	}
	p := lookupPeer(nm, who.Node.PublicKey.String())
	if p == nil {
		return nil, localapi.ErrNotFound
	}
	id := &localapi.Identity{Node: p, User: who.UserProfile, Caps: who.CapMap}
	if dst.IsValid() {
		id.Caps = l.node.Capabilities(firstAddr(p), dst)
	}
	return id, nil
}

// Ping is part of localapi.Node.
func (l localNode) Ping(ctx context.Context, to netip.Addr, kind string) (*localapi.Pong, error) {
	p, err := l.node.Ping(ctx, to.String(), PingKind(kind))
	if err != nil {
		return nil, err
	}
	return &localapi.Pong{
		Name: p.Name, Latency: p.Latency, Direct: p.Direct, PeerRelay: p.PeerRelay, RelayID: p.RelayID, Relay: p.Relay, PeerAPIPort: p.PeerAPIPort,
	}, nil
}

// Dial is part of localapi.Node.
func (l localNode) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := l.node.DialBy(ctx, DialTailnet, network, address)
	var failed *DialError
	if err == nil || !errors.As(err, &failed) || !errors.Is(err, ErrNoRoute) || !failed.Addr.IsValid() || l.isTailnets(failed.Addr) {
		return c, err
	}
	_, text, splitErr := net.SplitHostPort(address)
	if splitErr != nil {
		return nil, err
	}
	port, portErr := portOf(ctx, network, text)
	if portErr != nil {
		return nil, err
	}
	return nil, &localapi.OutsideError{Addr: netip.AddrPortFrom(failed.Addr, port)}
}

// QueryDNS is part of localapi.Node.
func (l localNode) QueryDNS(ctx context.Context, name, typ string) (*localapi.DNSAnswer, error) {
	a, err := l.node.QueryDNS(ctx, name, typ)
	if err != nil {
		return nil, err
	}
	return &localapi.DNSAnswer{Message: a.Message, Resolvers: a.Resolvers, Detail: a}, nil
}

// Preferences is part of localapi.Node.
func (l localNode) Preferences() localapi.Preferences {
	p := l.prefs.Get()
	return localapi.Preferences{
		ControlURL: l.controlURL, Tags: slices.Clone(l.tags), Hostname: p.Hostname, AcceptRoutes: p.AcceptRoutes, AcceptRoutesFrom: slices.Clone(p.AcceptRoutesFrom),
		ExitNode: p.ExitNode, ExitNodeAllowLANAccess: p.ExitNodeAllowLANAccess,
		AdvertiseRoutes: p.advertised(), ShieldsUp: p.ShieldsUp, AcceptDNS: !p.IgnoreDNS,
	}
}

// EditPreferences is part of localapi.Node.
func (l localNode) EditPreferences(edit func(*localapi.Preferences) error) error {
	var refused error
	err := l.editPreferences(func(p *Preferences) {
		next := l.Preferences()
		if refused = edit(&next); refused == nil {
			p.follow(&next)
		}
	})
	return errors.Join(refused, err)
}

// follow takes what a program of the machine wants.
func (p *Preferences) follow(l *localapi.Preferences) {
	p.Hostname, p.ShieldsUp, p.IgnoreDNS = l.Hostname, l.ShieldsUp, !l.AcceptDNS
	p.ExitNode, p.ExitNodeAllowLANAccess = l.ExitNode, l.ExitNodeAllowLANAccess
	if p.AcceptRoutes, p.AcceptRoutesFrom = l.AcceptRoutes, l.AcceptRoutesFrom; !p.AcceptRoutes {
		p.AcceptRoutesFrom = nil // chooses among those accepted
	}
	isExit := func(r netip.Prefix) bool { return r.Bits() == 0 }
	p.AdvertiseExitNode = slices.ContainsFunc(l.AdvertiseRoutes, isExit)
	p.AdvertiseRoutes = slices.DeleteFunc(slices.Clone(l.AdvertiseRoutes), isExit)
}

// Login is part of localapi.Node.
func (l localNode) Login(ctx context.Context, authKey string) error {
	return l.node.Login(ctx, LoginOptions{AuthKey: authKey})
}

// Logout is part of localapi.Node.
func (l localNode) Logout(ctx context.Context) error { return l.node.Logout(ctx) }

// Capture is part of localapi.Node.
func (l localNode) Capture(ctx context.Context, w io.Writer) error { return l.node.Capture(ctx, w) }
