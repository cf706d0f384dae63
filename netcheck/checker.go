package netcheck

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport/stun"
)

// Times of a report (NC-14).
const (
	reportTimeout = 5 * time.Second // a whole report
	stunTimeout   = 3 * time.Second // without any answer by then, UDP counts as blocked
	icmpTimeout   = time.Second     // all echoes
	fullInterval  = 5 * time.Minute // between full reports
)

// Errors of Report that a caller may meet by its own doing.
var (
	ErrBusy  = errors.New("netcheck: a report is being made already")
	ErrNoMap = errors.New("netcheck: no DERP map yet; it comes with the first netmap")
)

// A Config is what a Checker works with. Network and Send are required.
type Config struct {
	Network host.Network

	// Send writes one datagram from the node's UDP socket of the address's family,
	// so that the mapping seen is the one that peers must hit (PATH-27). b is the
	// caller's again when it returns.
	Send func(to netip.AddrPort, b []byte) error

	// DialTLS connects to a region's first relay that can be reached and stops
	// after the TLS handshake; it also returns which relay that is. Nil: HTTPS is
	// not measured.
	DialTLS func(ctx context.Context, r *netmap.Region) (net.Conn, *netmap.DERPNode, error)

	// PortMap asks the gateway which port mapping protocols it speaks. Nil: there
	// is no port mapper.
	PortMap func(ctx context.Context) (PortMapping, error)

	// ControlHosts are host names that answer http://name/generate_204 with 204,
	// for the captive-portal check. A control server that is not known to do so
	// must not be named: it would be taken for a portal.
	ControlHosts []string

	Logger *slog.Logger // nil: none
}

// A PortMapping says which port mapping protocols the gateway speaks.
type PortMapping struct{ UPnP, PMP, PCP bool }

// Options of one report.
type Options struct {
	Full       bool // probe all regions even if a recent report is there to build on
	OnlyTCP443 bool // measure by HTTPS alone; no UDP, no ICMP
	OnlySTUN   bool // no HTTPS, ICMP or captive-portal check
	Thorough   bool // probe on until every region has answered; for people who look

	// LastHeard returns when a frame last came from a region's relay, the zero
	// time for never. It may lag by 5 s (derp.md 13.3). Nil: never for all.
	LastHeard func(region int) time.Time

	// First is called once, with the region that answers STUN first: a home for a
	// node that need not wait for the report to be complete. It must not wait.
	First func(region int)

	Force int // home region to choose if it can be reached at all; 0 = none (NC-43)
}

// Stats count what a Checker has done (NC-58).
type Stats struct {
	Reports, FullReports, ReportErrors atomic.Uint64
	STUNSendIPv4, STUNSendIPv6         atomic.Uint64
	STUNRecvIPv4, STUNRecvIPv6         atomic.Uint64 // answers to our requests
	STUNIgnored                        atomic.Uint64 // nobody asked, malformed, or too many at once
	HTTPSMeasure                       atomic.Uint64
}

// A Checker makes reports. Its methods may be called from any goroutine.
type Checker struct {
	cfg   Config
	log   *slog.Logger
	stats Stats

	busy   atomic.Bool
	run    atomic.Pointer[run]                   // that of the report being made
	recent atomic.Pointer[map[int]time.Duration] // by region, over the history

	// Only the report being made touches these.
	history  History
	last     *Report // nil: none
	lastMap  *netmap.DERPMap
	lastFull time.Time
	names    map[nameKey]netip.Addr // last good answers of the name service
}

// New returns a checker. It starts nothing.
func New(cfg Config) *Checker {
	c := &Checker{cfg: cfg, log: cfg.Logger}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Stats returns the live counters.
func (c *Checker) Stats() *Stats { return &c.stats }

// RecentRegionLatency returns the lowest latency of each region over the last
// five minutes, by any method (NC-38).
func (c *Checker) RecentRegionLatency() map[int]time.Duration {
	if m := c.recent.Load(); m != nil {
		return maps.Clone(*m)
	}
	return nil
}

// Report probes the network and chooses the home region, in 5 s at most. It
// returns ErrBusy while another call is under way (NC-14). That nothing answers
// is no error.
func (c *Checker) Report(ctx context.Context, dm *netmap.DERPMap, o Options) (*Report, error) {
	if !c.busy.CompareAndSwap(false, true) {
		return nil, ErrBusy
	}
	defer c.busy.Store(false)
	c.stats.Reports.Add(1)
	r, err := c.report(ctx, dm, o)
	if err != nil {
		c.stats.ReportErrors.Add(1)
		return nil, err
	}
	r.log(ctx, c.log, o.Force)
	return r, nil
}

func (c *Checker) report(ctx context.Context, dm *netmap.DERPMap, o Options) (*Report, error) {
	if dm == nil {
		return nil, ErrNoMap
	}
	if o.OnlyTCP443 && o.OnlySTUN {
		return nil, errors.New("netcheck: OnlyTCP443 and OnlySTUN exclude each other; set one of them")
	}
	start := time.Now()
	full := o.Full || c.fullDue(dm, start)
	if full {
		c.stats.FullReports.Add(1)
		c.lastFull = start
	}
	r := c.newRun(dm, o, full)
	c.run.Store(r)
	defer c.run.Store(nil)
	inTime, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	err := actor.Run(inTime, r.serve)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return nil, err
	}
	return c.finish(r, o, start), nil
}

// finish completes a run's report and remembers it.
func (c *Checker) finish(r *run, o Options, start time.Time) *Report {
	rep := r.report
	rep.Now = time.Now().UTC()
	rep.PreferredDERP = c.history.Choose(rep, Choice{
		Map: r.dm, Start: start, LastHeard: o.LastHeard, Force: o.Force,
	})
	c.last, c.lastMap = rep, r.dm
	recent := c.history.Recent()
	c.recent.Store(&recent)
	return rep
}

// fullDue reports whether the next report cannot build on the last one: there
// is none, not of these relays, the last full one is too long ago, or a captive
// portal that was in the way may have opened (NC-24, NC-52).
func (c *Checker) fullDue(dm *netmap.DERPMap, now time.Time) bool {
	last := c.last
	return last == nil || c.lastMap != dm || len(last.RegionLatency) == 0 ||
		now.Sub(c.lastFull) > fullInterval ||
		!last.UDP && last.CaptivePortal == True
}

// ReceiveSTUN takes a datagram that stun.Is has found to be STUN, and who sent
// it. It never blocks and keeps nothing of msg. Only an answer to a request of
// the report being made has any effect, once; what ties them is the random
// transaction id and not the sender (NC-07).
func (c *Checker) ReceiveSTUN(_ netip.AddrPort, msg []byte) {
	r := c.run.Load()
	if r == nil {
		c.stats.STUNIgnored.Add(1)
		return
	}
	id, mapped, err := stun.ParseResponse(msg)
	if err != nil {
		c.stats.STUNIgnored.Add(1)
		return
	}
	select {
	case r.answers <- answer{id, mapped, time.Now()}:
	default:
		c.stats.STUNIgnored.Add(1)
	}
}
