package disco

import (
	"errors"
	"fmt"
	"time"

	"github.com/seed94491740/tsnode/key"
)

// MaxPing is the largest frame of a Ping in bytes (PATH-50).
const MaxPing = 65467

// maxAsked bounds the pings of users that one peer's record keeps.
const maxAsked = 64

var (
	errPeerGone = errors.New("disco: ping: the peer has left the network map")
	errNoAnswer = errors.New("disco: ping: no way to the peer: it has no endpoint and no home region yet; try again when it is online")
	errBusy     = fmt.Errorf("disco: ping: %d pings of this peer wait for an answer; let them end first", maxAsked)
)

// onQuestion pings a peer for a user: the path in use alone if that is trusted
// and large enough, else every way at once (PATH-50). The first answer wins.
func (st *paths) onQuestion(k key.NodePublic, size int, q *question, now time.Time) {
	n := st.roster.get(k)
	switch {
	case n == nil:
		st.answer(q, PingResult{}, errors.New("disco: ping: no such peer in the network map, or its key has expired"))
		return
	case n.WireGuardOnly || st.roster.disco(n).IsZero():
		st.answer(q, PingResult{}, fmt.Errorf("disco: ping: %s does not speak disco; ping it inside the tunnel", n.Name))
		return
	}
	p := st.open(n, now)
	if p.asked() >= maxAsked {
		st.answer(q, PingResult{}, errBusy)
		return
	}
	if !st.options.OnlyTCP443 {
		st.startSession(p, now)
	}
	if p.trusted(now) && fits(p.best, size) {
		st.ask(p, p.find(p.best.addr), size, q, now)
		return
	}
	st.askAll(p, size, q, now)
}

// fits reports whether a frame of size bytes goes through a path.
func fits(c choice, size int) bool { return size == 0 || size+headersOf(direct(c.addr)) <= c.mtu }

// asked counts the pings sent for users.
func (p *peer) asked() (n int) {
	for i := range p.sent {
		if p.sent[i].user != nil {
			n++
		}
	}
	return n
}

// askAll pings a peer over DERP and at every candidate, and has it ping us.
func (st *paths) askAll(p *peer, size int, q *question, now time.Time) {
	to := p.derp()
	if to.IsZero() && len(p.candidates) == 0 {
		st.answer(q, PingResult{}, errNoAnswer)
		return
	}
	if !to.IsZero() {
		st.pingFor(p, to, byUser, wireSize(to.Addr.Addr().Is6(), size), q, now)
	}
	if st.options.OnlyTCP443 {
		return
	}
	for i := range p.candidates {
		st.ask(p, &p.candidates[i], size, q, now)
	}
	st.callPeer(p, now)
}

// ask pings one candidate for a user, with a frame of size bytes; 0: the least,
// or those that find the MTU.
func (st *paths) ask(p *peer, c *candidate, size int, q *question, now time.Time) {
	if size == 0 {
		st.discover(p, c, byUser, q, now)
		return
	}
	c.pinged = now
	st.pingFor(p, direct(c.addr), byUser, wireSize(c.addr.Addr().Is6(), size), q, now)
}

// wireSize returns the wire size of a frame of size bytes; 0 stays 0.
func wireSize(is6 bool, size int) int {
	switch {
	case size == 0:
		return 0
	case is6:
		return size + headers6
	}
	return size + headers4
}

// answer answers a user's question once.
func (st *paths) answer(q *question, result PingResult, err error) {
	if q == nil || q.done {
		return
	}
	q.done = true
	st.do(reply{q, result, err})
}
