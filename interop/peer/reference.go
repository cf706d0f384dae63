package peer

import (
	"context"
	"errors"
	"io"
	"log"
	"net/netip"
	"sync"
	"time"

	"tailscale.com/envknob"
	"tailscale.com/ipn/ipnstate"
	"tailscale.com/tailcfg"
	"tailscale.com/tsnet"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
	"tailscale.com/wgengine/magicsock"
)

// referenceNode is a tsnet node.
type referenceNode struct {
	*tsnet.Server
	conn *magicsock.Conn // after up
	keys sync.Map        // of peers by address: netip.Addr to key.NodePublic
}

func newReference(o Options, stderr io.Writer) *referenceNode {
	envknob.Setenv("TS_NO_LOGS_NO_SUPPORT", "true")
	logf := logger.Discard
	if o.Verbose {
		logf = log.New(stderr, "", log.Ltime|log.Lmicroseconds).Printf
	}
	return &referenceNode{Server: &tsnet.Server{
		ControlURL: o.ControlURL, Hostname: o.Name, AuthKey: o.AuthKey, Dir: o.Dir, Logf: logf,
	}}
}

func (n *referenceNode) up(ctx context.Context) error {
	if _, err := n.Up(ctx); err != nil {
		return err
	}
	n.conn = n.Sys().MagicSock.Get()
	return nil
}

func (n *referenceNode) peer(ctx context.Context, ip netip.Addr) (Peer, bool) {
	c, err := n.LocalClient()
	if err != nil {
		return Peer{}, false
	}
	st, err := c.Status(ctx)
	if err != nil {
		return Peer{}, false
	}
	for k, p := range st.Peer {
		if len(p.TailscaleIPs) > 0 && p.TailscaleIPs[0] == ip {
			n.keys.Store(ip, k)
			return Peer{referencePath(p), p.LastHandshake}, true
		}
	}
	return Peer{}, false
}

// paths asks below the client, which would spend milliseconds on JSON.
func (n *referenceNode) paths(ips []netip.Addr) []Path {
	sb := ipnstate.StatusBuilder{WantPeers: true}
	n.conn.UpdateStatus(&sb)
	peers := sb.Status().Peer
	found := make([]Path, len(ips))
	for i, ip := range ips {
		if p := peers[n.key(ip)]; p != nil {
			found[i] = referencePath(p)
		}
	}
	return found
}

func (n *referenceNode) ping(ctx context.Context, to netip.Addr, kind string) (Pong, error) {
	c, err := n.LocalClient()
	if err != nil {
		return Pong{}, err
	}
	p, err := c.Ping(ctx, to, tailcfg.PingType(kind))
	if err != nil {
		return Pong{}, err
	}
	if p.Err != "" {
		return Pong{}, errors.New(p.Err)
	}
	direct, _ := netip.ParseAddrPort(p.Endpoint)
	return Pong{time.Duration(p.LatencySeconds * float64(time.Second)), Path{direct, p.DERPRegionCode}}, nil
}

// key returns the key of the peer with an address, zero if there is none.
func (n *referenceNode) key(ip netip.Addr) key.NodePublic {
	if _, known := n.keys.Load(ip); !known {
		n.peer(context.Background(), ip)
	}
	k, _ := n.keys.Load(ip)
	known, _ := k.(key.NodePublic)
	return known
}

func referencePath(p *ipnstate.PeerStatus) Path {
	if direct, err := netip.ParseAddrPort(p.CurAddr); err == nil {
		return Path{Direct: direct}
	}
	return Path{Relay: p.Relay}
}
