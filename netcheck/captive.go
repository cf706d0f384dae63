package netcheck

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/netmap"
)

// Times and bounds of a captive-portal check (NC-47..NC-49).
const (
	portalDelay     = 200 * time.Millisecond // after the start of a report
	portalTimeout   = 3 * time.Second        // of each request
	portalEndpoints = 5                      // servers that are asked
)

// advancePortal begins the check of a full report when STUN has been quiet for
// a while, and ends it when STUN tells that there is no portal (NC-47).
func (r *run) advancePortal(now time.Time) {
	needless := r.probing.conclusive(now) && !r.options.Thorough
	switch {
	case r.portal == portalRuns && needless:
		r.endPortal()
	case r.portal == portalWaits && needless:
		r.portal = portalOff
	case r.portal == portalWaits && !now.Before(r.portalAt):
		r.beginPortal()
	}
}

func (r *run) beginPortal() {
	r.portal = portalRuns
	check := PortalCheck{Network: r.checker.cfg.Network, Map: r.dm, ControlHosts: r.checker.cfg.ControlHosts}
	if last := r.checker.last; last != nil {
		check.Home = last.PreferredDERP
	}
	ctx, cancel := context.WithCancel(r.group.Context())
	r.endPortal = cancel
	r.child(func(context.Context) event {
		defer cancel()
		captive, err := DetectCaptive(ctx, check)
		if err != nil {
			return func(r *run) { r.onPortal(Unknown) }
		}
		return func(r *run) { r.onPortal(triOf(captive)) }
	})
}

func (r *run) onPortal(found Tri) {
	r.children--
	r.portal = portalOff
	r.report.CaptivePortal = found
}

// A PortalCheck is what a captive-portal check asks.
type PortalCheck struct {
	Network      host.Network
	Map          *netmap.DERPMap // relays that answer on port 80; nil: none
	Home         int             // region to ask first; 0: any
	ControlHosts []string        // as Config.ControlHosts
}

// DetectCaptive reports whether somebody else answers in place of servers that
// are known: one answer that is not theirs is proof. That nobody answers proves
// nothing (NC-50). A host without an interface that could lead to a portal has
// none (NC-51). The error is that of ctx.
func DetectCaptive(ctx context.Context, c PortalCheck) (bool, error) {
	ifs, err := c.Network.Interfaces()
	if err == nil && !slices.ContainsFunc(ifs, mayMeetPortal) {
		return false, ctx.Err()
	}
	endpoints := c.endpoints()
	verdicts := make(chan bool, len(endpoints))
	captive := false
	err = actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		for _, e := range endpoints {
			g.Go(func(ctx context.Context) error {
				verdicts <- e.captive(ctx, c.Network)
				return nil
			})
		}
		for range endpoints {
			select {
			case captive = <-verdicts:
			case <-ctx.Done():
				return ctx.Err()
			}
			if captive {
				break // the rest is cancelled
			}
		}
		return nil
	})
	return captive, err
}

// A portalEndpoint is a server that answers /generate_204 with no content.
type portalEndpoint struct {
	host      string // of the URL
	challenge bool   // it returns what it is sent, as a relay does
}

// endpoints returns whom to ask: relays of the home region, other relays, hosts
// of the control server; the first five (NC-48).
func (c PortalCheck) endpoints() []portalEndpoint {
	var home, others []portalEndpoint
	if c.Map != nil {
		for _, r := range measurable(c.Map, nil) {
			if r.Avoid {
				continue
			}
			for _, n := range r.Nodes {
				if addr, err := netip.ParseAddr(n.IPv4); !n.CanPort80 || err != nil || !addr.Is4() {
					continue
				}
				if e := (portalEndpoint{n.IPv4, true}); r.RegionID == c.Home {
					home = append(home, e)
				} else {
					others = append(others, e)
				}
			}
		}
	}
	all := append(home, others...)
	for _, h := range c.ControlHosts {
		all = append(all, portalEndpoint{h, false})
	}
	return all[:min(len(all), portalEndpoints)]
}

// captive reports whether the answer to one request comes from somebody else
// (NC-49, NC-50).
func (e portalEndpoint) captive(ctx context.Context, network host.Network) bool {
	ctx, cancel := context.WithTimeout(ctx, portalTimeout)
	defer cancel()
	url := "http://" + e.host + "/generate_204?t=" + strconv.FormatInt(time.Now().Unix(), 10)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	req.Header.Set("Cache-Control", "no-cache, no-store, must-revalidate, no-transform, max-age=0")
	if e.challenge {
		req.Header.Set("X-Tailscale-Challenge", "ts_"+e.host)
	}
	conn, err := network.Dial(ctx, "tcp", net.JoinHostPort(e.host, "80"))
	if err != nil {
		return false
	}
	defer conn.Close()
	resp, err := roundTrip(ctx, conn, req)
	if err != nil {
		return false
	}
	return resp.StatusCode != http.StatusNoContent ||
		e.challenge && resp.Header.Get("X-Tailscale-Response") != "response ts_"+e.host
}

// noPortals are prefixes of names of interfaces that lead to no portal (NC-51), and
// noPortalsHere are those of this operating system.
var (
	noPortals     = []string{"tailscale", "tun", "tap", "docker", "kube", "wg", "ipsec"}
	noPortalsHere = portalless()
)

func portalless() []string {
	switch runtime.GOOS {
	case "windows":
		return []string{"loopback", "tunnel", "ppp", "isatap", "teredo", "6to4"}
	case "darwin", "ios":
		return []string{"pdp", "awdl", "bridge", "ap", "utun", "llw", "anpi", "lo", "stf", "gif", "xhc", "pktap"}
	case "android":
		return []string{"rmnet", "p2p", "dummy", "sit"}
	}
	return nil
}

func mayMeetPortal(i host.Interface) bool {
	name := strings.ToLower(i.Name)
	begins := func(prefix string) bool { return strings.HasPrefix(name, prefix) }
	return !i.Loopback && len(i.Addrs) > 0 && !slices.ContainsFunc(noPortals, begins) && !slices.ContainsFunc(noPortalsHere, begins)
}
