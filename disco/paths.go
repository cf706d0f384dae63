package disco

import (
	"net/netip"
	"slices"
	"time"

	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/transport"
)

// paths is the path state of all peers: the state machine of
// doc/protocol/paths.md section 5. It does no I/O and reads no clock. Events go
// in through the on methods and advance; what is to be done comes out of take.
type paths struct {
	surroundings
	roster  *roster
	peers   map[key.NodePublic]*peer // that are talked to, or talk to us
	queue   queue
	dirty   []*peer // changed since the last settle
	out     []action
	options Options

	endpoints   []netip.AddrPort // ours; never modified
	endpointsAt time.Time        // when they were found out; zero: never
	freshAfter  time.Time        // older ones are wrong: the sockets have changed
	doubtAfter  time.Time        // older ones are to be found out again: a path has died
}

// surroundings are what the state machine is given. Counters, addresses and
// status it only writes.
type surroundings struct {
	node   key.NodePublic
	heard  func(key.NodePublic) (time.Time, transport.Endpoint)
	newTx  func() TxID
	pick   func(n int) int // a random number below n
	count  *counters
	book   *addrBook
	status *statusBook
}

func newPaths(s surroundings) *paths {
	s.book.clear()
	s.status.clear()
	return &paths{surroundings: s, roster: newRoster(), peers: make(map[key.NodePublic]*peer)}
}

// take returns what is to be done since it was last called.
func (st *paths) take() []action {
	out := st.out
	st.out = nil
	return out
}

func (st *paths) do(a action) { st.out = append(st.out, a) }

// open returns the record of a peer, made if need be.
func (st *paths) open(n *netmap.Peer, now time.Time) *peer {
	p := st.peers[n.Key]
	if p == nil {
		p = &peer{node: n, heard: now, live: new(liveStatus), queued: queued{slot: -1}}
		if !n.WireGuardOnly {
			p.disco = st.roster.disco(n)
		}
		st.peers[n.Key] = p
		st.status.set(n.Key, p.live)
		st.list(p, now)
	}
	st.touch(p)
	return p
}

// touch has settle look at the peer.
func (st *paths) touch(p *peer) {
	if !p.dirty {
		p.dirty = true
		st.dirty = append(st.dirty, p)
	}
}

// settle publishes what has changed and sets timers; it ends each event.
func (st *paths) settle(now time.Time) {
	for _, p := range st.dirty {
		p.dirty = false
		if st.peers[p.node.Key] != p {
			continue // closed meanwhile
		}
		st.publish(p, p.path(now))
		p.live.store(p)
		st.queue.set(p, p.next(now))
	}
	clear(st.dirty)
	st.dirty = st.dirty[:0]
}

// publish makes path the way to the peer; the zero path is the network map's.
func (st *paths) publish(p *peer, path Path) {
	if p.published == path {
		return
	}
	if p.published.Best.IsZero() != path.Best.IsZero() {
		st.count.add(foundOrLost(path))
	}
	p.published = path
	r := routing{peer: p.node.Key}
	if !path.Best.IsZero() {
		chosen := path
		r.path = &chosen
	}
	st.do(r)
}

func foundOrLost(path Path) Counter {
	if path.Best.IsZero() {
		return PathsLost
	}
	return PathsFound
}

// close forgets a peer.
func (st *paths) close(p *peer) {
	st.publish(p, Path{})
	st.queue.set(p, time.Time{})
	for _, a := range p.source.mapped {
		st.unmap(p, a)
	}
	for i := range p.sent {
		st.answer(p.sent[i].user, PingResult{}, errPeerGone)
	}
	st.status.remove(p.node.Key)
	delete(st.peers, p.node.Key)
}

// wait returns how long nothing needs to be done.
func (st *paths) wait(now time.Time) time.Duration {
	p := st.queue.first()
	if p == nil {
		return time.Hour
	}
	return max(0, p.due.Sub(now))
}

// advance does what is due.
func (st *paths) advance(now time.Time) {
	for p := st.queue.first(); p != nil && !p.due.After(now); p = st.queue.first() {
		st.tick(p, now)
		st.touch(p)
		st.settle(now)
	}
}

// tick does what is due for one peer.
func (st *paths) tick(p *peer, now time.Time) {
	if !p.heardOrSent().Add(forgetAfter).After(now) {
		st.close(p)
		return
	}
	st.expirePings(p, now)
	if p.node.WireGuardOnly {
		return
	}
	st.trustHeard(p, now)
	if due(p.session.repeat, now) {
		p.session.repeat = time.Time{}
		st.repeatRound(p, now)
	}
	if due(p.session.heartbeat, now) {
		st.beat(p, now)
	}
	st.watch(p, now)
	if p.call.wanted && due(p.call.by, now) {
		st.callUnfresh(p)
	}
}

