package node

import (
	"context"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/dataplane"
	"github.com/seed94491740/tsnode/disco"
	"github.com/seed94491740/tsnode/endpoints"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netcheck"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/transport"
	"github.com/seed94491740/tsnode/transport/derp"
	"github.com/seed94491740/tsnode/transport/portmap"
)

// activeFor is how long after the last tunnel packet a node keeps looking where
// it can be reached (PATH-31 SessionActive, NC-53).
const activeFor = 45 * time.Second

// homeAway is how often a node whose home relay is away looks for another.
const homeAway = 5 * time.Second

// Node attributes that change how paths are found (PATH-51, PATH-54, PATH-56).
const (
	attrSilentDisco = "silent-disco"
	attrOnlyTCP443  = "only-tcp-443"
	attrProbeMTU    = "peer-mtu-enable"
	attrAlwaysSTUN  = "debug-always-stun"
	attrRandomPort  = "randomize-client-port"
	attrNoGRO       = "disable-udp-gro"
	attrNoGSO       = "disable-udp-gso"
	attrNoUPnP      = "debug-disable-upnp"
)

// paths are the parts of a plane that find direct ways to peers.
type paths struct {
	prober  *disco.Prober
	finder  *endpoints.Finder
	checker *netcheck.Checker
	mapper  *portmap.Client

	activity activity
	options  *actor.Cell[disco.Options]
	finding  *actor.Cell[endpoints.Options]
}

// newPaths makes the parts that find paths for p, whose sockets and relays exist.
func newPaths(r *runtime, p *plane, private key.NodePrivate) *paths {
	s := &paths{options: actor.NewCell(disco.Options{}), finding: actor.NewCell(endpoints.Options{})}
	dialer := &derp.Dialer{Network: r.network, Proxy: r.proxy}
	s.mapper = portmap.New(portmap.Config{
		Network: r.network, Link: r.monitor.Link(), NoUPnP: func() bool { return r.hasAttr(attrNoUPnP) }, Logger: r.log,
	})
	s.checker = netcheck.New(netcheck.Config{
		Network: r.network, Send: p.sendProbe, Logger: r.log,
		DialTLS: func(ctx context.Context, region *netmap.Region) (net.Conn, *netmap.DERPNode, error) {
			c, err := dialer.DialTLS(ctx, region)
			if err != nil {
				return nil, nil, err
			}
			return c, c.Node, nil
		},
		PortMap: func(ctx context.Context) (netcheck.PortMapping, error) {
			found, err := s.mapper.Probe(ctx)
			return netcheck.PortMapping(found), err
		},
	})
	s.finder = endpoints.New(endpoints.Config{
		Network: r.network, Check: s.checker.Report, Mapping: s.mapper.Mapping(), Bound: func() (v4, v6 netip.AddrPort, changed <-chan struct{}) {
			b, changed := p.socket.Bound()
			return b.V4, b.V6, changed
		},
		Map: r.derpMap, Link: r.monitor.Link(), Home: r.home, Port: r.port,
		Active:      func() bool { return s.activity.within(activeFor, time.Now()) },
		MayMoveHome: func() bool { return r.control.Status.Get().Connected },
		LastHeard:   p.relays.LastHeard, Options: s.finding, Rebind: p.socket.Rebind, Logger: r.log,
	})
	s.prober = disco.NewProber(disco.Config{
		Disco: r.disco, Node: private.Public(), Netmap: r.control.Netmap, Options: s.options,
		Endpoints: s.known, WantEndpoints: func() { s.finder.Request("a peer is called") },
		Send: p.sendFrame, Expire: func(k key.NodePublic) { p.data.Expire(k) },
		SetPath: func(k key.NodePublic, path *disco.Path) { p.data.SetPath(k, (*dataplane.Path)(path)) },
		Heard:   func(k key.NodePublic) (time.Time, transport.Endpoint) { return p.data.LastHeard(k) },
		Echo:    r.network.Echo, Logger: r.log,
	})
	return s
}

// known returns where this node can be reached, for the prober.
func (s *paths) known() (addrs []netip.AddrPort, at time.Time, changed <-chan struct{}) {
	set, changed := s.finder.Endpoints().Load()
	for _, e := range set.List {
		addrs = append(addrs, e.Addr)
	}
	return addrs, set.At, changed
}

