package netcheck

import (
	"context"
	"errors"
	"math"
	"net/netip"
	"runtime"
	"syscall"
	"time"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport/stun"
)

// maxAnswers bounds the answers that wait for the run's goroutine.
const maxAnswers = 256

// maxChildren bounds the name lookups, and the measurements of each kind, that
// a run has under way.
const maxChildren = 32

// A run makes one report. Its goroutine owns all of it but the channels;
// children look things up and measure, and post what they find.
type run struct {
	checker *Checker
	dm      *netmap.DERPMap
	options Options
	report  *Report
	probing *measurement
	answers chan answer // from ReceiveSTUN, which drops what does not fit
	events  chan event

	group     *actor.Group
	addrs     map[nameKey]netip.Addr // found; not valid: there is none
	waiting   map[nameKey][]start    // probes whose name is being looked up
	children  int                    // whose event the report waits for
	fellBack  bool                   // the fallback has begun, or was not needed
	portal    portalState
	portalAt  time.Time // when the captive-portal check begins
	endPortal context.CancelFunc
}

// portalState is how far the captive-portal check has got.
type portalState uint8

const (
	portalOff portalState = iota // not wanted, or done
	portalWaits
	portalRuns
)

// An event notes what a child has found out. Only the run's goroutine calls it.
type event func(*run)

func (c *Checker) newRun(dm *netmap.DERPMap, o Options, full bool) *run {
	now := time.Now()
	r := &run{
		checker: c, dm: dm, options: o, report: newReport(),
		answers: make(chan answer, maxAnswers), events: make(chan event, maxChildren),
		addrs: make(map[nameKey]netip.Addr), waiting: make(map[nameKey][]start),
	}
	var p plan
	switch have := c.families(); {
	case o.OnlyTCP443:
	case full:
		p = fullPlan(dm, have)
	default:
		p = incrementalPlan(dm, have, c.last)
	}
	r.probing = newMeasurement(r.report, p, full, o.Thorough, now)
	if full && !o.OnlySTUN {
		r.portal, r.portalAt = portalWaits, now.Add(portalDelay)
	}
	return r
}

// families asks the host which families it has. One that does not tell may have
// both.
func (c *Checker) families() families {
	ifs, err := c.cfg.Network.Interfaces()
	if err != nil {
		c.log.Debug("netcheck: interfaces unknown, probing both families", "err", err)
		return families{v4: true, v6: true}
	}
	route, _ := c.cfg.Network.DefaultRoute()
	return familiesOf(ifs, route)
}

// serve runs until the report has all it can get (NC-31).
func (r *run) serve(ctx context.Context, g *actor.Group) error {
	r.group = g
	r.report.OSHasIPv6 = bindsIPv6(ctx, r.checker.cfg.Network)
	r.lookUpAll()
	r.askPortMap()
	timer := time.NewTimer(math.MaxInt64)
	defer timer.Stop()
	for {
		now := time.Now()
		r.advance(now)
		if r.complete(now) {
			return nil
		}
		timer.Reset(r.wait(now))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case a := <-r.answers:
			r.onAnswer(a)
		case e := <-r.events:
			e(r)
		case <-timer.C:
		}
	}
}

// advance does all that is due.
func (r *run) advance(now time.Time) {
	if !r.probing.over(now) {
		for s, ok := r.probing.due(now); ok; s, ok = r.probing.due(now) {
			r.probe(s)
		}
	}
	if r.probing.over(now) && !r.fellBack {
		r.fellBack = true
		r.fallBack()
	}
	r.advancePortal(now)
}

func (r *run) complete(now time.Time) bool {
	return r.probing.over(now) && r.fellBack && r.children == 0 && r.portal == portalOff
}

// wait returns how long nothing is due.
func (r *run) wait(now time.Time) time.Duration {
	at := now.Add(reportTimeout)
	if !r.probing.over(now) {
		at = r.probing.next()
	}
	if r.portal == portalWaits && r.portalAt.Before(at) {
		at = r.portalAt
	}
	return at.Sub(now)
}

// child starts work whose event the report waits for.
func (r *run) child(work func(context.Context) event) {
	r.children++
	r.group.Go(func(ctx context.Context) error {
		e := work(ctx)
		select {
		case r.events <- e:
		case <-ctx.Done():
		}
		return nil
	})
}