func due(t, now time.Time) bool { return !t.IsZero() && !t.After(now) }

// onNetmap applies a network map.
func (st *paths) onNetmap(nm *netmap.Netmap, now time.Time) {
	st.roster.update(nm, func(c rosterChange) { st.onPeerChange(c, now) })
}

func (st *paths) onPeerChange(c rosterChange, now time.Time) {
	st.listPlain(c)
	if c.restarted {
		st.do(expiry{c.new.Key})
	}
	if c.new == nil || c.old == nil || c.old.WireGuardOnly != c.new.WireGuardOnly {
		for _, n := range []*netmap.Peer{c.old, c.new} {
			if n != nil && st.peers[n.Key] != nil {
				st.close(st.peers[n.Key])
			}
		}
		return
	}
	p := st.peers[c.new.Key]
	if p == nil {
		return
	}
	endpoints := !slices.Equal(p.node.Endpoints, c.new.Endpoints)
	p.node = c.new
	if endpoints {
		st.list(p, now)
	}
	if !p.node.WireGuardOnly {
		st.setDisco(p)
	}
	st.touch(p)
}

// setDisco takes the disco key in force. A peer that has another one has
// restarted: candidates and best path stay, and are asked again at once.
func (st *paths) setDisco(p *peer) {
	d := st.roster.disco(p.node)
	if d == p.disco {
		return
	}
	p.disco = d
	if d.IsZero() {
		st.lose(p)
	}
	p.call.at = time.Time{}
	for i := range p.candidates {
		p.candidates[i].pinged = time.Time{}
	}
}

// onLearned takes a disco key that a peer told inside the tunnel (PATH-21).
func (st *paths) onLearned(k key.NodePublic, d key.DiscoPublic, now time.Time) {
	n := st.roster.get(k)
	if n == nil || !st.roster.learn(n, d) {
		return
	}
	p := st.peers[k]
	if p == nil {
		return
	}
	st.setDisco(p)
	if p.session.active(now) && st.mayProbe(p) && !p.trusted(now) {
		st.round(p, now, byData)
	}
	st.touch(p)
}

// onOptions applies options. Those that change which packets go over which
// sockets make all paths anew (PATH-35).
func (st *paths) onOptions(o Options, now time.Time) {
	old := st.options
	st.options = o
	if old.OnlyTCP443 != o.OnlyTCP443 || old.ProbeMTU != o.ProbeMTU {
		st.onRebound(now)
	}
	if o.OnlyTCP443 || o.NoHeartbeat || o.SilentDisco {
		for _, p := range st.peers {
			p.session.heartbeat, p.probe.first, p.probe.next = time.Time{}, time.Time{}, time.Time{}
			st.touch(p)
		}
	}
}

// onRebound starts over on new sockets: candidates stay, what was measured does
// not, and pings to the old sockets will have no answer (PATH-35, PATH-58).
func (st *paths) onRebound(now time.Time) {
	st.freshAfter = now
	for _, p := range st.peers {
		for i := range p.candidates {
			p.candidates[i].forget()
		}
		p.sent = slices.DeleteFunc(p.sent, func(s sentPing) bool { return !s.to.IsDERP() && s.user == nil })
		p.call = call{}
		st.lose(p)
		st.touch(p)
		if p.session.active(now) && st.mayProbe(p) {
			p.session.repeat = now.Add(repeatAfter)
			st.round(p, now, byData)
		}
	}
}

// lose gives up the path in use: state N.
func (st *paths) lose(p *peer) {
	p.best, p.trust = choice{}, time.Time{}
	p.probe = probe{}
	st.touch(p)
}

// onUnreachable forgets a path over which sending has failed (PATH-59, PATH-60).
func (st *paths) onUnreachable(k key.NodePublic, to transport.Endpoint) {
	p := st.peers[k]
	if p == nil || to.IsDERP() {
		return
	}
	if c := p.find(to.Addr); c != nil {
		c.forget()
	}
	if p.best.addr == to.Addr {
		st.lose(p)
	}
}

// mapTo notes that a peer was seen at an address (PATH-17).
func (st *paths) mapTo(p *peer, a netip.AddrPort) {
	if owner, ok := st.book.get(a); ok && owner == p.node.Key {
		return
	}
	if !slices.Contains(p.source.mapped, a) {
		if len(p.source.mapped) >= maxMapped {
			st.unmap(p, p.source.mapped[0])
			p.source.mapped = slices.Delete(p.source.mapped, 0, 1)
		}
		p.source.mapped = append(p.source.mapped, a)
	}
	st.book.set(a, p.node.Key)
}

// unmap forgets an address unless another peer has been seen there since.
func (st *paths) unmap(p *peer, a netip.AddrPort) {
	if owner, ok := st.book.get(a); ok && owner == p.node.Key {
		st.book.remove(a)
	}
}
