package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/peerapi"
	"github.com/seed94491740/tsnode/transport"
)

// A PingKind says which part of a peer a ping asks.
type PingKind string

// Kinds of pings (paths.md sections 5.11 and 12.1).
const (
	PingDisco   PingKind = control.PingDisco   // its path discovery, outside the tunnel
	PingTSMP    PingKind = control.PingTSMP    // its node, inside the tunnel, before its packet filter
	PingICMP    PingKind = control.PingICMP    // its IP stack, as ping(8) does
	PingPeerAPI PingKind = control.PingPeerAPI // its HTTP service for peers
)

// pingTimeout bounds a ping when its context does not; PATH-93.
const pingTimeout = 10 * time.Second

// A Pong is the answer to a ping.
type Pong struct {
	Kind        PingKind
	IP          netip.Addr     // that was pinged
	Name        string         // DNS name of the peer, without the trailing dot
	Latency     time.Duration  // until the answer came
	Path        string         // the way the ping took or, inside the tunnel, the peer's path after it
	Direct      netip.AddrPort `json:",omitzero"`  // the peer's UDP address, of a direct path
	PeerRelay   string         `json:",omitempty"` // ip:port:vni:n, of a path through a peer relay
	Relay       string         `json:",omitempty"` // code of the DERP region, of a relayed path
	RelayID     int            `json:",omitempty"`
	PeerAPIPort uint16         `json:",omitempty"` // of PingTSMP and PingPeerAPI: where its peerAPI listens
}

// ErrNoPeerAPI says that a peer has no HTTP service for peers.
var ErrNoPeerAPI = errors.New("the peer has no peerAPI")

// Ping sends one ping to a node of the tailnet, by name or IP address, and waits
// for its answer within ctx, 10 s if that has no deadline. An empty kind is
// PingDisco. It starts the node if necessary. That nothing came back is ErrNoAnswer.
func (n *Node) Ping(ctx context.Context, host string, kind PingKind) (*Pong, error) {
	pong, err := n.ping(ctx, host, kind)
	if err != nil {
		return nil, fmt.Errorf("ping %s: %w", host, err)
	}
	return pong, nil
}

func (n *Node) ping(ctx context.Context, host string, kind PingKind) (pong *Pong, err error) {
	nm, err := n.awaitRunning(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.run.ended, cancel)()
	defer func() {
		if err != nil && n.closing() {
			err = ErrClosed
		}
	}()
	addrs, err := n.resolve(ctx, nm, host, "")
	if err != nil {
		return nil, err
	}
	d := dial{node: n, nm: nm}
	addrs = d.awaitRoute(ctx, addrs)
	if len(addrs) == 0 {
		return nil, ErrNoRoute
	}
	return n.run.ping(ctx, addrs[0], kind)
}

// ping pings the owner of an address.
func (r *runtime) ping(ctx context.Context, to netip.Addr, kind PingKind) (*Pong, error) {
	if _, limited := ctx.Deadline(); !limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, pingTimeout)
		defer cancel()
	}
	peer, ok := r.destination(to)
	if !ok {
		return nil, ErrNoRoute
	}
	p := &Pong{Kind: kind, IP: to, Name: trimDot(peer.Name)}
	var err error
	switch kind {
	case PingDisco, "":
		p.Kind = PingDisco
		err = r.pingDisco(ctx, peer, p)
	case PingTSMP:
		err = r.pingTSMP(ctx, p)
	case PingICMP:
		if err = r.checkStack(); err == nil {
			p.Latency, err = r.stack.Ping(ctx, to, []byte("tsnode"))
		}
	case PingPeerAPI:
		err = r.pingPeerAPI(ctx, peer, p)
	default:
		err = fmt.Errorf("kind %q: want %s, %s, %s or %s", kind, PingDisco, PingTSMP, PingICMP, PingPeerAPI)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = ErrNoAnswer
	}
	if err != nil {
		return nil, err
	}
	if kind != PingDisco && kind != "" {
		r.showPath(p, r.currentPath(peer))
	}
	return p, nil
}

