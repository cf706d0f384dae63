package control

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/netmap"
)

// A Config says which server a Client talks to, and as whom. URL, Network,
// Machine and Keys are required.
type Config struct {
	// URL is that of the control server, http or https. With http nothing
	// proves who the server is.
	URL string

	// Network makes all connections.
	Network host.Network

	// Resolve finds the server's addresses when the host's resolver cannot; nil
	// leaves it at that (control.md section 3.4).
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)

	// Proxy chooses the proxy of a connection, as http.Transport.Proxy does; nil
	// means none.
	Proxy func(*http.Request) (*url.URL, error)

	// Headers are added to every HTTP request that is not inside of the encrypted
	// connection: for what stands before the server. Their values are secret.
	Headers http.Header

	// Roots are the certificate authorities trusted for https; nil means the
	// system's.
	Roots *x509.CertPool

	// Logger takes the log; nil discards it.
	Logger *slog.Logger

	Machine   key.MachinePrivate // of the installation
	Keys      Keys               // node keys
	Lock      LockStore          // what tailnet lock has proven; nil: it is forgotten with the process
	LockKey   key.LockPrivate    // this node's own, for tailnet lock; zero: none
	Disco     key.DiscoPublic    // of this run of the node
	AuthKey   string             // joins without a person: an auth key or an OAuth client secret; empty means a person logs in
	Ephemeral bool               // ask the server to forget the node when it is gone
	Tags      []string           // tags to ask for, each "tag:NAME"

	// Hostinfo describes this node; NetInfo and RequestTags in it are filled in
	// by the Client. Nil means an empty one.
	Hostinfo *actor.Cell[Hostinfo]

	// Endpoints are where this node may be reached over UDP. Nil means nowhere.
	Endpoints *actor.Cell[[]Endpoint]

	// NetInfo is what is known of the network around; nil means nothing.
	NetInfo *actor.Cell[NetInfo]

	// Home is the home region. It takes the place of NetInfo's PreferredDERP
	// unless it is nil or holds 0.
	Home *actor.Cell[int]

	// Paused holds everything while it is true: no network is there, or the user
	// wants none of it. The netmap stays. Nil means never.
	Paused *actor.Cell[bool]

	// C2N answers requests of the server to this node, except /echo, which the
	// Client answers, and remote control, which it refuses. Nil refuses all.
	C2N http.Handler

	// Pinger measures the way to a peer for the server; nil leaves such requests
	// unanswered.
	Pinger Pinger
}

// An Endpoint is a UDP address of this node and how it was found.
type Endpoint struct {
	Addr netip.AddrPort
	Type EndpointType
}

// Credentials are what a login has given, and what the next start needs.
type Credentials struct {
	Node    key.NodePrivate    // the key in force; zero: not logged in
	OldNode key.NodePrivate    // the key it has replaced; zero: none
	User    netmap.UserProfile // who logged in, for display
}

// Keys is where credentials live. The Client calls it from one goroutine.
type Keys interface {
	// Load returns what Save has kept; zero Credentials when there is nothing.
	Load(context.Context) (Credentials, error)

	// Save keeps c. It is called before the server is told to use a key, never
	// before the server has accepted it; after a logout with zero Credentials.
	Save(context.Context, Credentials) error
}

// A Pinger measures the way to a peer.
type Pinger interface {
	// Ping sends one ping of a kind such as PingDisco to a peer's tailnet
	// address and waits for its answer.
	Ping(ctx context.Context, to netip.Addr, kind string) (PingResponse, error)
}

// check fills in defaults and returns the parsed URL.
func (c *Config) check() (*url.URL, error) {
	switch {
	case c.Network == nil:
		return nil, errors.New("control: Config.Network is not set")
	case c.Machine.IsZero():
		return nil, errors.New("control: Config.Machine is not set")
	case c.Keys == nil:
		return nil, errors.New("control: Config.Keys is not set")
	}
	u, err := url.Parse(strings.TrimRight(c.URL, "/"))
	switch {
	case err != nil:
		return nil, fmt.Errorf("control: URL: %w", err)
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return nil, fmt.Errorf("control: URL %q: want https://HOST or http://HOST", u.Redacted())
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("control: URL %q: want no user, query or fragment", u.Redacted())
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Hostinfo = orZero(c.Hostinfo)
	c.Endpoints = orZero(c.Endpoints)
	c.NetInfo = orZero(c.NetInfo)
	c.Home = orZero(c.Home)
	c.Paused = orZero(c.Paused)
	c.Tags = sortedTags(c.Tags)
	return u, nil
}

// orZero returns c, or a cell that holds the zero value for ever.
func orZero[T any](c *actor.Cell[T]) *actor.Cell[T] {
	if c == nil {
		return new(actor.Cell[T])
	}
	return c
}

// sortedTags returns the tags in order, each once (control.md section 10.1).
func sortedTags(tags []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(tags)))
}
