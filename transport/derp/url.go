package derp

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strconv"

	"github.com/seed94491740/tsnode/netmap"
)

// defaultPath is where a relay is asked for DERP.
const defaultPath = "/derp"

// ParseURL reads the address of a relay: its scheme is http or https, or it names
// a port and TLS is used. An empty path means /derp (DERP-110).
func ParseURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, fmt.Errorf("derp: relay URL: %w", err)
	case u.Hostname() == "":
		return nil, fmt.Errorf("derp: relay URL %q names no host: write https://HOST/derp", u.Redacted())
	case u.Scheme != "http" && u.Scheme != "https" && u.Port() == "":
		return nil, fmt.Errorf("derp: relay URL %q: scheme is not http or https, and no port is given: write https://HOST/derp", u.Redacted())
	}
	if _, err := urlNode(u); err != nil {
		return nil, err
	}
	if u.Path == "" {
		u.Path = defaultPath
	}
	return u, nil
}

// DialURL connects to the relay at a URL and asks it for DERP. The certificate
// must be for the URL's host (DERP-122).
func (d *Dialer) DialURL(ctx context.Context, u *url.URL) (*Stream, error) {
	n, err := urlNode(u)
	if err != nil {
		return nil, err
	}
	one := *d
	one.forURL = true
	one.PlainHTTP = u.Scheme == "http"
	s, err := one.open(ctx, n, request{path: u.RequestURI(), more: d.Headers}, false)
	if err != nil {
		return nil, fmt.Errorf("derp: %s: %w", u.Redacted(), err)
	}
	return s, nil
}

// urlNode describes the relay at a URL as a map would.
func urlNode(u *url.URL) (*netmap.DERPNode, error) {
	n := &netmap.DERPNode{HostName: u.Hostname()}
	switch {
	case u.Port() != "":
		port, err := strconv.ParseUint(u.Port(), 10, 16)
		if err != nil || port == 0 {
			return nil, fmt.Errorf("derp: relay URL %q: port is not 1 to 65535", u.Redacted())
		}
		n.DERPPort = int(port)
	case u.Scheme == "http":
		n.DERPPort = httpPort
	}
	return n, nil
}

// hostPort returns the host of a request's URL: with its port, unless that is
// the scheme's own (RFC 9112 section 3.2).
func (d *Dialer) hostPort(n *netmap.DERPNode) string {
	usual := httpsPort
	if d.PlainHTTP {
		usual = httpPort
	}
	host := net.JoinHostPort(n.HostName, d.port(n))
	if d.port(n) == strconv.Itoa(usual) {
		return host[:len(host)-len(":")-len(d.port(n))]
	}
	return host
}

// openWebSocket opens a WebSocket to a relay (DERP-102).
func (d *Dialer) openWebSocket(ctx context.Context, n *netmap.DERPNode, r request) (*Stream, error) {
	scheme := "https"
	if d.PlainHTTP {
		scheme = "http"
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return d.connect(ctx, n) }
	conn, err := d.WebSocket(ctx, scheme+"://"+d.hostPort(n)+r.path, d.tlsConfig(n), dial)
	if err != nil {
		return nil, fmt.Errorf("WebSocket: %w", explainTLS(err))
	}
	return NewStream(conn), nil
}
