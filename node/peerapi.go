package node

import (
	"net"
	"net/netip"
	"slices"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/dataplane"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/peerapi"
)

// newPeerAPI makes the service for peers. It has no goroutine before the first
// peer connects.
func (r *runtime) newPeerAPI() *peerapi.Server {
	return peerapi.New(peerapi.Config{
		Self: func() *netmap.Peer {
			if nm := r.netmap(); nm != nil {
				return nm.Self
			}
			return nil
		},
		Listen:      r.listenPeerAPI,
		Start:       func() { r.supervisor.Go(r.supervised(r.peerAPI)) },
		WhoIs:       r.callerOf,
		QueryDNS:    r.names.QueryOfPeer,
		MayQueryDNS: r.mayQueryDNS,
		Logger:      r.log,
	})
}

// listenPeerAPI opens a port on all own addresses.
func (r *runtime) listenPeerAPI(port uint16) (peerapi.Listener, error) {
	if r.device != nil {
		port = besideSystem(port)
	}
	ln, err := r.services.ListenTCP(netip.AddrPortFrom(netip.Addr{}, port))
	if err != nil {
		return nil, err
	}
	return &listener{ln, r}, nil
}

// callerOf tells which peer has opened a connection to one of our own addresses.
func (r *runtime) callerOf(c net.Conn) (peerapi.Caller, bool) {
	o, nm := openerOf(c), r.netmap()
	if o == nil || nm == nil || !nm.Self.HasAddr(addrPortOf(c.LocalAddr()).Addr()) {
		return peerapi.Caller{}, false
	}
	return peerapi.Caller{Node: o.peer, User: profileOf(o.users, o.peer)}, true
}

// openPeerAPI opens the service for peers once the node has addresses, and tells
// the packet filter and the tailnet where it is (SVC-30, SVC-84).
func (r *runtime) openPeerAPI(nm *netmap.Netmap) {
	var port4, port6 uint16
	if own := firstAddr(nm.Self); own.IsValid() {
		port, err := r.peerAPI.Open(own)
		if err != nil {
			r.log.Error("no service for peers: they cannot ping it, nor ask for DNS", "err", err)
		}
		for _, a := range nm.Self.Addresses {
			if a.Addr().Is4() {
				port4 = port
			} else {
				port6 = port
			}
		}
	}
	r.self.decide(func(p *dataplane.Policy) { p.PeerAPI4, p.PeerAPI6 = port4, port6 })
	r.self.describe(func(h *control.Hostinfo) { h.Services = peerAPIServices(port4, port6) })
}

// peerAPIServices are what a node tells of its service for peers (SVC-84).
func peerAPIServices(port4, port6 uint16) (list []control.Service) {
	const dnsVersion = 1 // the port of that entry is a version of the protocol
	if port4 != 0 {
		list = append(list, control.Service{Proto: control.ServicePeerAPI4, Port: port4})
	}
	if port6 != 0 {
		list = append(list, control.Service{Proto: control.ServicePeerAPI6, Port: port6})
	}
	if len(list) > 0 {
		list = append(list, control.Service{Proto: control.ServicePeerAPIDNS, Port: dnsVersion})
	}
	return list
}

// A PeerAPIStatus tells of the node's HTTP service for peers.
type PeerAPIStatus struct {
	Addrs    []netip.AddrPort // where it is, on the tailnet
	Counters peerapi.Stats
}

// PeerAPIStatus returns where the node serves its peers, and how often it did; it
// does not start the node.
func (n *Node) PeerAPIStatus() (s PeerAPIStatus) {
	nm := n.netmap()
	if nm == nil {
		return s
	}
	policy := n.run.self.policy.Get()
	for _, own := range nm.Self.Addresses {
		port := policy.PeerAPI4
		if own.Addr().Is6() {
			port = policy.PeerAPI6
		}
		if port != 0 {
			s.Addrs = append(s.Addrs, netip.AddrPortFrom(own.Addr(), port))
		}
	}
	s.Counters = n.run.peerAPI.Stats()
	return s
}

// The Internet, as far as the policy for DNS goes, and its port (SVC-88).
var (
	internet4 = netip.MustParseAddrPort("0.0.0.0:53")
	internet6 = netip.MustParseAddrPort("[2000::]:53")
)

// mayQueryDNS reports whether nodes of other users may ask us for DNS: we offer
// them a way to the Internet, and the policy lets them go there (SVC-88).
func (r *runtime) mayQueryDNS(from netip.Addr) bool {
	p := r.plane.Load()
	if p == nil || !offersInternet(r.self.policy.Get()) {
		return false
	}
	to := internet4
	if from.Is6() {
		to = internet6
	}
	e, err := p.data.Explain(dataplane.Question{Inbound: true, Proto: packet.TCP, Src: netip.AddrPortFrom(from, to.Port()), Dst: to})
	return err == nil && e.Passes()
}

// offersInternet reports whether a node is an exit node, which takes both default
// routes, or an app connector.
func offersInternet(p *dataplane.Policy) bool {
	all4, all6 := netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	return p.AppConnector || slices.Contains(p.Advertised, all4) && slices.Contains(p.Advertised, all6)
}
