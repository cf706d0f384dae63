package node

import (
	"context"
	"net"
	"net/netip"

	"github.com/seed94491740/tsnode/dns"
)

// newNames makes the node's DNS.
func (r *runtime) newNames() *dns.Resolver {
	return dns.New(dns.Config{
		Netmap:      r.control.Netmap,
		Addressed:   &r.addressed,
		Preferences: r.dnsPrefs,
		Network:     r.network,
		HostBarred:  r.hostDNSBarred,
		InTunnel:    r.inTunnel,
		Tunnel:      r.dialTunnel,
		ListenUDP:   func(at netip.AddrPort) (net.PacketConn, error) { return r.services.ListenUDP(at) },
		ListenTCP:   r.listenDNS,
		Start:       func() { r.supervisor.Go(r.supervised(r.names)) },
		Logger:      r.log,
	})
}

// listenDNS listens on a service address.
func (r *runtime) listenDNS(at netip.AddrPort) (net.Listener, error) {
	ln, err := r.services.ListenTCP(at)
	if err != nil {
		return nil, err
	}
	return ln, nil
}

// hostDNSBarred reports whether the host's servers are not to know names, as an exit
// node is wanted and there is none (SVC-43).
func (r *runtime) hostDNSBarred() bool {
	exit := r.exit.Get()
	return exit.wanted && exit.id == ""
}

// inTunnel reports whether packets to an address go to a peer, or to ourselves. If
// they shall go through an exit node and there is none, they go nowhere else
// (SVC-43).
func (r *runtime) inTunnel(a netip.Addr) bool {
	w := r.wayTo(a)
	return w == wayTunnel || w == wayBlocked
}

// dialTunnel connects to an address behind the tunnel; network is tcp or udp. The
// way of a node with a TUN device is the operating system's.
func (r *runtime) dialTunnel(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	if r.device != nil {
		return r.around.Dial(ctx, network, to.String())
	}
	if network == "udp" {
		return r.stack.DialUDP(ctx, netip.AddrPort{}, to)
	}
	return r.stack.DialTCP(ctx, netip.Addr{}, to)
}

// Resolver returns a resolver of names as the tailnet has them: its nodes, its
// extra records, and its split DNS, wherever the servers are; where the tailnet
// names no server, those of the host are asked, and where it does not tell which,
// its resolver for addresses. It starts the node if necessary, and each lookup waits
// until it runs.
//
// Like every net.Resolver it reads the host's /etc/hosts first, and completes
// names of one label with the host's search domains, not the tailnet's. Dial uses
// the tailnet's.
func (n *Node) Resolver() *net.Resolver {
	return &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			if _, err := n.awaitRunning(ctx); err != nil {
				return nil, err
			}
			return n.run.names.Dial(), nil
		},
	}
}

// QueryDNS asks the node's DNS for a name, in full, and tells what came of it and
// who was asked; typ is a type of record such as A, AAAA or TXT, or PTR for an IP
// address. It starts the node if necessary and waits within ctx until it runs.
func (n *Node) QueryDNS(ctx context.Context, name, typ string) (*dns.Answer, error) {
	if _, err := n.awaitRunning(ctx); err != nil {
		return nil, err
	}
	return n.run.names.Ask(ctx, name, typ)
}

// A DNSStatus is how the node resolves names.
type DNSStatus struct {
	dns.Description
	Counters dns.Stats
}

// DNSStatus returns how the node resolves names, by the netmap in force; it does
// not start the node.
func (n *Node) DNSStatus() DNSStatus {
	n.life.Lock()
	r := n.run
	n.life.Unlock()
	if r == nil {
		return DNSStatus{}
	}
	return DNSStatus{Description: r.names.Table().Describe(), Counters: r.names.Stats()}
}
