package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// A stream holds one map poll and publishes what its frames add up to.
type stream struct{ *Client }

// Times of the map stream (control.md sections 8.3, 8.9 and 14.1).
const (
	watchdog    = 120 * time.Second // without a complete frame, a poll is given up
	maxSleep    = 5 * time.Minute   // what Debug.SleepSeconds may ask for
	steadyAfter = 10 * time.Second  // a poll that lived so long has not failed at once

	expiryRecheck = time.Minute // how late the end of a key is noticed after a sleep, at most

	// unknownLimit is how many answers in a row that the node is unknown cause a
	// new registration (CTL-44).
	unknownLimit = 3
)

var (
	errSilent       = fmt.Errorf("map stream: no frame for %v", watchdog)
	errLoginChanged = errors.New("map stream: the login has changed")
)

// A pollStatus is what stream tells about itself.
type pollStatus struct {
	connected bool
	err       error
	self      *netmap.Peer // nil: no netmap
	browser   string
	lock      error // why tailnet lock is not followed
}

// disconnected returns the status of a node whose map stream is down.
func (s pollStatus) disconnected(err error) pollStatus {
	s.connected, s.err = false, err
	return s
}

// Serve polls for as long as somebody is logged in (CTL-62).
func (s *stream) Serve(ctx context.Context) error {
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		p := newPoller(s, g)
		var backoff actor.Backoff
		for {
			l, changed := s.login.Load()
			if l.key.IsZero() {
				p.idle()
				select {
				case <-changed:
				case <-ctx.Done():
					return ctx.Err()
				}
				backoff.Reset()
				continue
			}
			if err := p.openLock(ctx, l.generation); err != nil {
				return err
			}
			begin := time.Now()
			err := p.poll(ctx, l, changed)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if p.framed && time.Since(begin) >= steadyAfter || errors.Is(err, errLoginChanged) {
				backoff.Reset()
			}
			wait := max(backoff.Next(), retryDelay(err))
			p.ended(err, wait)
			if err := sleepOr(ctx, wait, changed); err != nil {
				return err
			}
		}
	})
}

// sleepOr waits, but no longer than until ch is closed.
func sleepOr(ctx context.Context, d time.Duration, ch <-chan struct{}) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ch:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// A poller is the state of stream: the map session and how polls have gone.
type poller struct {
	*stream
	group   *actor.Group
	pings   *pinger
	state   *mapState
	key     key.NodePublic // of this poll
	framed  bool           // this poll has brought a frame that is no keep-alive
	unknown int            // answers in a row that the node is unknown
	status  pollStatus
	expired bool // self, as last told to session
	lock    lockKeeper
	opened  int // generation of the login whose lock is open
}

func newPoller(s *stream, g *actor.Group) *poller {
	p := &poller{stream: s, group: g, status: s.polls.Get(), pings: newPinger(s.Client, g)}
	m := s.Netmap.Get() // of an earlier run of stream: in force until the first frame
	p.state = &mapState{before: m, locked: m != nil && m.LockEnabled}
	return p
}

// idle forgets the map of a login that is over.
func (p *poller) idle() {
	p.state = new(mapState)
	p.haveLock(nil)
	p.Netmap.Store(nil)
	p.status, p.expired = pollStatus{}, false
	p.polls.Store(p.status)
}

// poll runs one map poll to its end, which is always an error.
func (p *poller) poll(ctx context.Context, l login, changed <-chan struct{}) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	p.key, p.framed = l.key.Public(), false
	p.lock.results = make(chan lockResult)
	defer p.leaveLock()
	req := p.mapRequest(p.key)
	req.Stream = true
	req.MapSessionHandle, req.MapSessionSeq = p.state.handle, p.state.seq // section 8.8
	updates := make(chan *update)
	ended := make(chan error, 1)
	p.group.Go(func(context.Context) error {
		ended <- p.read(ctx, req, updates)
		return nil
	})
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		p.armExpiry(timer)
		select {
		case u := <-updates:
			if err := p.take(ctx, u); err != nil {
				cancel(nil)
				<-ended
				return err
			}
		case r := <-p.lock.results:
			p.onLock(ctx, r)
		case <-changed:
			cancel(errLoginChanged)
			changed = nil
		case <-timer.C:
			if p.state.current != nil && p.state.expire(time.Now()) {
				p.publish(ctx)
			}
		case err := <-ended:
			return err
		case <-p.group.Context().Done():
			return p.group.Context().Err()
		}
	}
}

// armExpiry sets the timer to the next end of a key (CTL-47). The timer stands
// still while the machine sleeps, the clock does not: so it looks every minute.
func (p *poller) armExpiry(timer *time.Timer) {
	if wait, ok := p.state.nextExpiry(time.Now()); ok {
		timer.Reset(min(max(wait, time.Second), expiryRecheck))
	} else {
		timer.Stop()
	}
}

