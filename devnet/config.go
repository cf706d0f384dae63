package devnet

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Defaults of a Config.
const (
	DefaultDomain = "tailnet.test"
	DefaultListen = "127.0.0.1:0"

	// DefaultEphemeralTimeout is how long an ephemeral node may be away before
	// it is forgotten (control.md section 14.1: Headscale's default).
	DefaultEphemeralTimeout = 2 * time.Minute
)

// A Config says what tailnet to start. The zero Config lets everybody reach
// everybody.
type Config struct {
	Policy   []byte // HuJSON; empty: all may reach all
	StateDir string // keeps members and keys; empty: in memory
	Domain   string // DNS suffix; default DefaultDomain
	Listen   string // address of the control server; default DefaultListen

	Relays           int           // DERP regions; 0 means one, -1 none
	KeyLifetime      time.Duration // of node keys; 0: they never expire
	EphemeralTimeout time.Duration // default DefaultEphemeralTimeout
	NeedApproval     bool          // new nodes wait for Approve, but with a preapproved key
	Headscale        bool          // behave as Headscale where it differs (control.md section 16)

	Logger *slog.Logger // nil discards
}

func (c *Config) complete() error {
	c.Domain = strings.ToLower(strings.Trim(cmp.Or(c.Domain, DefaultDomain), "."))
	c.Listen = cmp.Or(c.Listen, DefaultListen)
	c.EphemeralTimeout = cmp.Or(c.EphemeralTimeout, DefaultEphemeralTimeout)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Relays == 0 {
		c.Relays = 1
	}
	if c.Relays > maxRelays {
		return fmt.Errorf("devnet: %d relays: want at most %d", c.Relays, maxRelays)
	}
	if strings.ContainsAny(c.Domain, " /:") {
		return fmt.Errorf("devnet: domain %q is no DNS suffix", c.Domain)
	}
	return nil
}

// KeyOptions say what an auth key is good for. The zero value is a key for one
// node.
type KeyOptions struct {
	Reusable    bool
	Ephemeral   bool          // nodes that join with it are ephemeral
	Preapproved bool          // they need no approval
	Tags        []string      // they get these tags, each "tag:NAME"
	User        string        // they belong to this user; default "dev"
	Lifetime    time.Duration // 0: the key does not expire
}

// Errors of a Net's methods.
var (
	// ErrNoNode says that no member has that name.
	ErrNoNode = errors.New("devnet: no such node")

	// ErrNoLogin says that nobody waits at that login URL.
	ErrNoLogin = errors.New("devnet: no login waits at that URL")
)
