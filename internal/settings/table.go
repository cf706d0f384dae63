package settings

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/seed94491740/tsnode/proxy"
)

// A Group is a set of settings that a command may have.
type Group uint8

// Groups of settings.
const (
	Node  Group = 1 << iota // who the node is, and where it joins
	Route                   // what it takes of its tailnet, and offers to it
	Serve                   // what a node in the foreground does with its connections, and how it ends
)

// A Setting is one thing that an operator may say.
type Setting struct {
	Name  string // of the flag, and of the key in the file
	Short string // one letter; empty: none
	Env   string // variable of the environment
	Group Group
	Live  bool   // a change in the file holds once it is read again, without a restart
	Usage string // one line

	secret   bool // its value is not shown
	flagOnly bool // neither in the file nor in the environment
	value    func(*Settings) pflag.Value
}

// table has every setting, in the order of the documentation.
var table = []Setting{
	{Name: "hostname", Env: "TS_HOSTNAME", Group: Node, Live: true, Usage: "name of the node (default: this machine's)", value: checked(func(s *Settings) *string { return &s.Hostname }, parseHostname)},
	{Name: "auth-key", Env: "TS_AUTHKEY", Group: Node, secret: true, Usage: "auth key: file:PATH, - for standard input, or the key itself", value: text(func(s *Settings) *string { return &s.AuthKey })},
	{Name: "login-server", Group: Node, Usage: "URL of the control server", value: checked(func(s *Settings) *string { return &s.LoginServer }, parseServer)},
	{Name: "state-dir", Env: "TS_STATE_DIR", Group: Node, Usage: "folder that keeps the node's keys; empty: in memory", value: text(func(s *Settings) *string { return &s.StateDir })},
	{Name: "state", Group: Node, Usage: "where the node's keys are kept: mem:, kube:SECRET or the path of a file (default: in --state-dir)", value: checked(func(s *Settings) *string { return &s.State }, parseState)},
	{Name: "ephemeral", Group: Node, Usage: "let the tailnet forget the node when it ends (default: true when its keys are in memory)", value: onOff(func(s *Settings) *bool { return &s.Ephemeral })},
	{Name: "advertise-tags", Group: Node, Usage: "tags to ask for, as in tag:web,tag:prod", value: several(func(s *Settings) *[]string { return &s.Tags }, parseTag)},
	{Name: "port", Group: Node, Usage: "UDP port for direct paths (default: any)", value: of(kindPort, func(s *Settings) *uint16 { return &s.Port }, parsePort)},
	{Name: "memory-limit", Group: Node, Usage: "bound the memory of connections and packets, as in 64MiB; 12MiB at least", value: of(kindSize, func(s *Settings) *int64 { return &s.MemoryLimit }, parseLimit)},
	{Name: "verbose", Short: "v", Group: Node, Live: true, Usage: "log more", value: onOff(func(s *Settings) *bool { return &s.Verbose })},

	{Name: "accept-routes", Group: Route, Live: true, Usage: "use routes to networks behind other nodes; =NET,NODE,… uses only those", value: func(s *Settings) pflag.Value { return routeChoice{&s.AcceptRoutes, &s.AcceptRoutesFrom} }},
	{Name: "accept-dns", Env: "TS_ACCEPT_DNS", Group: Route, Live: true, Usage: "use the tailnet's search domains, split DNS and resolvers", value: onOff(func(s *Settings) *bool { return &s.AcceptDNS })},
	{Name: "exit-node", Group: Route, Live: true, Usage: "node that traffic to the Internet goes through: name, IP address, ID or auto", value: text(func(s *Settings) *string { return &s.ExitNode })},
	{Name: "exit-node-allow-lan-access", Group: Route, Live: true, Usage: "reach this machine's own networks past the exit node", value: onOff(func(s *Settings) *bool { return &s.ExitNodeAllowLANAccess })},
	{Name: "advertise-routes", Env: "TS_ROUTES", Group: Route, Live: true, Usage: "networks to route to, as in 10.0.0.0/8,192.168.1.0/24", value: several(func(s *Settings) *[]netip.Prefix { return &s.AdvertiseRoutes }, parsePrefix)},
	{Name: "advertise-exit-node", Group: Route, Live: true, Usage: "offer to route to the Internet", value: onOff(func(s *Settings) *bool { return &s.AdvertiseExitNode })},
	{Name: "shields-up", Group: Route, Live: true, Usage: "let nobody begin a connection to this node", value: onOff(func(s *Settings) *bool { return &s.ShieldsUp })},

	{Name: "local", Short: "L", Group: Serve, Live: true, Usage: "forward [bind:]port:host:hostport into the tailnet", value: forwards(func(s *Settings) *[]string { return &s.Local }, proxy.ParseLocal)},
	{Name: "remote", Short: "R", Group: Serve, Live: true, Usage: "forward port:host:hostport from the tailnet", value: forwards(func(s *Settings) *[]string { return &s.Remote }, proxy.ParseRemote)},
	{Name: "stdio", Short: "W", Group: Serve, flagOnly: true, Usage: "join standard input and output with host:port of the tailnet, forward nothing else, and end with that connection", value: checked(func(s *Settings) *string { return &s.Stdio }, parseAddress)},
	{Name: "exit-on-forward-failure", Group: Serve, Usage: "end when a forward cannot listen, instead of going on without it", value: onOff(func(s *Settings) *bool { return &s.ExitOnForwardFailure })},

	{Name: "socks5", Short: "D", Env: "TS_SOCKS5_SERVER", Group: Serve, Usage: "SOCKS5 proxy into the tailnet on [bind:]port or unix:PATH; on loopback unless bind says otherwise", value: listeners(func(s *Settings) *[]string { return &s.SOCKS5 }, proxy.SOCKS)},
	{Name: "http-proxy", Env: "TS_OUTBOUND_HTTP_PROXY_LISTEN", Group: Serve, Usage: "HTTP proxy into the tailnet; may share the address of --socks5", value: listeners(func(s *Settings) *[]string { return &s.HTTPProxy }, proxy.HTTP)},
	{Name: "proxy-auth", Group: Serve, secret: true, Usage: "what the proxies ask for: file:PATH with user:password", value: text(func(s *Settings) *string { return &s.ProxyAuth })},
	{Name: "proxy-allow", Group: Serve, Usage: "destinations that the proxies reach, as in web:80,10.0.0.0/8,*.example.org (default: all)", value: several(func(s *Settings) *[]string { return &s.ProxyAllow }, parseDestination)},
	{Name: "proxy-tailnet-only", Group: Serve, Usage: "keep the proxies from what is not on the tailnet", value: onOff(func(s *Settings) *bool { return &s.ProxyTailnetOnly })},
	{Name: "proxy-allow-loopback", Group: Serve, Usage: "let the proxies reach this machine's loopback interface and link", value: onOff(func(s *Settings) *bool { return &s.ProxyAllowLoopback })},
	{Name: "proxy-open", Group: Serve, Usage: "let the proxies listen beyond loopback without --proxy-auth", value: onOff(func(s *Settings) *bool { return &s.ProxyOpen })},

	{Name: "tun", Group: Serve, Usage: "put the tailnet on a TUN device of this name, for all programs of this machine (Linux)", value: text(func(s *Settings) *string { return &s.TUN })},

	{Name: "socket", Env: "TS_SOCKET", Group: Serve, Usage: "unix socket where other commands ask this node", value: text(func(s *Settings) *string { return &s.Socket })},
	{Name: "operator", Group: Serve, Usage: "user who may change the node by its socket, beside yours and root", value: text(func(s *Settings) *string { return &s.Operator })},
	{Name: "health", Group: Serve, Usage: "[IP]:port of /livez, /readyz and /healthz", value: checked(func(s *Settings) *string { return &s.Health }, parseListen)},
	{Name: "metrics", Group: Serve, Usage: "[IP]:port of /metrics; may be that of --health", value: checked(func(s *Settings) *string { return &s.Metrics }, parseListen)},

	{Name: "timeout", Env: "TS_BOOT_TIMEOUT", Group: Serve, Usage: "end when the node is not on its tailnet after so long; 0: wait", value: of(kindDuration, func(s *Settings) *time.Duration { return &s.Timeout }, parseDuration)},
	{Name: "wait-for-login", Group: Serve, Live: true, Usage: "when the node is logged out or its key expires, wait for a login instead of ending", value: onOff(func(s *Settings) *bool { return &s.WaitForLogin })},
	{Name: "drain", Group: Serve, Live: true, Usage: "how long open connections may go on once the process is told to end", value: of(kindDuration, func(s *Settings) *time.Duration { return &s.Drain }, parseDuration)},
	{Name: "log-format", Group: Serve, Usage: "text or json", value: checked(func(s *Settings) *string { return &s.LogFormat }, oneOf("text", JSON))},
}

