package derp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/seed94491740/tsnode/netmap"
)

// Bounds of a bootstrap look-up (DERP-105).
const (
	bootstrapTries   = 6
	bootstrapWait    = 3 * time.Second
	maxBootstrapBody = 64 << 10 // bytes
)

// LookupBootstrap asks relays for the addresses of a host, for when nobody else
// knows them: a control server behind a broken resolver. It reaches the relays
// by the IP addresses in their map entries, in random order and alternating
// between the families, and asks six of them at most (DERP-105).
func LookupBootstrap(ctx context.Context, d *Dialer, candidates []*netmap.DERPNode, host string) ([]netip.Addr, error) {
	var errs []error
	for _, n := range bootstrapOrder(candidates) {
		addrs, err := d.askBootstrap(ctx, n, host)
		if err == nil {
			return addrs, nil
		}
		errs = append(errs, fmt.Errorf("relay %s: %w", n.HostName, err))
		if ctx.Err() != nil {
			break
		}
	}
	if len(errs) == 0 {
		errs = append(errs, errors.New("the DERP map has no relay with an IP address"))
	}
	return nil, fmt.Errorf("derp: bootstrap DNS for %s: %w", host, errors.Join(errs...))
}

// bootstrapOrder returns whom to ask: each relay once for every address it has,
// with the other family turned off.
func bootstrapOrder(candidates []*netmap.DERPNode) []*netmap.DERPNode {
	var v4, v6, order []*netmap.DERPNode
	for _, n := range candidates {
		if n == nil || n.STUNOnly || n.HostName == "" {
			continue
		}
		if a, err := netip.ParseAddr(n.IPv4); err == nil && a.Is4() {
			only := *n
			only.IPv6 = "none"
			v4 = append(v4, &only)
		}
		if a, err := netip.ParseAddr(n.IPv6); err == nil && a.Is6() {
			only := *n
			only.IPv4 = "none"
			v6 = append(v6, &only)
		}
	}
	shuffle(v4)
	shuffle(v6)
	for len(v4)+len(v6) > 0 && len(order) < bootstrapTries {
		if len(v4) > 0 {
			order, v4 = append(order, v4[0]), v4[1:]
		}
		v4, v6 = v6, v4 // the other family's turn
	}
	return order
}

func shuffle(nodes []*netmap.DERPNode) {
	rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
}

// askBootstrap asks one relay.
func (d *Dialer) askBootstrap(ctx context.Context, n *netmap.DERPNode, host string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(ctx, bootstrapWait)
	defer cancel()
	s, err := d.dialNode(ctx, n, false)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	defer context.AfterFunc(ctx, func() { s.Close() })()
	req := "GET /bootstrap-dns?q=" + url.QueryEscape(host) + " HTTP/1.1\r\nHost: " + d.hostPort(n) + "\r\nConnection: close\r\n\r\n"
	if _, err := io.WriteString(s, req); err != nil {
		return nil, err
	}
	return readBootstrap(s, host)
}

// readBootstrap reads a relay's answer and returns the addresses of host.
func readBootstrap(r io.Reader, host string) ([]netip.Addr, error) {
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(r, maxResponse+maxBootstrapBody)), nil)
	if err != nil {
		return nil, fmt.Errorf("HTTP answer: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("HTTP status %q", resp.Status)
	}
	var hosts map[string][]string
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxBootstrapBody)).Decode(&hosts); err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	var addrs []netip.Addr
	for _, text := range hosts[host] {
		if a, err := netip.ParseAddr(text); err == nil {
			addrs = append(addrs, a.Unmap())
		}
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("no address of %s in the answer", host)
	}
	return addrs, nil
}
