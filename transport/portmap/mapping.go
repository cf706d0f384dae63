package portmap

import (
	"net/netip"
	"slices"
	"time"
)

// Times of a mapping.
const (
	askLifetime   = 7200 * time.Second     // PATH-97
	maxLifetime   = 24 * time.Hour         // RFC 6887 section 15 limits what a server may grant
	minRenewal    = 4 * time.Second        // between two renewals; RFC 6887 section 11.2.1
	seenFor       = 10 * time.Minute       // a protocol that answered counts as there (PATH-98)
	silentFor     = 5 * time.Second        // a probe without answers says that NAT-PMP is not worth asking (PATH-99)
	firstPause    = 15 * time.Second       // after an attempt that failed; doubles
	maxPause      = 30 * time.Minute       // between attempts
	attemptBudget = 5 * time.Second        // of one attempt (PATH-97)
	releaseBudget = 500 * time.Millisecond // of a release; shutting down waits for it
)

// A protocol is a way to ask for a mapping.
type protocol uint8

const (
	natPMP protocol = iota
	pcp
	upnp
	protocols // how many there are
)

func (p protocol) String() string { return [...]string{"NAT-PMP", "PCP", "UPnP"}[p] }

// A route is the gateway and this host's address on the way to it. The zero
// route leads nowhere.
type route struct{ gateway, own netip.Addr }

func (r route) valid() bool { return r.gateway.IsValid() }

// A mapping is what a gateway has granted. It is not modified.
type mapping struct {
	protocol protocol
	route    route
	internal uint16
	external netip.AddrPort
	granted  time.Time
	lifetime time.Duration
	nonce    nonce   // PCP
	service  service // UPnP
}

func (m *mapping) until() time.Time { return m.granted.Add(m.lifetime) }

// newMapping returns a mapping of the granted lifetime, in seconds.
func newMapping(p protocol, a *attempt, external netip.AddrPort, seconds uint32) *mapping {
	return &mapping{
		protocol: p,
		route:    a.route,
		internal: a.port,
		external: external,
		granted:  time.Now(),
		lifetime: min(time.Duration(seconds)*time.Second, maxLifetime),
		nonce:    a.nonce,
	}
}

// A sighting is an answer of a protocol's server.
type sighting struct {
	at       time.Time // zero: never heard
	epoch    uint32    // what it said of its age, in seconds; not UPnP
	hasEpoch bool
}

// What is known of the servers of a gateway.
type sightings struct {
	by      [protocols]sighting
	devices []device // UPnP; best first
	probed  time.Time
}

// has reports whether a protocol answered lately.
func (s *sightings) has(p protocol, now time.Time) bool {
	at := s.by[p].at
	return !at.IsZero() && now.Sub(at) < seenFor
}

// silent reports whether a probe has just heard neither NAT-PMP nor PCP.
func (s *sightings) silent(now time.Time) bool {
	return !s.probed.IsZero() && now.Sub(s.probed) < silentFor && !s.has(natPMP, now) && !s.has(pcp, now)
}

// result is what a probe reports.
func (s *sightings) result(now time.Time) Result {
	return Result{UPnP: s.has(upnp, now), PMP: s.has(natPMP, now), PCP: s.has(pcp, now)}
}

// A restart is what an epoch tells of a server.
type restart uint8

const (
	noRestart       restart = iota
	maybeRestarted          // the clock runs slow, or began anew and has gone far since
	surelyRestarted         // the clock went back
)

// restarted compares what a server says of its age with what it said before.
// A second of going back may be datagrams that overtook each other (RFC 6887
// section 8.5); an eighth of lag is a bad clock (RFC 6886 section 3.6).
func (old sighting) restarted(s sighting) restart {
	if !old.hasEpoch || !s.hasEpoch {
		return noRestart
	}
	passed := s.at.Sub(old.at).Seconds()
	switch gone := float64(s.epoch) - float64(old.epoch); {
	case gone < -1:
		return surelyRestarted
	case gone < passed*7/8-2:
		return maybeRestarted
	}
	return noRestart
}

