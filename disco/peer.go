package disco

import (
	"net/netip"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport"
)

// Times of the path state machine; PATH-31 unless noted. Real peers assume them.
const (
	pingTimeout    = 5 * time.Second         // an unanswered ping is forgotten
	pingInterval   = 5 * time.Second         // between discovery pings to one candidate, and between CallMeMaybes
	heartbeatEvery = 3 * time.Second         // between pings of the path in use
	trustFor       = 6500 * time.Millisecond // a pong makes a path usable alone for so long
	sessionActive  = 45 * time.Second        // without data for so long there are no heartbeats
	upgradeAfter   = 60 * time.Second        // all candidates are pinged again although a path works
	goodEnough     = 5 * time.Millisecond    // unless its latency is no more than this
	endpointsFresh = 27 * time.Second        // own endpoints are good enough for a CallMeMaybe
	candidateIdle  = 45 * time.Second        // a candidate known from pings goes without one

	silentAfter = time.Second            // data sent, nothing heard: the path is probed; PATH-36
	probeEvery  = 500 * time.Millisecond // PATH-36
	// Unanswered probes end the trust. PATH-36 proposes 2 s; this is before the
	// retransmission that TCP sends 3 s after the path has died, the next being at
	// 6 s.
	probeFor = 1500 * time.Millisecond

	// The rest are ours; nothing on the wire depends on them.
	pingBackEvery = time.Second            // least time between answers in kind to one address
	repeatAfter   = 500 * time.Millisecond // the first round of a session is repeated, when firewalls on both sides are open
	callPatience  = 2 * time.Second        // a CallMeMaybe waits so long for fresh endpoints
	forgetAfter   = 10 * time.Minute       // without data or messages a peer costs nothing again
)

// A purpose is why a ping was sent.
type purpose uint8

const (
	discovery purpose = iota
	heartbeat
	byUser
)

// A sentPing has had no answer yet (PATH-41).
type sentPing struct {
	id   TxID
	to   transport.Endpoint
	at   time.Time
	why  purpose
	size int       // wire size in bytes of a probe for the MTU; 0: without padding
	user *question // whom the answer is for; nil unless byUser
}

// A session is what data sent keeps going.
type session struct {
	data      time.Time // when data was last sent; zero: never
	heartbeat time.Time // when the next is due; zero: none
	repeat    time.Time // when the first round is repeated; zero: not
	round     time.Time // when all candidates were last considered; zero: never
}

// active reports whether data was sent lately.
func (s *session) active(now time.Time) bool {
	return !s.data.IsZero() && now.Sub(s.data) <= sessionActive
}

// A probe watches a trusted path over which data goes out and nothing comes back
// (PATH-36).
type probe struct {
	heard time.Time // last sign of life over the path in use
	beat  time.Time // last heartbeat; zero: none
	first time.Time // when the first of a series of pings was sent; zero: none
	next  time.Time // when to look again; zero: when more data is sent
}

// A call is the state of our CallMeMaybes to one peer (PATH-46).
type call struct {
	at     time.Time        // when one was last sent or wanted
	wanted bool             // waits for fresh endpoints
	by     time.Time        // then it goes with what there is; zero: it has gone with that
	listed []netip.AddrPort // what the last one listed; shared, never modified
}

// A source is where a peer was heard.
type source struct {
	region   uint16           // over DERP last; 0: nowhere
	derpPing TxID             // of its last ping over DERP
	mapped   []netip.AddrPort // addresses attributed to it, oldest first
}

// queued says when a peer is looked at again.
type queued struct {
	dirty bool // by the next settle
	due   time.Time
	slot  int // in the queue; -1: not there
}

// A peer is all that is known of the ways to one peer that is talked to, or that
// talks to us. Its key never changes.
type peer struct {
	node  *netmap.Peer
	disco key.DiscoPublic // the one in force; zero for a plain WireGuard peer

	candidates []candidate
	sent       []sentPing // oldest first
	best       choice     // the zero choice is state N of PATH-32
	trust      time.Time  // until when best is used alone

	session session
	probe   probe
	call    call

	heard  time.Time // last admitted message or event; zero: never
	source source
	limits struct{ pongs, calls limit }

	published Path // zero: by the network map
	live      *liveStatus
	queued
}

// trusted reports state D of PATH-32.
func (p *peer) trusted(now time.Time) bool { return !p.best.isZero() && now.Before(p.trust) }

// derp returns the way over DERP: the home region, or where the peer was last
// heard (PATH-65); zero: none.
func (p *peer) derp() transport.Endpoint {
	region := p.source.region
	if home := p.node.HomeDERP; home > 0 && home <= maxRegion {
		region = uint16(home)
	}
	if region == 0 || p.node.WireGuardOnly {
		return transport.Endpoint{}
	}
	return transport.Endpoint{Region: region, Key: p.node.Key}
}

const maxRegion = 1<<16 - 1

func direct(a netip.AddrPort) transport.Endpoint { return transport.Endpoint{Addr: a} }

// path returns where data goes now (PATH-32, PATH-33).
func (p *peer) path(now time.Time) Path {
	switch {
	case p.best.isZero():
		return Path{}
	case p.node.WireGuardOnly || p.trusted(now):
		return Path{Best: direct(p.best.addr)}
	}
	return Path{Best: direct(p.best.addr), Also: p.derp()}
}

// next returns when the peer needs attention.
func (p *peer) next(now time.Time) time.Time {
	due := p.heardOrSent().Add(forgetAfter)
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(due) {
			due = t
		}
	}
	if len(p.sent) > 0 {
		sooner(p.sent[0].at.Add(pingTimeout))
	}
	if p.trusted(now) && !p.node.WireGuardOnly {
		sooner(p.trust)
	}
	sooner(p.session.heartbeat)
	sooner(p.session.repeat)
	sooner(p.probe.next)
	if p.call.wanted {
		sooner(p.call.by)
	}
	return due
}

// heardOrSent returns when the peer last mattered.
func (p *peer) heardOrSent() time.Time {
	if p.session.data.After(p.heard) {
		return p.session.data
	}
	return p.heard
}
