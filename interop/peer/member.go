package peer

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/node"
)

// A Kind says whose node a process runs.
type Kind string

// Kinds of nodes.
const (
	Ours      Kind = "ours"
	Reference Kind = "tsnet" // tailscale.com, the version in go.mod
)

// Options say which node to start.
type Options struct {
	Kind       Kind
	Name       string // its host name
	ControlURL string
	AuthKey    string
	Dir        string // its state, which a later process may take over
	Verbose    bool   // the node's whole log, and not only what an operator acts on
}

// A Path is where a node sends its packets to a peer. The zero Path is none.
type Path struct {
	Direct netip.AddrPort // trusted; not valid if there is none
	Relay  string         // code of the DERP region used in its place
}

// String returns the path for people.
func (p Path) String() string {
	switch {
	case p.Direct.IsValid():
		return "direct " + p.Direct.String()
	case p.Relay != "":
		return "relay " + p.Relay
	default:
		return "none"
	}
}

// A Peer is what a node knows of one of its peers.
type Peer struct {
	Path          Path
	LastHandshake time.Time // of WireGuard; zero: there was none
}

// Kinds of pings (paths.md sections 5.11 and 12.1), as both kinds of nodes call
// them.
const (
	PingDisco   = "disco"
	PingTSMP    = "TSMP"
	PingICMP    = "ICMP"
	PingPeerAPI = "peerapi"
)

// A Pong is the answer to a ping.
type Pong struct {
	Latency time.Duration
	Path    Path // of PingDisco only
}

// A member is what nodes of both kinds can do.
type member interface {
	Dial(ctx context.Context, network, address string) (net.Conn, error)
	Listen(network, addr string) (net.Listener, error)
	ListenPacket(network, addr string) (net.PacketConn, error)
	TailscaleIPs() (ip4, ip6 netip.Addr)
	Close() error

	up(context.Context) error
	peer(context.Context, netip.Addr) (p Peer, known bool)
	ping(ctx context.Context, to netip.Addr, kind string) (Pong, error)
	paths([]netip.Addr) []Path // to peers with these addresses; often called, so it must be cheap
}

// newMember makes a node, without starting it.
func newMember(o Options, stderr io.Writer) (member, error) {
	switch o.Kind {
	case Ours:
		return newOurs(o, stderr), nil
	case Reference:
		return newReference(o, stderr), nil
	}
	return nil, fmt.Errorf("kind %q is neither %s nor %s", o.Kind, Ours, Reference)
}

// ourNode is a node of this project.
type ourNode struct{ *node.Node }

func newOurs(o Options, stderr io.Writer) ourNode {
	level := slog.LevelInfo
	if o.Verbose {
		level = slog.LevelDebug
	}
	return ourNode{&node.Node{
		ControlURL: o.ControlURL, Hostname: o.Name, AuthKey: o.AuthKey, Dir: o.Dir,
		Logger: slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level})),
		Proxy:  func(*http.Request) (*url.URL, error) { return nil, nil },
	}}
}

func (n ourNode) up(ctx context.Context) error {
	_, err := n.Up(ctx)
	return err
}

func (n ourNode) peer(_ context.Context, ip netip.Addr) (Peer, bool) {
	for _, p := range n.Status().Peers {
		if len(p.TailscaleIPs) > 0 && p.TailscaleIPs[0] == ip {
			return Peer{parsePath(p.Path), p.LastHandshake}, true
		}
	}
	return Peer{}, false
}

func (n ourNode) paths(ips []netip.Addr) []Path {
	found := make([]Path, len(ips))
	for _, p := range n.Status().Peers {
		if len(p.TailscaleIPs) == 0 {
			continue
		}
		if i := slices.Index(ips, p.TailscaleIPs[0]); i >= 0 {
			found[i] = parsePath(p.Path)
		}
	}
	return found
}

func (n ourNode) ping(ctx context.Context, to netip.Addr, kind string) (Pong, error) {
	p, err := n.Ping(ctx, to.String(), node.PingKind(kind))
	if err != nil {
		return Pong{}, err
	}
	return Pong{p.Latency, Path{p.Direct, p.Relay}}, nil
}

// parsePath reads the path in a node's status. One through a peer relay is not
// direct.
func parsePath(s string) Path {
	if direct, err := netip.ParseAddrPort(strings.TrimPrefix(s, "direct ")); err == nil {
		return Path{Direct: direct}
	}
	return Path{Relay: strings.TrimPrefix(s, "relay ")}
}