// take applies one frame and publishes the netmap, if it is a new one.
func (p *poller) take(ctx context.Context, u *update) error {
	now := time.Now()
	p.event(u)
	if u.KeepAlive {
		if p.state.applyTime(u.ControlTime, now) {
			p.publish(ctx)
		}
		return nil
	}
	state := p.state
	if !p.framed && (u.MapSessionHandle == "" || u.MapSessionHandle != state.handle) {
		state = &mapState{locked: state.locked, before: p.Netmap.Get()} // a new session begins from nothing (CTL-33)
	}
	p.cleanMessages(u)
	if err := state.apply(u, now); err != nil {
		return err
	}
	p.state = state
	p.warn(u)
	p.framed, p.unknown = true, 0
	p.publish(ctx)
	p.followLock(ctx)
	return nil
}

// publish shows the netmap and tells session when our key ends, or lives again.
// The status follows the netmap: who sees it running finds it there. A server may
// tell of the new key that session registers before it answers session.
func (p *poller) publish(ctx context.Context) {
	m := p.judged(p.state.current)
	if p.Netmap.Get() != m {
		p.Netmap.Store(m)
	}
	p.status.connected, p.status.err, p.status.self = true, nil, m.Self
	p.polls.Store(p.status)
	if m.Self.Expired == p.expired || m.Self.Key != p.key {
		return
	}
	p.expired = m.Self.Expired
	if p.expired {
		p.log.Warn("node key has expired; a new login is needed")
		p.post(ctx, &expiredCommand{})
	} else if !p.asking.Load() {
		p.post(ctx, &renewedCommand{}) // else session looks by itself: an answer under way must not be lost
	}
}

// event does what a frame asks for beside the netmap (CTL-42, CTL-43).
func (p *poller) event(u *update) {
	if u.PingRequest != nil {
		p.pings.answer(u.PingRequest)
	}
	if u.ControlDialPlan != nil {
		p.link.dialer.plan.Store(u.ControlDialPlan)
	}
	if u.PopBrowserURL != "" && u.PopBrowserURL != p.status.browser {
		if err := p.checkURL(u.PopBrowserURL); err != nil {
			p.log.Warn("control server asks to show a page that is not shown", "err", err)
			return
		}
		p.status.browser = u.PopBrowserURL
		p.polls.Store(p.status)
	}
}

// cleanMessages drops links that must not be shown.
func (p *poller) cleanMessages(u *update) {
	for _, m := range u.DisplayMessages {
		if m != nil && m.PrimaryAction != nil && p.checkURL(m.PrimaryAction.URL) != nil {
			m.PrimaryAction = nil
		}
	}
}

// warn says what an operator should know of a frame.
func (p *poller) warn(u *update) {
	lock := u.TKAInfo
	switch {
	case lock != nil && lock.Disabled && p.state.locked && p.lock.judge == nil:
		p.log.Warn("control server says that tailnet lock is off, which this node cannot verify: it stays on until the node starts again")
	case lock != nil && !lock.Disabled && !p.wasLocked():
		p.log.Warn("tailnet lock is on; until its authority is known this node connects to no peer")
	}
	if u.Debug != nil && u.Debug.Exit != nil {
		p.log.Warn("control server asks this process to exit; it does not")
	}
}

func (p *poller) wasLocked() bool {
	m := p.Netmap.Get()
	return m != nil && m.LockEnabled
}

// ended shows why a poll has ended, and has the node registered anew when the
// server does not know it.
func (p *poller) ended(err error, retry time.Duration) {
	if errors.Is(err, errLoginChanged) {
		return
	}
	p.log.Debug("map stream has ended", "err", err, "retry", retry)
	p.status = p.status.disconnected(err)
	p.polls.Store(p.status)
	if !errors.Is(err, ErrNodeUnknown) {
		p.unknown = 0
		return
	}
	if p.unknown++; p.unknown >= unknownLimit {
		p.unknown = 0
		p.post(p.group.Context(), &unknownCommand{})
	}
}

// read makes the request and hands its frames over, one by one.
func (p *poller) read(ctx context.Context, req *MapRequest, updates chan<- *update) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	dog := time.AfterFunc(watchdog, func() { cancel(errSilent) }) // covers the headers, too (CTL-32)
	defer func() {
		dog.Stop()
		if cause := context.Cause(ctx); cause != nil && err != nil {
			err = cause
		}
		cancel(nil)
	}()
	resp, err := p.send(ctx, http.MethodPost, PathMap, req, req.NodeKey)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	frames := newFrameReader(resp.Body, req.Compress)
	for {
		u, err := p.readFrame(frames)
		if err != nil {
			return err
		}
		dog.Stop()
		select {
		case updates <- u:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := debugSleep(ctx, u.Debug); err != nil {
			return err
		}
		dog.Reset(watchdog)
	}
}

func (p *poller) readFrame(frames *frameReader) (*update, error) {
	body, err := frames.next()
	if err != nil {
		return nil, err
	}
	u, err := decodeUpdate(body, p.Netmap.Get())
	if err != nil {
		return nil, err
	}
	return u, frames.finish()
}

// debugSleep waits as a server has asked, within bounds (CTL-42).
func debugSleep(ctx context.Context, d *Debug) error {
	if d == nil || !(d.SleepSeconds > 0) {
		return nil
	}
	return actor.Sleep(ctx, time.Duration(min(d.SleepSeconds, maxSleep.Seconds())*float64(time.Second)))
}