// envPrefix begins the variables of those settings for which the container image
// of the reference has none.
const envPrefix = "TSNODE_"

// Table returns every setting.
func Table() []Setting {
	t := slices.Clone(table)
	for i := range t {
		if t[i].Env == "" && !t[i].flagOnly {
			t[i].Env = envPrefix + strings.ToUpper(strings.ReplaceAll(t[i].Name, "-", "_"))
		}
	}
	return t
}

// Defaults returns what holds where nothing is said.
func Defaults() *Settings {
	return &Settings{
		Identity: Identity{LoginServer: "https://controlplane.tailscale.com"},
		Routes:   Routes{AcceptDNS: true},
		Process:  Process{Drain: 10 * time.Second, LogFormat: "text"}, // SVC-175
		from:     make(map[string]string),
		file:     make(map[string]said),
	}
}

// AddFlags defines the flags of all settings in groups. What they are given is for
// Sources to read, what is wrong with it, too.
func AddFlags(f *pflag.FlagSet, groups Group) {
	shown := Defaults()
	for _, s := range Table() {
		if s.Group&groups == 0 {
			continue
		}
		flag := f.VarPF(&givenFlag{Value: s.value(shown)}, s.Name, s.Short, s.Usage)
		switch flag.Value.Type() {
		case kindSwitch, kindRoutes:
			flag.NoOptDefVal = "true"
		}
		if s.Name == "auth-key" {
			f.Var(flag.Value, aliasAuthKey, "alias of --auth-key")
			f.Lookup(aliasAuthKey).Hidden = true
		}
	}
}

