package derp

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/netmap"
)

// Times and ports of a connection attempt.
const (
	connectBudget = 10 * time.Second        // DNS, TCP, TLS, HTTP and login; DERP-121
	nodeDial      = 1500 * time.Millisecond // TCP to one node; DERP-123
	nodeSetup     = 4 * time.Second         // TLS and HTTP of a node that is not the region's last
	ipv4Delay     = 200 * time.Millisecond  // head start of IPv6 when it is known to work; DERP-125

	httpPort       = 80
	httpsPort      = 443
	plainDebugPort = 3340 // DERP-122
)

// A Dialer reaches relays. The zero value of each field but Network is ready
// for use.
type Dialer struct {
	Network host.Network

	// Proxy returns the proxy for a request, nil for none, as
	// http.ProxyFromEnvironment does. A nil Proxy uses none.
	Proxy func(*http.Request) (*url.URL, error)

	// Headers are added to the request for DERP, for what stands before the relay;
	// their values are secret. WebSocket does without.
	Headers http.Header

	Roots      *x509.CertPool // who may sign a relay's certificate besides the system's roots and Let's Encrypt
	TLS        *tls.Config    // what the handshake begins with; nil = nothing special
	PlainHTTP  bool           // no TLS, port 3340 unless the map says another; for tests
	PreferIPv6 func() bool    // whether IPv6 is known to work; nil = unknown

	// DialHost is the host to connect to instead of the relay's, for which the
	// certificate still must be: for a relay that is reached over a private
	// network.
	DialHost string

	// WebSocket opens a WebSocket to a URL, on connections that dial makes; nil
	// uses DERP's own upgrade. Package transport/derp/websocket has one.
	WebSocket func(ctx context.Context, url string, tls *tls.Config, dial DialFunc) (net.Conn, error)

	dialURL DialFunc // opens the connection of DialURL; nil = Network and Proxy
	forURL  bool     // this is DialURL's copy
}

