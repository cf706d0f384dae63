package devnet

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/seed94491740/tsnode/host"
)

// Defaults of a Config.
const (
	DefaultDomain = "tailnet.test"
	DefaultListen = "127.0.0.1:0"

	// DefaultEphemeralTimeout is how long an ephemeral node may be away before
	// it is forgotten (control.md section 14.1: Headscale's default).
	DefaultEphemeralTimeout = 2 * time.Minute

	// DefaultUser owns the nodes of auth keys and logins that name no user.
	DefaultUser = "dev"
)

// maxRelays is how many regions a tailnet may have; each has two sockets.
const maxRelays = 16

// relayQueue is how many packets of each kind a relay keeps for one client. A
// loopback sender is faster than any real one, so it is more than the usual 32
// (DERP-52).
const relayQueue = 256

// A Config says what tailnet to start. The zero Config lets everybody reach
// everybody.
type Config struct {
	Policy   []byte // HuJSON, see SetPolicy; empty: all may reach all
	StateDir string // folder that keeps members and keys; empty: in memory
	Domain   string // DNS suffix; default DefaultDomain

	// Listen is the address of the control server; default DefaultListen. The
	// relays are at the same IP address. With an address that is not loopback
	// others on the network can join, too.
	Listen string

	// HostName is the DNS name under which nodes find the control server and the
	// relays; default: the IP address that they have reached. Behind a NAT64 only a
	// name is reached.
	HostName string

	TLS       bool // control server speaks https, with the certificate in Roots
	Relays    int  // DERP regions; 0 means one, negative none
	Headscale bool // behave as Headscale where it differs (control.md section 16)

	KeyLifetime      time.Duration // of node keys without tags; 0: they never expire
	EphemeralTimeout time.Duration // default DefaultEphemeralTimeout
	Gather           time.Duration // each node hears of changes at most this often: thousands cost less; 0: at once
	NeedApproval     bool          // new nodes wait for ApproveNode; never with Headscale

	Network host.Network // where sockets come from; nil: the machine itself
	Logger  *slog.Logger // nil discards
}

// complete fills in defaults.
func (c *Config) complete() error {
	c.Domain = strings.ToLower(strings.Trim(cmp.Or(c.Domain, DefaultDomain), "."))
	c.Listen = cmp.Or(c.Listen, DefaultListen)
	c.EphemeralTimeout = cmp.Or(c.EphemeralTimeout, DefaultEphemeralTimeout)
	c.Relays = cmp.Or(c.Relays, 1)
	c.NeedApproval = c.NeedApproval && !c.Headscale
	if c.Network == nil {
		c.Network = host.OS{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Relays > maxRelays {
		return fmt.Errorf("devnet: %d relays: want at most %d", c.Relays, maxRelays)
	}
	if strings.Trim(c.Domain, nameLetters+".") != "" || strings.Contains(c.Domain, "..") {
		return fmt.Errorf("devnet: domain %q is no DNS suffix such as %s", c.Domain, DefaultDomain)
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return fmt.Errorf("devnet: listen address: %w: want HOST:PORT", err)
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
	User        string        // they belong to this user; default DefaultUser
	Lifetime    time.Duration // 0: the key does not expire
}

// Errors of a Net's methods; compare with errors.Is.
var (
	// ErrNoNode says that no member has that name.
	ErrNoNode = errors.New("no such node")

	// ErrNoLogin says that nobody waits at that login URL.
	ErrNoLogin = errors.New("no login waits at that URL")

	// ErrOffline says that the node has no map stream to be told something on.
	ErrOffline = errors.New("node has no map stream")

	// ErrClosed says that the tailnet has ended.
	ErrClosed = errors.New("devnet is closed")
)