// haveIPv6 reports whether the last report has seen a round trip over IPv6.
func (s *paths) haveIPv6() bool {
	report := s.finder.Report().Get()
	return report != nil && report.IPv6
}

// hooks connect the packet pipeline with the parts that find paths.
func (s *paths) hooks(r *runtime) dataplane.Hooks {
	return dataplane.Hooks{
		Rejected: r.onReject,
		Pong:     r.onPong,
		Disco:    s.prober.Receive,
		STUN:     s.checker.ReceiveSTUN,
		DiscoKey: s.prober.Learned,
		PeerAt:   s.prober.PeerAt,
		Heard: func(peer key.NodePublic, from transport.Endpoint) {
			s.activity.note(time.Now())
			s.prober.HeardFrom(peer, from)
		},
		Sending: func(peer key.NodePublic) {
			if s.activity.note(time.Now()) {
				s.finder.Request("tailnet traffic after silence")
			}
			s.prober.Sending(peer)
		},
		Unreachable: s.prober.Unreachable,
	}
}

// services returns the actors that find paths.
func (s *paths) services(r *runtime, p *plane) []actor.Service {
	return []actor.Service{s.prober, s.finder, s.mapper, &pathKeeper{r, p}}
}

// An activity is when tunnel packets last came or went.
type activity struct{ last atomic.Int64 } // Unix nanoseconds; 0 = never

// note remembers now, and reports whether it ends a silence of activeFor.
func (a *activity) note(now time.Time) (awoke bool) {
	last := a.last.Swap(now.UnixNano())
	return last != 0 && now.Sub(time.Unix(0, last)) > activeFor
}

// within reports whether something came or went lately.
func (a *activity) within(d time.Duration, now time.Time) bool {
	last := a.last.Load()
	return last != 0 && now.Sub(time.Unix(0, last)) <= d
}

// sendProbe sends one STUN request.
func (p *plane) sendProbe(to netip.AddrPort, b []byte) error {
	return p.socket.Send(transport.Endpoint{Addr: to}, []packet.Burst{{Buf: b, Size: len(b), Count: 1}})
}

// sendFrame sends one disco frame. Behind a peer relay it needs room for the
// header, which no message of ours does.
func (p *plane) sendFrame(to transport.Endpoint, frame []byte) error {
	return p.Send(to, []packet.Burst{{Buf: frame, Size: len(frame), Count: 1}})
}

// A pathKeeper is the actor that follows what the parts of a plane find out: it
// tells the control server where the node can be reached, the prober when
// sockets have changed, and all of them when the host's network has changed and
// what the tailnet wants of this node.
type pathKeeper struct {
	*runtime
	plane *plane
}

// String names the actor.
func (*pathKeeper) String() string { return "node.pathKeeper" }

// Serve follows until ctx ends.
func (k *pathKeeper) Serve(ctx context.Context) error {
	p := k.plane
	bound, boundChanged := p.socket.Bound()
	k.onBound()
	away := time.NewTicker(homeAway) // runs while the node has no home relay
	defer away.Stop()
	link, linkChanged := k.monitor.Link().Load()
	var was connections
	health := relayHealth{log: k.log}
	for {
		now, connectionsChanged := k.connections()
		k.onConnections(was, now)
		switch {
		case was.home && !now.home:
			away.Reset(homeAway)
		case now.home:
			away.Stop()
		}
		was = now
		set, setChanged := p.paths.finder.Endpoints().Load()
		report, reportChanged := p.paths.finder.Report().Load()
		nm, netmapChanged := k.control.Netmap.Load()
		k.onFound(set, report)
		k.onNetmap(nm)
		health.note(relayProblem(now.control, p.relays.Status().Get(), report), time.Now())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-setChanged:
		case <-reportChanged:
		case <-netmapChanged:
		case <-connectionsChanged[0]:
		case <-connectionsChanged[1]:
		case <-p.keeping.Asked():
		case <-linkChanged:
			old := link
			link, linkChanged = k.monitor.Link().Load()
			k.onLink(old, link)
		case <-away.C:
			if st := p.relays.Status().Get(); st.Home != 0 && !st.HomeConnected {
				p.paths.finder.Request("home relay is away")
			}
		case <-boundChanged:
			old := bound
			if bound, boundChanged = p.socket.Bound(); bound != old {
				k.onBound()
			}
		}
	}
}