// A state is all that a Client knows. It is a pure core: what is to be sent and
// said is left to the loop.
type state struct {
	route   route
	port    uint16 // 0 = nothing to map
	nonce   nonce  // of this route and port (PATH-102)
	seen    sightings
	mapping *mapping
	wanted  netip.AddrPort // granted here before; asked for again

	due      time.Time // of the next creation or renewal
	failures int       // attempts in a row
	doubted  bool      // the gateway may not know the mapping any more; one failed renewal decides
}

// idle reports whether there is nothing to ask for.
func (st *state) idle() bool { return st.port == 0 || !st.route.valid() }

// move adopts a route and a port. It returns the mapping to release, nil for
// none.
func (st *state) move(r route, port uint16, n nonce, now time.Time) (old *mapping) {
	if r == st.route && port == st.port {
		return nil
	}
	switch {
	case port != st.port:
		st.wanted = netip.AddrPort{}
	case r != st.route && st.wanted.IsValid(): // its address is another gateway's
		st.wanted = netip.AddrPortFrom(netip.IPv4Unspecified(), st.wanted.Port())
	}
	if r != st.route {
		st.seen = sightings{}
	}
	old = st.mapping
	st.route, st.port, st.nonce = r, port, n
	st.mapping, st.doubted = nil, false
	st.retryAt(now)
	return old
}

// doubt asks everything again: the network has changed, and what looks like
// the same gateway may be another.
func (st *state) doubt(now time.Time) {
	st.seen = sightings{}
	st.doubted = st.mapping != nil
	st.retryAt(now)
}

func (st *state) retryAt(t time.Time) { st.due, st.failures = t, 0 }

// forget drops the mapping; the next attempt asks for the same port.
func (st *state) forget(now time.Time) {
	st.mapping, st.doubted = nil, false
	st.retryAt(now)
}

// onHeard takes in what a probe or an attempt has heard and reports whether a
// restart of the gateway was noticed.
func (st *state) onHeard(heard sightings, now time.Time) (lost bool) {
	for p := range protocols {
		old, s := st.seen.by[p], heard.by[p]
		if s.at.IsZero() {
			continue
		}
		news := !st.seen.has(p, now)
		st.seen.by[p] = s
		switch m := st.mapping; {
		case m == nil && news:
			st.due = now // there is somebody to ask
		case m == nil || m.protocol != p:
		case old.restarted(s) == surelyRestarted:
			st.forget(now)
			lost = true
		case old.restarted(s) == maybeRestarted:
			st.due, st.doubted = now, true
		}
	}
	if heard.devices != nil {
		st.seen.devices = heard.devices
	}
	return lost
}

// onAttempt takes in the end of an attempt; m is nil if it failed.
func (st *state) onAttempt(m *mapping, now time.Time) {
	if m != nil {
		st.mapping, st.wanted, st.failures, st.doubted = m, m.external, 0, false
		st.due = now.Add(max(m.lifetime/2, minRenewal)) // PATH-97
		return
	}
	if st.doubted {
		st.forget(now)
		return
	}
	st.failures++
	if st.mapping != nil {
		// Half of what is left, as RFC 6887 section 11.2.1 has it.
		st.due = now.Add(max(st.mapping.until().Sub(now)/2, minRenewal))
		return
	}
	st.due = now.Add(min(firstPause<<min(st.failures-1, 10), maxPause))
}

// advance drops a mapping that has ended.
func (st *state) advance(now time.Time) {
	if st.mapping != nil && !now.Before(st.mapping.until()) {
		st.forget(now)
	}
}

// wait returns when to look again; the zero time for never.
func (st *state) wait(attempting bool) time.Time {
	var times []time.Time
	if !attempting && !st.idle() {
		times = append(times, st.due)
	}
	if st.mapping != nil {
		times = append(times, st.mapping.until())
	}
	if len(times) == 0 {
		return time.Time{}
	}
	return slices.MinFunc(times, time.Time.Compare)
}