// lookUpAll looks up every name of the plan, so that no probe waits longer than
// it must.
func (r *run) lookUpAll() {
	tokens := make(chan struct{}, maxChildren)
	for _, l := range r.probing.plan {
		for _, p := range l.probes {
			_, k, ok := stunAddr(p.node, l.v6)
			if _, begun := r.waiting[k]; !ok || k.name == "" || begun {
				continue
			}
			r.waiting[k] = nil
			r.group.Go(func(ctx context.Context) error {
				tokens <- struct{}{}
				addr, err := lookUp(ctx, r.checker.cfg.Network, k)
				<-tokens
				if err != nil && ctx.Err() == nil {
					r.checker.log.Debug("netcheck: name of a relay not found", "name", k.name, "err", err)
				}
				select {
				case r.events <- func(r *run) { r.onName(k, addr) }:
				case <-ctx.Done():
				}
				return nil
			})
		}
	}
}

// onName sends the probes that waited for a name. Of one that is not found now, whose
// address is not valid, the last good answer is taken (NC-12).
func (r *run) onName(name nameKey, addr netip.Addr) {
	if addr.IsValid() {
		r.checker.remember(name, addr)
	} else {
		addr = r.checker.names[name]
	}
	r.addrs[name] = addr
	waiting := r.waiting[name]
	delete(r.waiting, name)
	for _, s := range waiting {
		if !r.probing.over(time.Now()) && r.probing.wanted(s) {
			r.probe(s)
		}
	}
}

// maxNames bounds the names remembered.
const maxNames = 2 * maxRegions

func (c *Checker) remember(k nameKey, a netip.Addr) {
	if c.names == nil || len(c.names) >= maxNames {
		c.names = make(map[nameKey]netip.Addr)
	}
	c.names[k] = a
}

// probe sends a probe, or leaves it to wait for its name.
func (r *run) probe(s start) {
	v6 := r.probing.plan[s.list].v6
	addr, k, ok := stunAddr(s.node, v6)
	if k.name != "" {
		var known bool
		if addr, known = r.addrs[k]; !known {
			r.waiting[k] = append(r.waiting[k], s)
			return
		}
	}
	port, hasSTUN := stunPort(s.node)
	if !ok || !hasSTUN || !addr.IsValid() {
		r.probing.onUnsent(s)
		return
	}
	r.send(s, netip.AddrPortFrom(addr, port), v6)
}

func (r *run) send(s start, to netip.AddrPort, v6 bool) {
	id := stun.NewTxID()
	sentAt := time.Now()
	err := r.checker.cfg.Send(to, stun.AppendRequest(nil, id))
	if err != nil && !lostHere(err) {
		r.checker.log.Debug("netcheck: STUN request not sent", "to", to, "err", err)
		r.probing.onUnsent(s)
		return
	}
	r.probing.onSent(id, s, sentAt)
	if v6 {
		r.checker.stats.STUNSendIPv6.Add(1)
	} else {
		r.checker.stats.STUNSendIPv4.Add(1)
	}
}

// lostHere reports whether a datagram was dropped by this host's own firewall,
// which on Linux shows as EPERM. It counts as sent and lost (NC-15).
func lostHere(err error) bool { return runtime.GOOS == "linux" && errors.Is(err, syscall.EPERM) }

func (r *run) onAnswer(a answer) {
	stats := &r.checker.stats
	switch v6, ok := r.probing.onAnswer(a); {
	case !ok:
		stats.STUNIgnored.Add(1)
	case v6:
		stats.STUNRecvIPv6.Add(1)
		r.tellFirst()
	default:
		stats.STUNRecvIPv4.Add(1)
		r.tellFirst()
	}
}

// tellFirst tells the caller which region was the first to answer.
func (r *run) tellFirst() {
	if r.options.First == nil {
		return
	}
	for region := range r.report.RegionLatency { // there is one
		r.options.First(region)
		break
	}
	r.options.First = nil
}

// bindsIPv6 reports whether the system has IPv6 at all.
func bindsIPv6(ctx context.Context, network host.Network) bool {
	conn, err := network.ListenUDP(ctx, "udp6", 0)
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// askPortMap asks for port mapping protocols beside STUN (NC-37).
func (r *run) askPortMap() {
	ask := r.checker.cfg.PortMap
	if ask == nil || r.options.OnlyTCP443 {
		return
	}
	r.child(func(ctx context.Context) event {
		pm, err := ask(ctx)
		if err != nil && ctx.Err() == nil {
			r.checker.log.Debug("netcheck: port mapping protocols not found out", "err", err)
		}
		return func(r *run) { r.onPortMap(pm) }
	})
}

func (r *run) onPortMap(p PortMapping) {
	r.children--
	r.report.UPnP, r.report.PMP, r.report.PCP = triOf(p.UPnP), triOf(p.PMP), triOf(p.PCP)
}
