package node

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/seed94491740/tsnode/dataplane"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/transport"
	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/udp"
)

// A plane is everything that is made of one node key: tunnel, packet pipeline,
// and the underlays below it. A renewed key makes a new one; netstack, and so
// the program's connections, outlive that.
type plane struct {
	key    key.NodePublic
	ended  atomic.Bool // its actors have stopped
	data   *dataplane.Dataplane
	socket *udp.Socket
	relays *derp.Regions
	paths  *paths

	tree    *actor.Tree // of its actors
	keeping actor.Pulse // of its pathKeeper
}

// newPlane makes the parts of a plane and starts none.
func newPlane(r *runtime, private key.NodePrivate) (*plane, error) {
	p := &plane{key: private.Public(), keeping: actor.NewPulse("node.pathKeeper")}
	receiver := func() transport.Receiver { return p.data.NewReceiver() }
	p.socket = udp.New(udp.Config{Network: r.network, Port: r.port, NewReceiver: receiver, Sockets: r.loops, Logger: r.log})
	relays := derp.Config{
		Network: r.network, Private: private, Map: r.derpMap, Home: r.home,
		NewReceiver: receiver, Proxy: r.proxy, Headers: r.headers, Logger: r.log,
		PreferIPv6: func() bool { return p.paths.haveIPv6() },
	}
	p.relays = derp.New(relays)
	p.paths = newPaths(r, p, private)
	hooks := p.paths.hooks(r)
	hooks.Policed = func() { r.enforce(p.data) }
	var err error
	p.data, err = dataplane.New(dataplane.Config{
		Private: private, Links: r.overlay.links, NewDelivery: r.overlay.newDelivery,
		Underlay: p, Netmap: r.control.Netmap, Policy: r.self.policy, Disco: r.disco.Public(), Logger: r.log,
		Held: r.held, Hooks: hooks, Tap: &r.taps.now,
	})
	if err != nil {
		return nil, fmt.Errorf("packet pipeline: %w", err)
	}
	return p, nil
}

// onReject ends the dials that a peer has refused.
func (r *runtime) onReject(m packet.Reject) { r.rejects.rejected(m) }

// onPong ends the ping that it answers.
func (r *runtime) onPong(_ netip.Addr, data [8]byte, peerAPI uint16) { r.pongs.answered(data, peerAPI) }

// Send implements transport.Underlay: through a relay or the UDP socket.
func (p *plane) Send(to transport.Endpoint, bursts []packet.Burst) error {
	if to.IsDERP() {
		return p.relays.Send(to, bursts)
	}
	return p.socket.Send(to, bursts)
}

// setSocketOptions makes the sockets what the node's attributes say (PATH-54,
// PATH-56).
func (p *plane) setSocketOptions(port uint16, has func(string) bool) {
	if has(attrRandomPort) {
		port = 0
	}
	p.socket.SetOptions(udp.Options{
		Port: port, DisableSegmentation: has(attrNoGSO), DisableCoalescing: has(attrNoGRO),
	})
}

// start runs the plane's part of the tree.
func (p *plane) start(r *runtime) {
	for _, part := range []struct {
		name     string
		services []actor.Service
	}{
		{"underlay", []actor.Service{p.socket, p.relays}},
		{"paths", p.paths.services(r, p)},
		{"dataplane", p.data.Services()},
	} {
		supervisor := p.tree.Supervisor(part.name)
		for _, s := range part.services {
			supervisor.Go(r.supervised(s))
		}
	}
}

// A relayState is what the plane tells about its relays.
type relayState struct {
	home      int  // region, 0 = none
	connected bool // to home
}

// planes is the actor that keeps one plane running, for the node key in force,
// while the node may talk to others.
type planes struct{ *runtime }

// String names the actor.
func (*planes) String() string { return "node.planes" }

// Serve runs a plane for each node key in turn.
func (s *planes) Serve(ctx context.Context) error {
	for {
		private, changed := s.control.NodeKey.Load()
		nm, netmapChanged := s.control.Netmap.Load()
		if private.IsZero() || barred(nm, private.Public()) {
			select {
			case <-changed:
			case <-netmapChanged:
			case <-s.planing.Asked():
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		if err := s.serveOne(ctx, private, changed); err != nil {
			return err
		}
	}
}

// barred reports whether the server's last word is that a node with this key may
// talk to nobody: its key has expired (control.md section 9.3), or it waits for
// approval (CTL-27).
func barred(nm *netmap.Netmap, k key.NodePublic) bool {
	return nm != nil && nm.Self != nil && nm.Self.Key == k && (nm.Self.Expired || !nm.Self.Authorized)
}

// serveOne runs the plane of one key until the key changes, is barred, or ctx
// ends.
func (s *planes) serveOne(ctx context.Context, private key.NodePrivate, changed <-chan struct{}) error {
	p, err := newPlane(s.runtime, private)
	if err != nil {
		return actor.Fatal(err)
	}
	p.tree = actor.NewTree(ctx, s.log)
	s.plane.Store(p)
	defer s.relays.Store(relayState{})
	defer p.ended.Store(true)
	defer p.tree.Stop()
	p.start(s.runtime)
	for {
		nm, netmapChanged := s.control.Netmap.Load()
		if barred(nm, p.key) {
			return nil
		}
		st, relaysChanged := p.relays.Status().Load()
		s.relays.Store(relayState{home: st.Home, connected: st.HomeConnected})
		select {
		case <-p.tree.Context().Done():
			return context.Cause(p.tree.Context())
		case <-changed:
			return nil
		case <-netmapChanged:
		case <-relaysChanged:
		case <-s.planing.Asked():
		}
	}
}

// describe says where an endpoint is, for people.
func (r *runtime) describe(e transport.Endpoint) string {
	switch {
	case e.IsZero():
		return ""
	case e.IsDERP():
		if code := regionCode(r.netmap(), int(e.Region)); code != "" {
			return "relay " + code
		}
		return fmt.Sprintf("relay region %d", e.Region)
	case e.VNI != 0:
		return fmt.Sprintf("direct %v through a peer relay (vni %d)", e.Addr, e.VNI)
	default:
		return "direct " + e.Addr.String()
	}
}
