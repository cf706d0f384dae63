package node

import (
	"context"
	"errors"
	"net/netip"
	goruntime "runtime"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/dataplane"
	"github.com/seed94491740/tsnode/dns"
	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/internal/version"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/netstack"
	"github.com/seed94491740/tsnode/peerapi"
)

// Bounds of the logout of an ephemeral node (SVC-176, SVC-178).
const (
	logoutTimeout        = 3 * time.Second // less than the 5 s that a front end waits for Stop; VPN-19
	logoutTimeoutOffline = time.Second     // while there is no connection to control
)

// A runtime is a started node: its parts, joined here and nowhere else.
//
//	node ─┬─ control.Client    session, stream, report
//	      ├─ host.Monitor      interfaces, default route, sleep
//	      ├─ node.watcher      state and events from status and netmap
//	      ├─ netstack.Forwarder what is for networks behind the node; not before there are some
//	      ├─ dns.Resolver      answers on the service addresses; not before they are asked
//	      ├─ peerapi.Server    the service for peers; not before one connects
//	      ├─ dataplane.Device  waits for packets of a TUN device; only with one, and without
//	      │                    netstack.Forwarder
//	      └─ node.planes       one plane for each node key, see plane.go
//	           ├─ underlay     udp.Socket, derp.Regions
//	           ├─ paths        disco.Prober, endpoints.Finder, portmap.Client, node.pathKeeper
//	           └─ dataplane    outbound, peers, wireguard.Engine
type runtime struct {
	settings
	network host.Network
	profile *profile
	control *control.Client
	names   *dns.Resolver
	peerAPI *peerapi.Server
	self    *selfInfo
	*routing
	overlay overlay
	stack   *netstack.Stack // behind overlay; nil with a device, and in tests that need none

	services  *netstack.Stack            // of the node's own services: stack, or one beside the device
	addressed actor.Cell[*netmap.Netmap] // the newest whose addresses services has
	device    dataplane.Device           // behind overlay; nil without

	disco    key.DiscoPrivate
	home     *actor.Cell[int]             // home region, 0 = none
	derpMap  *actor.Cell[*netmap.DERPMap] // of the newest netmap
	resort   *lastResort
	plane    atomic.Pointer[plane]  // nil before the first node key
	planing  actor.Pulse            // of planes
	relays   actor.Cell[relayState] // of the plane
	rejects  rejects
	troubles atomic.Uint64 // times that control began not to answer
	pongs    pongs
	monitor  *host.Monitor

	taps      taps
	asides    asides
	loopback  loopback
	fallbacks *fallbacks                  // of the Node
	intercept atomic.Pointer[interceptor] // asks fallbacks; nil while there were none

	endpoints *actor.Cell[[]control.Endpoint] // where this node can be reached
	netInfo   *actor.Cell[control.NetInfo]

	lifeState actor.Cell[lifeState]

	tree       *actor.Tree       // nil before start
	supervisor *actor.Supervisor // of the tree; nil before start
	cancel     context.CancelFunc
	ended      context.Context // ends when the tree has ended
	end        context.CancelFunc
	events     *events
}

// newRuntime makes all parts and starts none.
func newRuntime(s settings, e *events, f *fallbacks) (*runtime, error) {
	ctx, cancel := context.WithTimeout(context.Background(), saveTimeout)
	defer cancel()
	p, err := openProfile(ctx, &s)
	if err != nil {
		return nil, err
	}
	monitor := host.NewMonitor(s.network, s.log)
	s.network = monitor.Network() // all ask at the start, and when it changes
	r := &runtime{
		settings: s, network: s.network, profile: p, events: e, fallbacks: f,
		disco: key.NewDisco(), home: actor.NewCell(0), derpMap: actor.NewCell[*netmap.DERPMap](nil),
		monitor: monitor, asides: newAsides(),
		endpoints: actor.NewCell[[]control.Endpoint](nil), netInfo: actor.NewCell(control.NetInfo{}), planing: actor.NewPulse("node.planes"),
	}
	r.resort = newLastResort(&s, r.derpMap)
	r.self, r.routing = newSelfInfo(r.hostinfo()), newRouting(s.preferences)
	r.reroute(nil, monitor.Link().Get())
	r.ended, r.end = context.WithCancel(context.Background())
	r.lifeState.Store(lifeState{state: StateStarting})
	if err := r.openOverlay(); err != nil {
		return nil, err
	}
	if err := r.checkLoop(&s.preferences); err != nil {
		r.closeOverlay()
		return nil, err
	}
	r.forwarder = r.newForwarder()
	r.control, err = control.New(control.Config{
		URL: s.controlURL, Network: s.network, Proxy: s.proxy, Headers: s.headers, Logger: s.log, Resolve: r.resort.resolve,
		Machine: p.p.Machine, Keys: p, Lock: p, LockKey: p.lockKey(), Disco: r.disco.Public(),
		AuthKey: s.authKey, Ephemeral: s.ephemeral, Tags: s.tags,
		Hostinfo: r.self.hostinfo, Home: r.home, Pinger: &serverPinger{r},
		Endpoints: r.endpoints, NetInfo: r.netInfo,
	})
	if err != nil {
		r.closeOverlay()
		return nil, err
	}
	r.names = r.newNames()
	r.peerAPI = r.newPeerAPI()
	return r, nil
}

// An overlay is where the packets of the tailnet begin and end.
type overlay struct {
	links       []dataplane.Link
	newDelivery func() dataplane.Delivery
}

