package netcheck

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/seed94491740/tsnode/netmap"
)

// maxProbeBody is how much of an answer to a latency probe is read, in bytes
// (NC-33), and maxProbeHead how much more its header may take.
const (
	maxProbeBody = 8 << 10
	maxProbeHead = 16 << 10
)

// fallBack measures regions by other means when UDP seems to be blocked, so
// that a home can be chosen all the same (NC-32).
func (r *run) fallBack() {
	if r.report.UDP || r.options.OnlySTUN {
		return
	}
	https, icmp := make(chan struct{}, maxChildren), make(chan struct{}, maxChildren)
	echoesEnd := time.Now().Add(icmpTimeout)
	for _, region := range measurable(r.dm, nil) {
		if _, ok := r.report.RegionLatency[region.RegionID]; ok || region.Avoid || !hasRelay(region) {
			continue
		}
		if r.checker.cfg.DialTLS != nil {
			r.measure(https, "HTTPS", region, r.checker.httpsLatency)
		}
		if !r.options.OnlyTCP443 {
			r.measure(icmp, "ICMP", region, func(ctx context.Context, region *netmap.Region) (reached, error) {
				ctx, cancel := context.WithDeadline(ctx, echoesEnd)
				defer cancel()
				return r.checker.icmpLatency(ctx, region)
			})
		}
	}
}

// A reached is a region measured without STUN.
type reached struct {
	region     int // 0: not reached after all
	latency    time.Duration
	ipv6, icmp bool
}

// onReached lowers the region's latency. That says nothing of UDP (NC-35).
func (r *run) onReached(m reached) {
	r.children--
	if m.region == 0 {
		return
	}
	lower(r.report.RegionLatency, m.region, m.latency)
	r.report.IPv4 = r.report.IPv4 || !m.ipv6
	r.report.IPv6 = r.report.IPv6 || m.ipv6
	r.report.ICMPv4 = r.report.ICMPv4 || m.icmp
}

// measure runs a measurement as a child, when there is a token for it.
func (r *run) measure(tokens chan struct{}, kind string, region *netmap.Region, by func(context.Context, *netmap.Region) (reached, error)) {
	r.child(func(ctx context.Context) event {
		select {
		case tokens <- struct{}{}:
			defer func() { <-tokens }()
		case <-ctx.Done():
			return func(r *run) { r.onReached(reached{}) }
		}
		m, err := by(ctx, region)
		if err != nil && !notAvailable(err) && ctx.Err() == nil {
			r.checker.log.Debug("netcheck: region not reached", "by", kind, "region", region.RegionID, "err", err)
		}
		return func(r *run) { r.onReached(m) }
	})
}

// notAvailable reports whether the host does not do this at all, which is no
// failure.
func notAvailable(err error) bool {
	return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, os.ErrPermission)
}

// httpsLatency returns how long one request to a relay takes, without the dial
// and the TLS handshake (NC-33).
func (c *Checker) httpsLatency(ctx context.Context, region *netmap.Region) (reached, error) {
	c.stats.HTTPSMeasure.Add(1)
	conn, node, err := c.cfg.DialTLS(ctx, region)
	if err != nil {
		return reached{}, err
	}
	defer conn.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+node.HostName+"/derp/latency-check", nil)
	if err != nil {
		return reached{}, err
	}
	begin := time.Now()
	resp, err := roundTrip(ctx, conn, req)
	if err != nil {
		return reached{}, err
	}
	took := time.Since(begin)
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxProbeBody)); err != nil {
		return reached{}, fmt.Errorf("answer of %s: %w", node.HostName, err)
	}
	if resp.StatusCode > 299 {
		return reached{}, fmt.Errorf("%s answers %q to a latency probe, want 200; is it a relay?", node.HostName, resp.Status)
	}
	return reached{region: region.RegionID, latency: took, ipv6: isIPv6(conn.RemoteAddr())}, nil
}

// roundTrip sends a request on a connection, which ctx closes if it ends first,
// and reads the header of the answer. It follows no redirect.
func roundTrip(ctx context.Context, conn net.Conn, req *http.Request) (*http.Response, error) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	req.Close = true
	if err := req.Write(conn); err != nil {
		return nil, fmt.Errorf("HTTP request to %s: %w", req.Host, err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxProbeHead+maxProbeBody)), req)
	if err != nil {
		return nil, fmt.Errorf("HTTP answer of %s: %w", req.Host, err)
	}
	return resp, nil
}

func isIPv6(a net.Addr) bool {
	if a == nil {
		return false
	}
	ap, err := netip.ParseAddrPort(a.String())
	return err == nil && ap.Addr().Unmap().Is6()
}

// icmpLatency returns how long an echo of the region's first node takes
// (NC-34).
func (c *Checker) icmpLatency(ctx context.Context, region *netmap.Region) (reached, error) {
	node := region.Nodes[0]
	addr, name, ok := nodeAddr(node, false)
	if !ok || node.STUNPort < 0 {
		return reached{}, errors.ErrUnsupported
	}
	if name.name != "" {
		var err error
		if addr, err = lookUp(ctx, c.cfg.Network, name); err != nil {
			return reached{}, err
		}
	}
	took, err := c.cfg.Network.Echo(ctx, addr, []byte(node.Name))
	if err != nil {
		return reached{}, err
	}
	return reached{region: region.RegionID, latency: took, icmp: true}, nil
}
