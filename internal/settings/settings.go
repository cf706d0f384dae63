// Package settings reads what an operator says about a node: a configuration
// file, the environment and the flags of the command line.
//
// One table has every setting. It makes the flags, knows the keys of the file and
// the variables of the environment, and is what doc/configuration.md lists. The
// environment beats the file, and flags beat the environment. The package reads
// nothing by itself: it takes the text of the file, the environment and parsed
// flags, and returns settings or what is wrong with them, each error with its
// place and the next step.
//
// What settings mean is for the command to say, which joins them with a node.
// Source of the variables: doc/protocol/node-services.md sections 17 and 18.
package settings

import (
	"net/netip"
	"time"
)

// Settings are what an operator says about a node.
type Settings struct {
	Identity
	Routes
	Forwards
	Proxies
	Device
	Endpoints
	Process

	// Warnings are what was understood but should be looked at, one line each.
	Warnings []string

	from map[string]string // by name of a setting: what has set it
	file map[string]said   // by name of a setting: what the file says, even if something else has set it
}

// A said is what a source says of a setting.
type said struct{ value, from string }

// From says what has set a setting, as in "--hostname", "TS_HOSTNAME" or
// "tsnode.hujson:3:5"; empty when it has its default.
func (s *Settings) From(name string) string { return s.from[name] }

// Identity is who the node is, and where it joins.
type Identity struct {
	Hostname    string
	AuthKey     string // file:PATH, - for standard input, or the key
	LoginServer string // URL
	StateDir    string // folder; empty: see State
	State       string // mem:, kube:SECRET, or the path of a file; empty: a file in StateDir, else mem:
	Ephemeral   bool
	Tags        []string
	Port        uint16 // UDP; 0: any
	MemoryLimit int64  // bytes; 0: none
}

// Values of State that are not the path of a file (SVC-139): one keeps nothing, one
// begins the name of a Kubernetes Secret.
const (
	StateMemory = "mem:"
	StateKube   = "kube:"
)

// JSON is the value of LogFormat for one JSON object on each line.
const JSON = "json"

// InMemory reports whether the node's keys are kept nowhere.
func (s *Settings) InMemory() bool {
	return s.State == StateMemory || s.State == "" && s.StateDir == ""
}

// Routes are what the node takes of its tailnet, and offers to it.
type Routes struct {
	AcceptRoutes           bool
	AcceptRoutesFrom       []string
	ExitNode               string
	ExitNodeAllowLANAccess bool
	AdvertiseRoutes        []netip.Prefix
	AdvertiseExitNode      bool
	ShieldsUp              bool
	AcceptDNS              bool
}

// Forwards are the ports that the node forwards, as ssh writes them.
type Forwards struct {
	Local                []string // into the tailnet
	Remote               []string // from the tailnet
	Stdio                string   // host:port that standard input and output are joined with
	ExitOnForwardFailure bool
}

// Proxies are the proxies into the tailnet.
type Proxies struct {
	SOCKS5    []string // addresses to listen on
	HTTPProxy []string // addresses to listen on; one that is of SOCKS5, too, is shared

	ProxyAuth        string   // file:PATH with user:password, or these; empty: none
	ProxyAllow       []string // destinations; empty: all
	ProxyTailnetOnly bool

	ProxyAllowLoopback bool // may reach this machine's loopback interface and link (SVC-167)
	ProxyOpen          bool // may listen beyond loopback without ProxyAuth (SVC-168)
}

// Device is where the packets of the tailnet go.
type Device struct {
	TUN string // name of a TUN device; empty: the process's own stack
}

// Endpoints are where the process itself can be asked.
type Endpoints struct {
	Socket   string // path of the unix socket; empty: none
	Operator string // name or number of the user who may change the node by the socket, beside ours and root
	Health   string // address of /livez, /readyz and /healthz; empty: none
	Metrics  string // address of /metrics; the same as Health shares its port
}

// Process is how the process runs, logs and ends.
type Process struct {
	Timeout      time.Duration // until the node must run; 0: for ever
	WaitForLogin bool          // when it is logged out, in place of ending (SVC-158)
	Drain        time.Duration // for connections to end, once the process is told to
	LogFormat    string        // text or JSON
	Verbose      bool
}