// openOverlay makes netstack, unless the program has a TUN device for the node, or
// a test has brought an overlay.
func (r *runtime) openOverlay() (err error) {
	if r.seams.overlay != nil {
		r.overlay = *r.seams.overlay
		return nil
	}
	if r.tun != nil {
		return r.openDevice()
	}
	if r.stack, err = netstack.New(netstack.Config{Links: r.loops, Buffers: r.buffers, Logger: r.log}); err != nil {
		return err
	}
	r.services = r.stack
	links := r.stack.Links()
	for _, l := range links {
		r.overlay.links = append(r.overlay.links, l)
	}
	r.overlay.newDelivery = func() dataplane.Delivery { return links[0].NewDelivery() }
	return nil
}

// closeOverlay unblocks every Dial, Accept, Read and Write, and lets go of the
// TUN device.
func (r *runtime) closeOverlay() {
	if r.services != nil {
		r.services.Close()
	}
	if r.device != nil {
		r.device.Close()
	}
}

// hostinfo describes this node to the tailnet.
func (r *runtime) hostinfo() control.Hostinfo {
	return control.Hostinfo{
		IPNVersion: version.String(), OS: osName(), GoArch: goruntime.GOARCH, GoVersion: goruntime.Version(),
		Hostname: r.hostname, Userspace: r.userspace(), UserspaceRouter: r.userspace(), NoLogsNoSupport: true,
		Package: "tsnode",
	}
}

// osName is the operating system as other nodes spell it.
func osName() string {
	switch goruntime.GOOS {
	case "darwin":
		return "macOS"
	case "ios":
		return "iOS"
	}
	return goruntime.GOOS
}

// start runs the tree in the background.
func (r *runtime) start() {
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.events.publish(Starting{})
	r.tree = actor.NewTree(ctx, r.log)
	context.AfterFunc(r.tree.Context(), func() { r.onEnd(ctx) })
	r.supervisor = r.tree.Supervisor("node")
	services := []actor.Service{r.control, r.monitor, &watcher{r}, &planes{r}}
	if r.device != nil {
		services = append(services, r.device)
	}
	for _, s := range services {
		r.supervisor.Go(r.supervised(s))
	}
	if r.device != nil {
		r.names.WantService() // the operating system asks there, and its first question must not be lost
	}
}

// onEnd waits for a tree that was cancelled or that an actor has ended.
func (r *runtime) onEnd(ctx context.Context) {
	defer r.end()
	if err := r.tree.Wait(); ctx.Err() == nil {
		r.fail(err)
	}
}

// supervised returns what is added to a supervisor for an actor: the actor
// itself, but in tests that make actors panic.
func (r *runtime) supervised(s actor.Service) actor.Service {
	if r.seams.sabotage == nil {
		return s
	}
	return r.seams.sabotage(s)
}

// fail ends the node with the error of an actor that no restart mends.
func (r *runtime) fail(err error) {
	if fatal, ok := errors.AsType[*actor.FatalError](err); ok {
		err = fatal.Err
	}
	r.log.Error("node has ended", "err", err)
	r.lifeState.Store(lifeState{state: StateStopped, final: err})
	r.events.publish(Stopped{Err: err})
}

// close logs an ephemeral node out, ends the tree and closes the stack.
func (r *runtime) close() error {
	r.logout()
	defer r.asides.end()
	r.cancel()
	r.names.Close()
	r.peerAPI.Close()
	r.closeOverlay()
	<-r.ended.Done()
	r.settings.close()
	if st := r.lifeState.Get(); st.final == nil {
		r.lifeState.Store(lifeState{state: StateStopped, final: ErrClosed})
	}
	return nil
}

// logout frees an ephemeral node's name and address; a failure costs nothing
// but the time that the server waits by itself (SVC-176).
func (r *runtime) logout() {
	if !r.ephemeral || r.control.NodeKey.Get().IsZero() || r.ended.Err() != nil {
		return
	}
	timeout := logoutTimeout
	if !r.control.Status.Get().Connected {
		timeout = logoutTimeoutOffline
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	defer context.AfterFunc(r.ended, cancel)()
	if err := r.control.Logout(ctx); err != nil {
		r.log.Warn("ephemeral node could not log out; the tailnet forgets it by itself", "err", err)
	}
}

// netmap returns the netmap in force; nil before the first.
func (n *Node) netmap() *netmap.Netmap {
	n.life.Lock()
	r := n.run
	n.life.Unlock()
	if r == nil {
		return nil
	}
	return r.netmap()
}

// netmap returns the netmap in force; nil before the first.
func (r *runtime) netmap() *netmap.Netmap {
	if nm := r.control.Netmap.Get(); nm != nil && nm.Self != nil {
		return nm
	}
	return nil
}

// applied returns a channel that is closed when the packet pipeline has taken
// another netmap.
func (r *runtime) applied() <-chan struct{} {
	if p := r.plane.Load(); p != nil {
		_, changed := p.data.Applied().Load()
		return changed
	}
	return nil
}

// peerFor returns the peer that packets to a go to.
func (r *runtime) peerFor(a netip.Addr) (*netmap.Peer, bool) {
	nm, p := r.netmap(), r.plane.Load()
	if nm == nil || p == nil {
		return nil, false
	}
	k, ok := p.data.Owner(a)
	if !ok {
		return nil, false
	}
	return nm.PeerByKey(k)
}

// addresses returns our own tailnet addresses.
func addresses(nm *netmap.Netmap) (addrs []netip.Addr) {
	if nm == nil || nm.Self == nil {
		return nil
	}
	for _, p := range nm.Self.Addresses {
		addrs = append(addrs, p.Addr())
	}
	return addrs
}