// aliasAuthKey is the name that the flag has in the reference's older versions.
const aliasAuthKey = "authkey"

// The makers of values: each binds a field.

func of[T any](kind string, field func(*Settings) *T, parse func(string) (T, error)) func(*Settings) pflag.Value {
	return func(s *Settings) pflag.Value { return scalar[T]{field(s), kind, parse} }
}

func text(field func(*Settings) *string) func(*Settings) pflag.Value {
	return of(kindText, field, anyText)
}

func checked(field func(*Settings) *string, parse func(string) (string, error)) func(*Settings) pflag.Value {
	return of(kindText, field, parse)
}

func onOff(field func(*Settings) *bool) func(*Settings) pflag.Value {
	return of(kindSwitch, field, parseSwitch)
}

func several[T any](field func(*Settings) *[]T, parse func(string) (T, error)) func(*Settings) pflag.Value {
	return func(s *Settings) pflag.Value { return &list[T]{to: field(s), parse: parse, commas: true} }
}

// listeners binds the addresses of proxies of one kind.
func listeners(field func(*Settings) *[]string, kind proxy.Kind) func(*Settings) pflag.Value {
	parse := func(text string) (string, error) {
		_, err := proxy.ParseProxy(kind, text)
		return text, err
	}
	return func(s *Settings) pflag.Value { return &list[string]{to: field(s), parse: parse, single: true} }
}

// forwards binds a list of forwards, each of which check must accept.
func forwards[T any](field func(*Settings) *[]string, check func(string) (T, error)) func(*Settings) pflag.Value {
	parse := func(text string) (string, error) {
		_, err := check(text)
		return text, err
	}
	return func(s *Settings) pflag.Value { return &list[string]{to: field(s), parse: parse} }
}
