package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
)

// A session registers this node and decides which node key is in force.
type session struct{ *Client }

// A login is what stream and report work for. A new generation with the same
// key is a new registration of it.
type login struct {
	key        key.NodePrivate // zero: nobody is logged in
	generation int
}

// An authStatus is what session tells about itself.
type authStatus struct {
	url       string // a person must visit it
	loggedIn  bool   // the key in force is registered
	loggedOut bool   // by Logout
	err       error
}

// A goal is what session works for. It ends by itself or when a command sets
// another one; what a superseded goal would have brought is discarded (CTL-65).
// One that brings no next goal stands until a command comes. The
// credentials are those in force; nobody changes them.
type goal interface {
	pursue(ctx context.Context, s *session, creds *Credentials) (outcome, error)
}

// An outcome is what a goal has brought.
type outcome struct {
	creds *Credentials // in force from now on
	next  goal
}

// Serve works for one goal after another. It begins with a registration of the
// stored key (CTL-22), unless that was done before a restart of session.
func (s *session) Serve(ctx context.Context) error {
	loaded, err := s.cfg.Keys.Load(ctx)
	if err != nil {
		return s.fail(fmt.Errorf("load the node key: %w", err))
	}
	creds := &loaded
	s.NodeKey.Store(creds.Node)
	var g goal = &register{}
	if k := s.login.Get().key; !k.IsZero() && k.Equal(creds.Node) {
		g = &idle{resumed: true}
	}
	for {
		got, err := s.work(ctx, g, creds)
		if err != nil {
			return err
		}
		creds, g = got.creds, got.next
	}
}

// fail ends the whole node with an error that no retry mends.
func (s *session) fail(err error) error {
	s.auth.Store(authStatus{err: err})
	return actor.Fatal(err)
}