// connections says what the node is connected to.
type connections struct{ control, home bool }

func (k *pathKeeper) connections() (c connections, changed [2]<-chan struct{}) {
	status, statusChanged := k.control.Status.Load()
	relays, relaysChanged := k.plane.relays.Status().Load()
	return connections{status.Connected, relays.HomeConnected}, [2]<-chan struct{}{statusChanged, relaysChanged}
}

// onConnections looks for endpoints when a connection is lost, which may be for
// a change of the network (PATH-29), and when the control server can learn of a
// new home again (NC-44).
func (k *pathKeeper) onConnections(was, now connections) {
	switch {
	case was.home && !now.home:
		k.plane.paths.finder.Request("home relay was lost")
	case !was.control && now.control:
		k.plane.paths.finder.Request("control server is connected")
	}
}

// onBound follows a change of the sockets (PATH-58).
func (k *pathKeeper) onBound() {
	v4, _ := k.plane.socket.LocalPorts()
	if v4 == 0 {
		return // between the old socket and the new one
	}
	k.plane.paths.mapper.SetLocalPort(v4)
	k.plane.paths.prober.Rebound()
	k.plane.paths.finder.Request("sockets were bound")
}

// onFound reports what was found to the control server (PATH-26, NC-56).
func (k *pathKeeper) onFound(set endpoints.Set, report *netcheck.Report) {
	if report == nil && k.derpMap.Get() != nil {
		return // the first report is under way, and will know more (PATH-26)
	}
	var list []control.Endpoint
	for _, e := range set.List {
		list = append(list, control.Endpoint{Addr: e.Addr, Type: control.EndpointType(e.Kind)})
	}
	if !slices.Equal(list, k.endpoints.Get()) {
		k.endpoints.Store(list)
	}
	if report == nil {
		return
	}
	if info := netInfoOf(report, k.plane.paths.mapper.Mapping().Get().IsValid()); !reflect.DeepEqual(info, k.netInfo.Get()) {
		k.netInfo.Store(info)
	}
}

// netInfoOf is a report as the control server wants it.
func netInfoOf(r *netcheck.Report, mapped bool) control.NetInfo {
	tri := func(t netcheck.Tri) control.OptBool { return control.OptBool(t) }
	return control.NetInfo{
		MappingVariesByDestIP: tri(r.MappingVariesByDestIP), WorkingIPv6: control.OptBoolOf(r.IPv6),
		OSHasIPv6: control.OptBoolOf(r.OSHasIPv6), WorkingUDP: control.OptBoolOf(r.UDP), WorkingICMPv4: control.OptBoolOf(r.ICMPv4),
		HavePortMap: mapped, UPnP: tri(r.UPnP), PMP: tri(r.PMP), PCP: tri(r.PCP),
		PreferredDERP: r.PreferredDERP, DERPLatency: r.DERPLatency(),
	}
}

// onNetmap passes on what the tailnet wants of this node by its attributes.
func (k *pathKeeper) onNetmap(nm *netmap.Netmap) {
	if nm == nil || nm.Self == nil {
		return
	}
	has := nm.Self.CapMap.Has
	setIfChanged(k.plane.paths.options, disco.Options{
		SilentDisco: has(attrSilentDisco), OnlyTCP443: has(attrOnlyTCP443), ProbeMTU: has(attrProbeMTU),
	})
	setIfChanged(k.plane.paths.finding, endpoints.Options{OnlyTCP443: has(attrOnlyTCP443), ForceBackground: has(attrAlwaysSTUN)})
	k.plane.setSocketOptions(k.port, has)
}

// hasAttr reports whether the tailnet has given this node an attribute.
func (r *runtime) hasAttr(name string) bool {
	nm := r.control.Netmap.Get()
	return nm != nil && nm.Self != nil && nm.Self.CapMap.Has(name)
}

func setIfChanged[T comparable](c *actor.Cell[T], v T) {
	if c.Get() != v {
		c.Store(v)
	}
}
