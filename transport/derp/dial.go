package derp

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
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

	Roots      *x509.CertPool // who may sign a relay's certificate; nil = the system's
	PlainHTTP  bool           // no TLS, port 3340 unless the map says another; for tests
	PreferIPv6 func() bool    // whether IPv6 is known to work; nil = unknown
}

// Dial connects to the first node of the region that can be reached, in the
// map's order (DERP-123), and asks it for DERP.
func (d *Dialer) Dial(ctx context.Context, region *netmap.Region) (*Stream, error) {
	var first error
	nodes := relays(region)
	for i, n := range nodes {
		s, err := d.dialNode(ctx, n, i < len(nodes)-1)
		if err == nil {
			s.Node = n
			if err = d.upgrade(ctx, s, idealNode(region, n)); err == nil {
				return s, nil
			}
			s.Close()
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
		return &Stream{Conn: w, wire: w}, nil
	}
	conn := tls.Client(w, tlsConfig(n, d.Roots))
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, fmt.Errorf("TLS with %s: %w", n.HostName, explainTLS(err))
	}
	return &Stream{Conn: conn, wire: w, ServerKey: metaCertKey(conn.ConnectionState())}, nil
}

// connect opens the TCP connection, through a proxy if one applies.
func (d *Dialer) connect(ctx context.Context, n *netmap.DERPNode) (net.Conn, error) {
	proxy, err := d.proxyFor(ctx, n)
	if err != nil {
		return nil, err
	}
	if proxy != nil {
		return d.dialProxy(ctx, proxy, net.JoinHostPort(n.HostName, d.port(n)))
	}
	ctx, cancel := context.WithTimeout(ctx, nodeDial)
	defer cancel()
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
	literal, err := netip.ParseAddr(n.HostName)
	for _, f := range []struct {
		network, forced string
		is6             bool
	}{{"tcp4", n.IPv4, false}, {"tcp6", n.IPv6, true}} {
		target := n.HostName
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

// upgrade asks the relay to speak DERP. When TLS has told the relay's key, the
// request is left to travel with the login and no answer is waited for
// (DERP-109).
func (d *Dialer) upgrade(ctx context.Context, s *Stream, ideal string) error {
	req := "GET /derp HTTP/1.1\r\nHost: " + s.Node.HostName + "\r\nConnection: Upgrade\r\nUpgrade: DERP\r\n"
	if ideal != "" {
		req += IdealNodeHeader + ": " + ideal + "\r\n"
	}
	if !s.ServerKey.IsZero() {
		s.request = []byte(req + FastStartHeader + ": 1\r\n\r\n")
		return nil
	}
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	if _, err := io.WriteString(s, req+"\r\n"); err != nil {
		return err
	}
	br := bufio.NewReader(s)
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		return fmt.Errorf("HTTP answer: %w", err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		return fmt.Errorf("HTTP status %q instead of 101: %q", resp.Status, body)
	}
	s.pending, _ = br.Peek(br.Buffered())
	return nil
}

// addressGone reports whether a connection's local address is no longer one of
// this host's.
func (d *Dialer) addressGone(a net.Addr) bool {
	if a == nil {
		return false
	}
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
