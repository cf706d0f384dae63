package wireguard

import (
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/key"
)

// A Peer is one netmap peer. The pointer is stable for as long as the peer is
// known under its node key. A tailnet has many peers and talks to few: a record
// has 96 bytes (WG-53), and all that only a tunnel needs is in its session.
type Peer struct {
	Owner any // the caller's own record, as given in NewPeer

	key     key.NodePublic
	stamp   timestamp     // greatest accepted; owned by the actor; WG-10
	upAt    atomic.Uint32 // last handshake, Unix time in seconds; 0 = never
	session atomic.Pointer[session]
	masq    atomic.Pointer[Masquerade]
	tx, rx  atomic.Uint64 // bytes of datagrams
}

// A Masquerade is the addresses under which a peer knows us; either may be
// invalid for none (WG-55). It is immutable.
type Masquerade struct{ V4, V6 netip.Addr }

// Key returns the peer's node key.
func (p *Peer) Key() key.NodePublic { return p.key }

// LastSent returns when an authenticated packet last went to the peer, 0 when
// none did since its session was made.
func (p *Peer) LastSent() Tick {
	if s := p.live(); s != nil {
		return Tick(s.lastSent.Load())
	}
	return 0
}

// LastHeard returns when an authenticated packet last came from the peer, 0 when
// none did since its session was made.
func (p *Peer) LastHeard() Tick {
	if s := p.live(); s != nil {
		return Tick(s.lastHeard.Load())
	}
	return 0
}

// HeardFrom returns where the last authenticated packet came from, nil when none
// did since the session was made.
func (p *Peer) HeardFrom() *Source {
	if s := p.live(); s != nil {
		return s.from.Load()
	}
	return nil
}

// LastHandshake returns when a keypair last became usable for sending, to the
// second; the zero time when none ever did.
func (p *Peer) LastHandshake() time.Time {
	if at := p.upAt.Load(); at != 0 {
		return time.Unix(int64(at), 0)
	}
	return time.Time{}
}

// TxBytes returns how many bytes of tunnel datagrams were sent to the peer.
func (p *Peer) TxBytes() uint64 { return p.tx.Load() }

// RxBytes returns how many bytes of authenticated tunnel datagrams came from the
// peer.
func (p *Peer) RxBytes() uint64 { return p.rx.Load() }

// SetMasquerade says under which addresses the peer knows us; invalid addresses
// mean our own (WG-55). Sealers use it from their next batch on.
func (p *Peer) SetMasquerade(v4, v6 netip.Addr) {
	if !v4.IsValid() && !v6.IsValid() {
		p.masq.Store(nil)
		return
	}
	p.masq.Store(&Masquerade{V4: v4, V6: v6})
}

// masquerade returns the addresses to put in place of our own, nil for almost
// every peer.
func (p *Peer) masquerade() *Masquerade { return p.masq.Load() }

// gone stands in the session pointer of a peer that was removed, so that nothing
// makes a session for it again (WG-50).
var gone = new(session)

// live returns the peer's session, nil when it has none.
func (p *Peer) live() *session {
	if s := p.session.Load(); s != gone {
		return s
	}
	return nil
}

// sessionOf returns the session of p and makes it if there is none (WG-47). It
// returns nil only when p was removed.
func (e *Engine) sessionOf(p *Peer) *session {
	if s := p.session.Load(); s != nil {
		if s == gone {
			return nil
		}
		return s
	}
	fresh := &session{engine: e, peer: p}
	fresh.timer = unscheduled
	if p.session.CompareAndSwap(nil, fresh) {
		e.counters.sessions.Add(1)
		fresh.raise(eventMade)
		return fresh
	}
	return e.sessionOf(p)
}
