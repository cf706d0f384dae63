package peerapi

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
)

// A Client asks the services of other nodes.
type Client struct {
	// Dial connects inside the tunnel.
	Dial func(ctx context.Context, to netip.AddrPort) (net.Conn, error)
}

// Ping asks the service at an address for its first page, over a connection of
// its own, and waits for the answer (SVC-90).
func (c *Client) Ping(ctx context.Context, at netip.AddrPort) error {
	transport := &http.Transport{
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: maxHeaderBytes,
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return c.Dial(ctx, at) },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, "http://"+at.String()+"/", nil)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req) // follows no redirect
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("peerAPI of %v: HTTP status %s", at, resp.Status)
	}
	return nil
}
