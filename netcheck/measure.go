package netcheck

import (
	"net/netip"
	"time"

	"github.com/seed94491740/tsnode/transport/stun"
)

// Regions that must have been measured for the STUN phase to end early (NC-14).
const (
	enoughRegions         = 3
	enoughRegionsThorough = 100
)

// A measurement is the STUN phase of one report: which probes are due, what
// their answers say, and when it is over. It does no I/O.
type measurement struct {
	report *Report
	plan   plan
	starts []start // those still to come, in order of time
	lists  []listState
	open   int // lists that are not done
	sent   map[stun.TxID]request

	begin    time.Time
	stopAt   time.Time // when the phase ends at the latest; brought forward by an early stop
	enough   int       // regions that make an early stop
	grace    int       // times the slowest latency, how long an early stop waits for others
	stopping bool      // an early stop is under way
	slowest  time.Duration
}

// listState is how far the probes of one list have got.
type listState struct {
	done  bool
	tried int // probes that were sent or could not be
	sent  int
}

// A request is a probe that was sent.
type request struct {
	list int
	at   time.Time
}

// An answer is what a STUN server said, and when it came.
type answer struct {
	id     stun.TxID
	mapped netip.AddrPort
	at     time.Time
}

func newMeasurement(report *Report, p plan, full, thorough bool, begin time.Time) *measurement {
	m := &measurement{
		report: report, plan: p, starts: p.starts(), lists: make([]listState, len(p)), open: len(p),
		sent: make(map[stun.TxID]request), begin: begin, stopAt: begin.Add(stunTimeout),
		enough: enoughRegions, grace: 1,
	}
	if thorough {
		m.enough = enoughRegionsThorough
	}
	if full {
		m.grace = 2
	}
	return m
}

// over reports whether the phase has ended: all lists are done, an early stop's
// grace is over, or time is (NC-31).
func (m *measurement) over(now time.Time) bool { return m.open == 0 || !now.Before(m.stopAt) }

// conclusive reports whether the phase cannot tell much more: it has ended with
// an answer, or enough regions have answered.
func (m *measurement) conclusive(now time.Time) bool {
	return m.report.UDP && m.over(now) || len(m.report.RegionLatency) >= m.enough
}

// next returns when due or over is worth asking again.
func (m *measurement) next() time.Time {
	if len(m.starts) > 0 {
		if at := m.begin.Add(m.starts[0].delay); at.Before(m.stopAt) {
			return at
		}
	}
	return m.stopAt
}

// due returns the next probe that is to start by now, if there is one that
// would add anything (NC-27).
func (m *measurement) due(now time.Time) (s start, ok bool) {
	for len(m.starts) > 0 && !m.begin.Add(m.starts[0].delay).After(now) {
		s, m.starts = m.starts[0], m.starts[1:]
		if m.wanted(s) {
			return s, true
		}
	}
	return start{}, false
}

// wanted reports whether a probe would add anything; if not, its list is done.
func (m *measurement) wanted(s start) bool {
	if m.lists[s.list].done {
		return false
	}
	if !m.helps(m.plan[s.list]) {
		m.end(s.list)
		return false
	}
	return true
}

func (m *measurement) helps(l probeList) bool {
	if _, ok := m.report.RegionLatency[l.region]; !ok {
		return true
	}
	if l.v6 {
		return len(m.report.RegionV6Latency) == 0
	}
	return m.report.MappingVariesByDestIP == Unknown
}

func (m *measurement) end(list int) {
	if l := &m.lists[list]; !l.done {
		l.done = true
		m.open--
	}
}

// onSent notes a probe handed to the network.
func (m *measurement) onSent(id stun.TxID, s start, at time.Time) {
	m.sent[id] = request{s.list, at}
	m.lists[s.list].sent++
	m.tried(s.list)
	if m.plan[s.list].v6 {
		m.report.IPv6CanSend = true
	} else {
		m.report.IPv4CanSend = true
	}
}

// onUnsent notes a probe that could not be sent.
func (m *measurement) onUnsent(s start) { m.tried(s.list) }

// tried ends a list of which no probe has left this host, so that nobody waits
// for an answer that cannot come.
func (m *measurement) tried(list int) {
	l := &m.lists[list]
	l.tried++
	if l.tried == len(m.plan[list].probes) && l.sent == 0 {
		m.end(list)
	}
}

// onAnswer applies a server's answer and returns over which family it came. It
// reports false if nobody asked (NC-07, NC-29).
func (m *measurement) onAnswer(a answer) (v6, ok bool) {
	req, ok := m.sent[a.id]
	if !ok {
		return false, false
	}
	delete(m.sent, a.id)
	l, r, latency := m.plan[req.list], m.report, max(a.at.Sub(req.at), 0)
	r.UDP = true
	lower(r.RegionLatency, l.region, latency)
	if l.v6 {
		r.IPv6 = true
		lower(r.RegionV6Latency, l.region, latency)
	} else {
		r.IPv4 = true
		lower(r.RegionV4Latency, l.region, latency)
	}
	m.see(a.mapped)
	m.end(req.list)
	m.stopEarly(latency, a.at)
	return l.v6, true
}

// see counts a public address. Whether the NAT maps by destination is tracked
// for IPv4 alone (NC-18). The address's own family counts: through a NAT64 the
// answer to an IPv6 probe shows an IPv4 address.
func (m *measurement) see(mapped netip.AddrPort) {
	r := m.report
	if mapped.Addr().Is6() {
		r.GlobalV6 = mapped
		r.GlobalV6Counters[mapped]++
		return
	}
	r.GlobalV4Counters[mapped]++
	switch {
	case !r.GlobalV4.IsValid():
		r.GlobalV4 = mapped
	case mapped != r.GlobalV4:
		r.MappingVariesByDestIP = True
	case r.MappingVariesByDestIP == Unknown:
		r.MappingVariesByDestIP = False
	}
}

// stopEarly ends the phase soon once enough regions have answered: the others
// are given as long as the slowest took, or twice that in a full report (NC-30).
func (m *measurement) stopEarly(latency time.Duration, now time.Time) {
	m.slowest = max(m.slowest, latency)
	if m.stopping || len(m.report.RegionLatency) < m.enough {
		return
	}
	m.stopping = true
	if at := now.Add(time.Duration(m.grace) * m.slowest); at.Before(m.stopAt) {
		m.stopAt = at
	}
}
