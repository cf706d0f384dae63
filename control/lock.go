package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/tka"
)

// lockTimeout bounds one exchange with the server about tailnet lock (control.md
// section 14.1).
const lockTimeout = time.Minute

// A LockStore is where what tailnet lock has proven lives: it belongs to the
// login, and Keys.Save with zero Credentials forgets it, too.
type LockStore interface {
	// LoadLock returns what SaveLock has kept; nil when there is nothing.
	LoadLock(context.Context) ([][]byte, error)

	// SaveLock keeps updates; nil forgets them.
	SaveLock(ctx context.Context, updates [][]byte) error
}

// A lockGoal is what tailnet lock is to become: the server says that it is on,
// with this head, or that it is off. from is what this node has.
type lockGoal struct {
	on   bool
	head string
	from *tka.Authority // nil: none
}

// met reports whether there is nothing to do.
func (g lockGoal) met() bool {
	if g.from == nil {
		return !g.on
	}
	return g.on && g.head == g.from.Head().String()
}

// A lockResult is what following the server has brought.
type lockResult struct {
	goal      lockGoal
	authority *tka.Authority // nil: the lock is off
	err       error          // why it is not followed yet; the rest is unset
}

// A lockKeeper is what stream knows of tailnet lock. Its owner is poller.
type lockKeeper struct {
	judge   *tka.Judge // nil: no authority
	goal    lockGoal   // that a child works for
	stop    context.CancelFunc
	results chan lockResult

	from, to *netmap.Netmap // the last one that was judged, and what came of it
}

// openLock takes up what is known of the lock of a login, unless that was done.
// It is trusted before anything that the server says. When it cannot be read, the
// node ends: the server must not be asked for another one.
func (p *poller) openLock(ctx context.Context, generation int) error {
	if p.cfg.Lock == nil || p.opened == generation {
		return nil
	}
	updates, err := p.cfg.Lock.LoadLock(ctx)
	if err == nil && updates != nil {
		var a *tka.Authority
		if a, err = tka.Open(updates); err == nil {
			p.haveLock(a)
			p.state.locked = true
		}
	}
	if err != nil {
		err = fmt.Errorf("load tailnet lock: %w", err)
		p.polls.Store(p.status.disconnected(err))
		return actor.Fatal(err)
	}
	p.opened = generation
	return nil
}

// haveLock puts an authority in force; nil: none.
func (p *poller) haveLock(a *tka.Authority) {
	p.lock.judge = nil
	head := ""
	if a != nil {
		p.lock.judge, head = tka.NewJudge(a), a.Head().String()
	}
	p.lock.from, p.lock.to = nil, nil
	p.lockHead.Store(head)
}

// followLock has a child bring about what the server says of the lock, unless one
// is at it.
func (p *poller) followLock(ctx context.Context) {
	goal := p.state.lockGoal()
	if p.lock.judge != nil {
		goal.from = p.lock.judge.Authority()
	}
	if goal == p.lock.goal && p.lock.stop != nil {
		return
	}
	p.leaveLock()
	if goal.met() {
		p.lockFailed(nil)
		return
	}
	ctx, p.lock.stop = context.WithCancel(ctx)
	p.lock.goal = goal
	k, results := p.key, p.lock.results
	p.group.Go(func(context.Context) error {
		p.pursueLock(ctx, k, goal, results)
		return nil
	})
}

// leaveLock ends what followLock has begun.
func (p *poller) leaveLock() {
	if p.lock.stop != nil {
		p.lock.stop()
		p.lock.stop = nil
	}
}

// lockFailed shows why the lock is not followed; nil: it is.
func (p *poller) lockFailed(err error) {
	before := p.status.lock
	if err == nil && before == nil {
		return
	}
	if err != nil && (before == nil || before.Error() != err.Error()) {
		p.log.Warn("tailnet lock: the control server's word is not followed", "err", err)
	}
	p.status.lock = err
	p.polls.Store(p.status)
}

// onLock takes what a child has brought.
func (p *poller) onLock(ctx context.Context, r lockResult) {
	if r.goal != p.lock.goal || p.lock.stop == nil {
		return // of an older one
	}
	if r.err != nil {
		p.lockFailed(r.err)
		return
	}
	p.leaveLock()
	if r.authority == nil {
		p.log.Warn("tailnet lock is off: the control server knows the secret that turns it off")
		p.state.unlock()
	}
	p.saveLock(ctx, r.authority)
	p.haveLock(r.authority)
	p.lockFailed(nil)
	if r.authority != nil {
		p.log.Info("tailnet lock is verified", "head", r.authority.Head())
	}
	p.publish(ctx)
}

