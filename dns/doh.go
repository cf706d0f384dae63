package dns

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// mediaType is that of a DNS message (RFC 8484 section 6).
const mediaType = "application/dns-message"

// idleTimeout is how long a connection waits for the next question (SVC-77): long
// enough for a burst, short enough that nothing keeps an idle node awake.
const idleTimeout = 10 * time.Second

// wayKey is the key of a request's Upstream in its context.
type wayKey struct{}

// newTransport returns what questions over HTTP share.
func (r *Resolver) newTransport() *http.Transport {
	return &http.Transport{
		DialContext:            r.dialHTTP,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS13}, // SVC-77
		TLSHandshakeTimeout:    tcpTimeout,
		ForceAttemptHTTP2:      true,
		IdleConnTimeout:        idleTimeout,
		MaxIdleConnsPerHost:    1,
		ResponseHeaderTimeout:  queryTimeout,
		MaxResponseHeaderBytes: 16 << 10,
		DisableCompression:     true,
	}
}

// dialHTTP connects to one of the addresses of the request's server.
func (r *Resolver) dialHTTP(ctx context.Context, _, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, tcpTimeout)
	defer cancel()
	defer context.AfterFunc(r.ended, cancel)()
	name, portText, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, err
	}
	way, _ := ctx.Value(wayKey{}).(*Upstream)
	addrs, err := r.whereIs(ctx, name, way)
	if err != nil {
		return nil, err
	}
	var errs []error
	for i, a := range addrs {
		conn, err := r.dialPart(ctx, netip.AddrPortFrom(a, uint16(port)), len(addrs)-i)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// dialPart connects within its part of the time left for several addresses.
func (r *Resolver) dialPart(ctx context.Context, to netip.AddrPort, parts int) (net.Conn, error) {
	if end, ok := ctx.Deadline(); ok && parts > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, max(time.Until(end)/time.Duration(parts), time.Millisecond))
		defer cancel()
	}
	return r.dialTCP(ctx, to)
}

// whereIs returns the addresses of a server.
func (r *Resolver) whereIs(ctx context.Context, name string, way *Upstream) ([]netip.Addr, error) {
	if way != nil && len(way.at) > 0 {
		return way.at, nil
	}
	if a, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{a}, nil
	}
	return r.config.Network.LookupNetIP(ctx, "ip", name)
}

// askHTTP asks one server over HTTP (RFC 8484). Its message has ID 0, as section
// 4.1 asks for.
func (r *Resolver) askHTTP(ctx context.Context, q *query, way *Upstream) ([]byte, error) {
	r.count.http.Add(1)
	req, err := http.NewRequestWithContext(context.WithValue(ctx, wayKey{}, way), http.MethodPost, way.URL, bytes.NewReader(q.outgoing(0)))
	if err != nil {
		return nil, err
	}
	req.Header = http.Header{"Content-Type": {mediaType}, "Accept": {mediaType}, "User-Agent": {""}}
	resp, err := r.http.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode/100 == 5:
		return q.fail(dnsmessage.RCodeServerFailure), nil
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("dns: %s: HTTP status %s", way.URL, resp.Status)
	case resp.Header.Get("Content-Type") != mediaType:
		return nil, fmt.Errorf("dns: %s: content type %q, want %s", way.URL, resp.Header.Get("Content-Type"), mediaType)
	}
	msg, err := io.ReadAll(io.LimitReader(resp.Body, maxMessage+1))
	switch {
	case err != nil:
		return nil, err
	case len(msg) > maxMessage:
		return nil, fmt.Errorf("dns: %s: answer is longer than %d bytes", way.URL, maxMessage)
	case !answers(msg, 0, &q.question):
		r.count.mismatched.Add(1)
		return nil, fmt.Errorf("dns: %s: answer is to another question", way.URL)
	}
	return msg, nil
}