// work runs a goal as a child until it ends or a command sets another. What the
// goal has adopted stays, even if a command came at the same time.
func (s *session) work(ctx context.Context, g goal, creds *Credentials) (got outcome, err error) {
	got.creds = creds
	var next goal
	err = actor.Run(ctx, func(ctx context.Context, children *actor.Group) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel() // the group waits for the child
		done := make(chan error, 1)
		children.Go(func(context.Context) error {
			result, err := g.pursue(ctx, s, creds)
			if err == nil {
				got = result
			}
			done <- err
			return nil
		})
		for {
			select {
			case <-s.pulses.session.Asked():
			case m := <-s.commands:
				if next = m.goal(g); next != nil {
					return nil
				}
			case err := <-done:
				if err != nil || got.next != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	if r, ok := g.(*register); ok && (next != nil || err != nil) {
		r.attempt.end(cmp.Or(err, errSuperseded))
	}
	if next != nil {
		got.next = next
	}
	return got, err
}

// adopt keeps credentials that the server has accepted, even if the end has
// come meanwhile.
func (s *session) adopt(ctx context.Context, now *Credentials) error {
	if err := s.cfg.Keys.Save(context.WithoutCancel(ctx), *now); err != nil {
		return s.fail(fmt.Errorf("save the node key: %w", err))
	}
	s.NodeKey.Store(now.Node)
	return nil
}

// idle waits for a command. The others work for the key in force.
type idle struct {
	loggedOut bool
	resumed   bool // nothing has changed for the others, unless the key has
}

// pursue looks for itself at what commands tell only once: one that came at the
// end of another goal may have had no effect.
func (i *idle) pursue(_ context.Context, s *session, creds *Credentials) (outcome, error) {
	l := s.login.Get()
	same := i.resumed && l.key.Equal(creds.Node)
	if same && !i.loggedOut && s.expired(creds) {
		return outcome{creds, &register{regen: true, cause: ErrKeyExpired}}, nil
	}
	s.auth.Store(authStatus{loggedIn: !i.loggedOut, loggedOut: i.loggedOut})
	switch {
	case i.loggedOut:
		s.login.Store(login{generation: l.generation + 1})
	case !same:
		s.login.Store(login{creds.Node, l.generation + 1})
	}
	return outcome{creds, nil}, nil
}

// expired reports whether the server shows the key in force as expired.
func (s *session) expired(creds *Credentials) bool {
	self := s.polls.Get().self
	return self != nil && self.Expired && self.Key == creds.Node.Public()
}

// register gets a key accepted: the one in force, or with regen a new one.
type register struct {
	regen   bool
	cause   error    // ErrKeyExpired or ErrNodeDeleted, if that is why
	attempt *attempt // what it is for, if Login came with a key of its own
}

func (g *register) pursue(ctx context.Context, s *session, creds *Credentials) (outcome, error) {
	life := ctx
	r := s.newRegistration(creds, s.joinKey.Get(), g.regen)
	if a := g.attempt; a != nil {
		r.joinKey, r.unattended = a.key, true
		limited, cancel := until(ctx, a.given.Done(), context.DeadlineExceeded)
		defer cancel()
		ctx = limited
	}
	r.problem = g.cause
	s.auth.Store(authStatus{err: r.problem, loggedIn: s.auth.Get().loggedIn})
	defer s.asking.Store(false)
	for {
		s.asking.Store(r.followup == "")
		if g.cause == ErrKeyExpired && g.attempt == nil && s.lives(creds) {
			return outcome{creds, &idle{resumed: true}}, nil
		}
		resp := new(RegisterResponse)
		next := s.ask(ctx, r, resp)
		s.asking.Store(false)
		switch {
		case life.Err() != nil:
			return outcome{creds, g}, life.Err()
		case next.done:
			s.log.Info("registered with the control server", "node", r.nodeKey().Public(), "user", resp.Login.LoginName)
			now := r.credentials(resp)
			return outcome{now, &idle{}}, s.accepted(ctx, now, g.attempt)
		case next.fatal:
			g.attempt.end(next.err)
			return outcome{creds, g}, s.fail(because(g.cause, next.err))
		case next.over, ctx.Err() != nil:
			g.attempt.end(cmp.Or(next.err, ctx.Err()))
			return outcome{creds, g.attempt.back}, nil
		}
		s.publish(next)
		if err := actor.Sleep(ctx, next.wait); err != nil && life.Err() != nil {
			return outcome{creds, g}, err
		}
	}
}

// ask makes one request of a registration, and before it an auth key if that
// takes one.
func (s *session) ask(ctx context.Context, r *registration, resp *RegisterResponse) step {
	if r.wantsKey() {
		k, err := s.mint(ctx, r.secret)
		if err != nil {
			return r.onMintError(r.hideIn(err))
		}
		r.authKey = k
	}
	err := s.call(ctx, http.MethodPost, PathRegister, r.request(s.hostinfo()), resp, registerHint(r)...)
	return r.next(resp, r.hideIn(err))
}

// accepted keeps what a registration has brought.
func (s *session) accepted(ctx context.Context, now *Credentials, a *attempt) error {
	err := s.adopt(ctx, now)
	if a != nil {
		s.joinKey.Store(a.key)
		a.end(err)
	}
	return err
}

// lives reports whether the server shows the key in force, and not as expired.
func (s *session) lives(creds *Credentials) bool {
	poll := s.polls.Get()
	return poll.connected && !poll.self.Expired && poll.self.Key == creds.Node.Public()
}

// because puts what has led to an error before it.
func because(cause, err error) error {
	if cause == nil || errors.Is(err, cause) {
		return err
	}
	return fmt.Errorf("%w; then: %w", cause, err)
}

func (s *session) newRegistration(creds *Credentials, k joinKey, regen bool) *registration {
	r := newRegistration(creds, k, regen)
	r.ephemeral, r.checkURL, r.lock = s.cfg.Ephemeral, s.checkURL, s.cfg.LockKey
	return r
}

// registerHint names the old and the new key to load balancers, in this order.
func registerHint(r *registration) []key.NodePublic {
	if r.candidate.IsZero() {
		return []key.NodePublic{r.creds.Node.Public()}
	}
	return []key.NodePublic{r.creds.Node.Public(), r.candidate.Public()}
}

// publish shows how a registration stands. While it goes on, an old login stays
// what it was. The URL is a secret of sorts: never at Info (CTL-68).
func (s *session) publish(next step) {
	before := s.auth.Get()
	s.auth.Store(authStatus{url: next.url, err: next.err, loggedIn: before.loggedIn})
	switch {
	case next.url != "" && next.url != before.url:
		s.log.Info("a person must log in; the URL is in the status")
	case next.err != nil && (before.err == nil || before.err.Error() != next.err.Error()):
		s.log.Warn("registration with the control server has failed", "err", next.err, "retry", next.wait)
	}
}

// logout makes the server expire the key in force, then forgets it (CTL-26).
type logout struct{ logoutCommand }

func (g *logout) pursue(ctx context.Context, s *session, creds *Credentials) (outcome, error) {
	ctx, cancel := until(ctx, g.given.Done(), context.DeadlineExceeded)
	defer cancel()
	s.login.Store(login{generation: s.login.Get().generation + 1})
	if err := s.expireKey(ctx, creds); err != nil {
		g.done <- err
		s.log.Warn("logout has failed; the node stays logged in", "err", err)
		return outcome{creds, &register{}}, nil
	}
	err := s.adopt(ctx, new(Credentials))
	g.done <- err
	return outcome{new(Credentials), &idle{loggedOut: true}}, err
}

// expireKey asks until there is an answer. The answer may say that the key has
// expired, which is what was asked for.
func (s *session) expireKey(ctx context.Context, creds *Credentials) error {
	if creds.Node.IsZero() {
		return nil
	}
	k := creds.Node.Public()
	req := &RegisterRequest{
		Version: CapabilityVersion, NodeKey: k, Expiry: logoutExpiry, Hostinfo: s.hostinfo(), Ephemeral: s.cfg.Ephemeral,
	}
	joined := s.joinKey.Get()
	if k := joined.authKey; k != "" {
		req.Auth = &RegisterAuth{AuthKey: k} // a server may want it of every request (section 7.4)
	}
	var backoff actor.Backoff
	for {
		var resp RegisterResponse
		err := s.call(ctx, http.MethodPost, PathRegister, req, &resp, k)
		switch {
		case err == nil && resp.Error != "":
			return fmt.Errorf("logout: %w: %q", ErrRefused, shorten([]byte(joined.hide(resp.Error))))
		case err == nil:
			return nil
		}
		if waitErr := backoff.Wait(ctx); waitErr != nil {
			return fmt.Errorf("logout: %w", errors.Join(joined.hideIn(err), context.Cause(ctx)))
		}
	}
}
