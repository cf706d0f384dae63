package derp

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"github.com/seed94491740/tsnode/netmap"
)

// proxyFor returns the proxy for a node, nil for none (DERP-126).
func (d *Dialer) proxyFor(ctx context.Context, n *netmap.DERPNode) (*url.URL, error) {
	if d.Proxy == nil {
		return nil, nil
	}
	target := &url.URL{Scheme: "https", Host: n.HostName, Path: "/"}
	if d.PlainHTTP {
		target.Scheme = "http"
	}
	proxy, err := d.Proxy((&http.Request{Method: http.MethodGet, URL: target, Host: n.HostName}).WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("choose proxy for %s: %w", n.HostName, err)
	}
	return proxy, nil
}

// dialProxy opens a tunnel to target through an HTTP proxy.
func (d *Dialer) dialProxy(ctx context.Context, proxy *url.URL, target string) (net.Conn, error) {
	port := proxy.Port()
	switch {
	case proxy.Scheme != "http" && proxy.Scheme != "https":
		return nil, fmt.Errorf("proxy %s: scheme %q is not supported for DERP: use http or https", proxy.Redacted(), proxy.Scheme)
	case port == "" && proxy.Scheme == "https":
		port = "443"
	case port == "":
		port = "80"
	}
	conn, err := d.Network.Dial(ctx, "tcp", net.JoinHostPort(proxy.Hostname(), port))
	if err != nil {
		return nil, fmt.Errorf("proxy %s: %w", proxy.Redacted(), err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	tunnel, err := d.openTunnel(ctx, conn, proxy, target)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("proxy %s: %w", proxy.Redacted(), err)
	}
	return tunnel, nil
}

func (d *Dialer) openTunnel(ctx context.Context, conn net.Conn, proxy *url.URL, target string) (net.Conn, error) {
	if proxy.Scheme == "https" {
		tc := tls.Client(conn, d.proxyTLS(proxy.Hostname()))
		if err := tc.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		conn = tc
	}
	req := "CONNECT " + target + " HTTP/1.1\r\nHost: " + target + "\r\n"
	if proxy.User != nil {
		password, _ := proxy.User.Password()
		auth := base64.StdEncoding.EncodeToString([]byte(proxy.User.Username() + ":" + password))
		req += "Proxy-Authorization: Basic " + auth + "\r\n"
	}
	if _, err := io.WriteString(conn, req+"\r\n"); err != nil {
		return nil, err
	}
	return conn, readTunnel(conn, target)
}

// proxyTLS checks a proxy's certificate as a relay's.
func (d *Dialer) proxyTLS(name string) *tls.Config {
	plain := Dialer{Roots: d.Roots}
	return plain.tlsConfig(&netmap.DERPNode{HostName: name})
}

// readTunnel reads a proxy's answer to CONNECT.
func readTunnel(r io.Reader, target string) error {
	br := bufio.NewReader(io.LimitReader(r, maxResponse))
	resp, err := http.ReadResponse(br, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return fmt.Errorf("answer to CONNECT: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("CONNECT %s answered with %q", target, resp.Status)
	}
	if br.Buffered() > 0 {
		return fmt.Errorf("CONNECT %s: %d bytes before the tunnel was used", target, br.Buffered())
	}
	return nil
}
