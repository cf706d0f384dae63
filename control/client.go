package control

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"sync/atomic"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// A Client keeps a node registered with its control server and its netmap up
// to date. Its methods may be called from any goroutine.
type Client struct {
	// Netmap is the newest netmap; nil before the first one and after a logout.
	Netmap *actor.Cell[*netmap.Netmap]

	// Status is the newest status.
	Status *actor.Cell[Status]

	// NodeKey is the node key in force: the one that the server has accepted and
	// Keys has kept. Zero before the first login and after a logout.
	NodeKey *actor.Cell[key.NodePrivate]

	cfg  Config
	url  *url.URL
	log  *slog.Logger
	link *link

	auth  actor.Cell[authStatus] // by session
	polls actor.Cell[pollStatus] // by stream
	login actor.Cell[login]      // by session: what stream and report work for

	joinKey  actor.Cell[joinKey] // by session: the newest one that has worked, at first Config.AuthKey
	lockHead actor.Cell[string]  // by stream: of the authority in force; empty: none
	asking   atomic.Bool         // by session: a request is under way that may change the key in force

	commands chan command // to session
	pulses   struct{ client, session actor.Pulse }
}

// New returns a Client. It does nothing before Serve.
func New(cfg Config) (*Client, error) {
	u, err := cfg.check()
	if err != nil {
		return nil, err
	}
	k, err := parseJoinKey(cfg.AuthKey, cfg.Tags)
	if err != nil {
		return nil, fmt.Errorf("control: auth key: %w", err)
	}
	c := &Client{
		Netmap:  new(actor.Cell[*netmap.Netmap]),
		Status:  new(actor.Cell[Status]),
		NodeKey: new(actor.Cell[key.NodePrivate]),
		cfg:     cfg, url: u, log: cfg.Logger,
		commands: make(chan command, 8),
	}
	k.warn(c.log)
	c.joinKey.Store(k)
	c.link = newLink(newDialer(&c.cfg, u))
	c.pulses.client, c.pulses.session = actor.NewPulse("control.Client"), actor.NewPulse("control.Client: session")
	return c, nil
}

func (*Client) String() string { return "control.Client" }

// Alive returns once the loops of Serve have turned; the error names the one that
// has not by the end of ctx. Whether the server answers is another matter.
func (c *Client) Alive(ctx context.Context) error {
	if err := c.pulses.client.Ask(ctx); err != nil || c.cfg.Paused.Get() {
		return err
	}
	return c.pulses.session.Ask(ctx)
}

// Serve runs the client until ctx ends. An error that is an actor.FatalError is
// one that no retry mends: it wraps ErrBadAuthKey, ErrRefused, ErrNodeDeleted or
// ErrUnsupportedVersion, and Status.Err has it, too.
//
// Serve does not log out: an ephemeral node calls Logout first.
func (c *Client) Serve(ctx context.Context) error {
	return actor.Run(ctx, func(ctx context.Context, _ *actor.Group) error {
		defer c.mergeStatus() // why it ends, if that is an error
		for {
			paused, changed := c.cfg.Paused.Load()
			serve := c.serveUntil
			if paused {
				c.polls.Store(c.polls.Get().disconnected(nil))
				serve = c.follow
			}
			if err := serve(ctx, changed); err != nil {
				return err
			}
		}
	})
}

// serveUntil runs the actors until ch is closed or one of them fails (CTL-63).
func (c *Client) serveUntil(ctx context.Context, ch <-chan struct{}) error {
	c.link.begin()
	defer c.link.end()
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		g.Go((&session{c}).Serve)
		g.Go((&stream{c}).Serve)
		g.Go((&report{c}).Serve)
		return c.follow(ctx, ch)
	})
}

// follow makes Status of what session and stream know, and has the link follow
// the network, until ch is closed.
func (c *Client) follow(ctx context.Context, ch <-chan struct{}) error {
	_, networkChanged := c.link.network.Load()
	for {
		authChanged, pollChanged := c.mergeStatus()
		select {
		case <-ch:
			return nil
		case <-networkChanged:
			_, networkChanged = c.link.network.Load()
			c.link.renew()
		case <-authChanged:
		case <-pollChanged:
		case <-c.pulses.client.Asked():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// mergeStatus publishes what session and stream know; the channels tell when
// they know more.
func (c *Client) mergeStatus() (authChanged, pollChanged <-chan struct{}) {
	auth, authChanged := c.auth.Load()
	poll, pollChanged := c.polls.Load()
	c.Status.Store(merge(auth, poll))
	return authChanged, pollChanged
}

// Login asks for a new login: it gives up one that waits for a person, renews
// the key of a node that is logged in, and starts again after Logout or a
// refusal.
//
// With an auth key or an OAuth client secret it returns when the server has
// answered. Once that has worked it takes the place of Config.AuthKey; while it
// has not, what was in force stays so. Without one, the login URL appears in
// Status.
func (c *Client) Login(ctx context.Context, authKey string) error {
	if authKey == "" {
		return c.post(ctx, &loginCommand{})
	}
	k, err := parseJoinKey(authKey, c.cfg.Tags)
	if err != nil {
		return fmt.Errorf("login: auth key: %w", err)
	}
	k.warn(c.log)
	done := make(chan error, 1)
	if err := c.post(ctx, &loginCommand{attempt: &attempt{given: ctx, key: k, done: done}}); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Logout tells the server to expire the node key, forgets it, and stops. It
// returns when the server has answered. The Client must be serving.
func (c *Client) Logout(ctx context.Context) error {
	done := make(chan error, 1)
	if err := c.post(ctx, &logoutCommand{ctx, done}); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// NetworkChanged drops the connection to the server, because the network it
// was made on may be gone; it is made anew at once (CTL-64).
func (c *Client) NetworkChanged() { c.link.networkChanged() }

func (c *Client) post(ctx context.Context, m command) error {
	select {
	case c.commands <- m:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