// A DialFunc opens a connection, as net.Dialer's DialContext does.
type DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// Dial connects to the first node of the region that can be reached, in the
// map's order (DERP-123), and asks it for DERP.
func (d *Dialer) Dial(ctx context.Context, region *netmap.Region) (*Stream, error) {
	var first error
	nodes := relays(region)
	if d.WebSocket != nil {
		nodes = nodes[:min(1, len(nodes))] // DERP-102
	}
	for i, n := range nodes {
		s, err := d.open(ctx, n, request{path: defaultPath, ideal: idealNode(region, n), more: d.Headers}, i < len(nodes)-1)
		if err == nil {
			s.Node = n
			return s, nil
		}
		if first == nil {
			first = fmt.Errorf("derp: region %d: node %s: %w", region.RegionID, n.Name, err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	if first == nil {
		first = fmt.Errorf("derp: region %d has no relay nodes in the DERP map", region.RegionID)
	}
	return nil, first
}

// open connects to one node and asks it for DERP.
func (d *Dialer) open(ctx context.Context, n *netmap.DERPNode, r request, hurry bool) (*Stream, error) {
	if d.WebSocket != nil {
		return d.openWebSocket(ctx, n, r)
	}
	s, err := d.dialNode(ctx, n, hurry)
	if err != nil {
		return nil, err
	}
	if err := s.upgrade(ctx, d.hostPort(n), r); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// DialTLS connects as Dial does, but stops after the TLS handshake. It is how
// a region's latency is measured (DERP-130).
func (d *Dialer) DialTLS(ctx context.Context, region *netmap.Region) (*Stream, error) {
	for i, nodes := 0, relays(region); i < len(nodes); i++ {
		s, err := d.dialNode(ctx, nodes[i], i < len(nodes)-1)
		if err == nil {
			s.Node = nodes[i]
			return s, nil
		}
		if i == len(nodes)-1 || ctx.Err() != nil {
			return nil, fmt.Errorf("derp: region %d: node %s: %w", region.RegionID, nodes[i].Name, err)
		}
	}
	return nil, fmt.Errorf("derp: region %d has no relay nodes in the DERP map", region.RegionID)
}

// relays returns the nodes that speak DERP.
func relays(region *netmap.Region) []*netmap.DERPNode {
	var nodes []*netmap.DERPNode
	for _, n := range region.Nodes {
		if n != nil && !n.STUNOnly && n.HostName != "" {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// idealNode returns the name of the node we would rather have reached, empty
// when it is this one (DERP-129).
func idealNode(region *netmap.Region, n *netmap.DERPNode) string {
	if first := region.Nodes[0]; first != nil && first != n {
		return first.Name
	}
	return ""
}

// dialNode connects to one node and completes the TLS handshake. With others
// to try after it, it does not wait for long.
func (d *Dialer) dialNode(ctx context.Context, n *netmap.DERPNode, hurry bool) (*Stream, error) {
	raw, err := d.connect(ctx, n)
	if err != nil {
		return nil, err
	}
	if hurry {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, nodeSetup)
		defer cancel()
	}
	w := newWire(raw)
	if d.PlainHTTP {
		return &Stream{Conn: host.Conn{Inner: w}, wire: w}, nil
	}
	conn := tls.Client(w, d.tlsConfig(n))
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("TLS with %s: %w", n.HostName, explainTLS(err))
	}
	return &Stream{Conn: host.Conn{Inner: conn}, wire: w, ServerKey: metaCertKey(conn.ConnectionState())}, nil
}

// connect opens the TCP connection, through a proxy if one applies.
func (d *Dialer) connect(ctx context.Context, n *netmap.DERPNode) (net.Conn, error) {
	address := net.JoinHostPort(cmp.Or(d.DialHost, n.HostName), d.port(n))
	if d.forURL && d.dialURL != nil {
		return d.dialURL(ctx, "tcp", address)
	}
	proxy, err := d.proxyFor(ctx, n)
	if err != nil {
		return nil, err
	}
	if proxy != nil {
		return d.dialProxy(ctx, proxy, address)
	}
	if !d.forURL { // a URL has no other node to go to
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, nodeDial)
		defer cancel()
	}
	return d.race(ctx, d.legs(n))
}

func (d *Dialer) port(n *netmap.DERPNode) string {
	switch {
	case n.DERPPort != 0:
		return strconv.Itoa(n.DERPPort)
	case d.PlainHTTP:
		return strconv.Itoa(plainDebugPort)
	}
	return strconv.Itoa(httpsPort)
}

// A leg is one address family of a node, tried after a delay.
type leg struct {
	network, address string
	delay            time.Duration
}

// legs returns what to dial for a node: a name in each family, or the literal
// that the map forces; anything else in IPv4 or IPv6 turns the family off
// (DERP-124).
func (d *Dialer) legs(n *netmap.DERPNode) []leg {
	var ls []leg
	name := cmp.Or(d.DialHost, n.HostName)
	literal, err := netip.ParseAddr(name)
	for _, f := range []struct {
		network, forced string
		is6             bool
	}{{"tcp4", n.IPv4, false}, {"tcp6", n.IPv6, true}} {
		target := name
		if err == nil && f.forced == "" && literal.Unmap().Is6() != f.is6 {
			continue
		}
		if f.forced != "" {
			a, err := netip.ParseAddr(f.forced)
			if err != nil || a.Is6() != f.is6 {
				continue
			}
			target = f.forced
		}
		l := leg{network: f.network, address: net.JoinHostPort(target, d.port(n))}
		if !f.is6 && d.PreferIPv6 != nil && d.PreferIPv6() {
			l.delay = ipv4Delay
		}
		ls = append(ls, l)
	}
	if len(ls) == 1 {
		ls[0].delay = 0
	}
	return ls
}

// race dials all legs at once; the first connection wins, the others are
// closed.
func (d *Dialer) race(ctx context.Context, legs []leg) (net.Conn, error) {
	if len(legs) == 0 {
		return nil, errors.New("both address families are turned off in the DERP map")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result, len(legs))
	g := actor.NewGroup(ctx)
	for _, l := range legs {
		g.Go(func(ctx context.Context) error {
			r := result{err: actor.Sleep(ctx, l.delay)}
			if r.err == nil {
				r.conn, r.err = d.Network.Dial(ctx, l.network, l.address)
			}
			results <- r
			return nil
		})
	}
	var won net.Conn
	var errs []error
	for range legs {
		switch r := <-results; {
		case r.err != nil:
			errs = append(errs, r.err)
		case won == nil:
			won = r.conn
			cancel()
		default:
			r.conn.Close()
		}
	}
	g.Wait()
	if won == nil {
		return nil, errors.Join(errs...)
	}
	return won, nil
}

// addressGone reports whether a connection's local address is no longer one of
// this host's.
func (d *Dialer) addressGone(a net.Addr) bool {
	local, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return false // not an IP transport
	}
	ifs, err := d.Network.Interfaces()
	if err != nil || len(ifs) == 0 {
		return false
	}
	for _, i := range ifs {
		for _, p := range i.Addrs {
			if p.Addr() == local.Addr().Unmap().WithZone("") {
				return false
			}
		}
	}
	return true
}