// currentPath is where a peer's datagrams go now.
func (r *runtime) currentPath(peer *netmap.Peer) (e transport.Endpoint) {
	if plane := r.plane.Load(); plane != nil {
		st, _ := plane.data.Peer(peer.Key)
		e = st.Path.Best
	}
	return e
}

// showPath fills in the fields of p that tell a path.
func (r *runtime) showPath(p *Pong, e transport.Endpoint) {
	p.Path = r.describe(e)
	switch {
	case e.IsDERP():
		p.RelayID, p.Relay = int(e.Region), regionCode(r.netmap(), int(e.Region))
	case e.VNI != 0:
		p.PeerRelay = viaPeer(e)
	default:
		p.Direct = e.Addr
	}
}

// firstPing is how long the first disco ping waits before another is sent; the
// next waits twice as long. A peer that has only just learned of us drops what
// came before.
const firstPing = time.Second

// pingDisco asks the peer's path discovery; PATH-50.
func (r *runtime) pingDisco(ctx context.Context, peer *netmap.Peer, p *Pong) error {
	plane := r.plane.Load()
	if plane == nil {
		return ErrNotRunning
	}
	for wait := firstPing; ; wait *= 2 {
		attempt, cancel := context.WithTimeout(ctx, wait)
		result, err := plane.paths.prober.Ping(attempt, peer.Key, 0)
		cancel()
		switch {
		case err == nil:
			p.Latency = result.Latency
			r.showPath(p, result.Endpoint)
			return nil
		case ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded):
			return err
		}
	}
}

// pingTSMP asks the peer inside the tunnel; SVC-35.
func (r *runtime) pingTSMP(ctx context.Context, p *Pong) error {
	plane := r.plane.Load()
	if plane == nil {
		return ErrNotRunning
	}
	var data [8]byte
	rand.Read(data[:])
	answer := r.pongs.expect(data)
	defer r.pongs.forget(data)
	sent := time.Now()
	if err := plane.data.SendPing(p.IP, data); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case a := <-answer:
		p.Latency, p.PeerAPIPort = a.at.Sub(sent), a.peerAPI
		return nil
	}
}

// pingPeerAPI asks the peer's HTTP service for its first page; SVC-85.
func (r *runtime) pingPeerAPI(ctx context.Context, peer *netmap.Peer, p *Pong) error {
	nm := r.netmap()
	if nm == nil {
		return ErrNotRunning
	}
	at := peer.PeerAPI(nm.Self)
	if !at.IsValid() {
		return ErrNoPeerAPI
	}
	client := peerapi.Client{Dial: func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
		return r.dialTunnel(ctx, "tcp", to)
	}}
	sent := time.Now()
	if err := client.Ping(ctx, at); err != nil {
		return err
	}
	p.Latency, p.PeerAPIPort = time.Since(sent), at.Port()
	return nil
}

// A serverPinger answers the control server's wish to know the way to a peer
// (CTL-60).
type serverPinger struct{ *runtime }

// Ping is part of control.Pinger.
func (s *serverPinger) Ping(ctx context.Context, to netip.Addr, kind string) (control.PingResponse, error) {
	a := control.PingResponse{IP: to.String(), NodeIP: to.String()}
	p, err := s.ping(ctx, to, PingKind(kind))
	if err != nil {
		a.Err = err.Error()
		return a, nil
	}
	a.NodeName, a.LatencySeconds, a.PeerAPIPort = p.Name, p.Latency.Seconds(), p.PeerAPIPort
	a.DERPRegionID, a.DERPRegionCode, a.PeerRelay = p.RelayID, p.Relay, p.PeerRelay
	if p.Direct.IsValid() {
		a.Endpoint = p.Direct.String()
	}
	return a, nil
}