// saveLock keeps an authority. One that cannot be kept is in force until the end
// of the process.
func (p *poller) saveLock(ctx context.Context, a *tka.Authority) {
	if p.cfg.Lock == nil {
		return
	}
	var updates [][]byte
	if a != nil {
		updates = a.Updates()
	}
	if err := p.cfg.Lock.SaveLock(context.WithoutCancel(ctx), updates); err != nil {
		p.log.Error("cannot store tailnet lock: after a restart the control server's word is taken for it once more", "err", err)
	}
}

// pursueLock works for a goal until that is reached, or ctx ends.
func (c *Client) pursueLock(ctx context.Context, k key.NodePublic, goal lockGoal, results chan<- lockResult) {
	var backoff actor.Backoff
	for {
		a, err := c.askLock(ctx, k, goal)
		select {
		case results <- lockResult{goal, a, err}:
		case <-ctx.Done():
			return
		}
		if err == nil || actor.Sleep(ctx, max(backoff.Next(), retryDelay(err))) != nil {
			return
		}
	}
}

// askLock makes one attempt (SVC-146). It returns the authority to have, nil for
// none.
func (c *Client) askLock(ctx context.Context, k key.NodePublic, goal lockGoal) (*tka.Authority, error) {
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	a := goal.from
	if goal.on && a != nil {
		return c.syncLock(ctx, k, a)
	}
	req := LockBootstrapRequest{Version: CapabilityVersion, NodeKey: k}
	if a != nil {
		req.Head = a.Head().String()
	}
	var resp LockBootstrapResponse
	if err := c.call(ctx, http.MethodGet, PathLockBootstrap, req, &resp, k); err != nil {
		return nil, err
	}
	if !goal.on {
		if a.Disables(resp.DisablementSecret) {
			return nil, nil
		}
		return nil, errors.New("tailnet lock: the server says that it is off, but does not have the secret that turns it off: it stays on")
	}
	a, err := tka.Bootstrap(resp.GenesisAUM)
	if err != nil {
		return nil, err
	}
	return c.syncLock(ctx, k, a)
}

// syncLock fetches the updates that a lacks and returns the authority with them.
func (c *Client) syncLock(ctx context.Context, k key.NodePublic, a *tka.Authority) (*tka.Authority, error) {
	head, ancestors := a.Offer()
	var offer LockOfferResponse
	err := c.call(ctx, http.MethodGet, PathLockOffer,
		LockOfferRequest{Version: CapabilityVersion, NodeKey: k, Head: head, Ancestors: ancestors}, &offer, k)
	if err != nil || offer.Head == head {
		return a, err
	}
	if len(offer.MissingAUMs) > 0 {
		if a, err = a.Inform(offer.MissingAUMs); err != nil {
			return nil, err
		}
	}
	var sent LockSendResponse
	err = c.call(ctx, http.MethodGet, PathLockSend,
		LockSendRequest{Version: CapabilityVersion, NodeKey: k, Head: a.Head().String(), MissingAUMs: [][]byte{}}, &sent, k)
	if err != nil {
		return nil, err
	}
	if sent.Head != a.Head().String() {
		c.log.Warn("tailnet lock: the server and this node have not the same head", "server", shorten([]byte(sent.Head)), "node", a.Head())
	}
	return a, nil
}

// judged returns the netmap without the peers that tailnet lock keeps out
// (SVC-145). Without an authority, LockEnabled alone tells all others to talk to
// nobody (CTL-41).
func (p *poller) judged(m *netmap.Netmap) *netmap.Netmap {
	if !m.LockEnabled || p.lock.judge == nil {
		return m
	}
	if p.lock.from == m {
		return p.lock.to
	}
	to := *m
	to.Peers = admitted(p.lock.judge, m.Peers)
	a := p.lock.judge.Authority()
	to.Lock = &netmap.LockStatus{
		Head:    a.Head().String(),
		LeftOut: len(m.Peers) - len(to.Peers),
		Signed:  a.Verify(m.Self.Key, m.Self.KeySignature) == nil,
	}
	p.lock.from, p.lock.to = m, &to
	return &to
}

// admitted returns the peers that have a valid signature or need none.
func admitted(j *tka.Judge, peers []*netmap.Peer) []*netmap.Peer {
	nodes := make([]tka.Node, 0, len(peers))
	for _, p := range peers {
		if !p.UnsignedPeerAPIOnly {
			nodes = append(nodes, tka.Node{Key: p.Key, Signature: p.KeySignature})
		}
	}
	in, i := j.Admit(nodes), 0
	return slices.DeleteFunc(slices.Clone(peers), func(p *netmap.Peer) bool {
		if p.UnsignedPeerAPIOnly {
			return false
		}
		i++
		return !in[i-1]
	})
}
