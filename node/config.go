package node

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"

	"github.com/seed94491740/tsnode/dataplane"
	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/state"
)

// DefaultControlURL is used when Node.ControlURL is empty.
const DefaultControlURL = "https://controlplane.tailscale.com"

// stateFile is the name of the state file in Node.Dir, as tsnet has it (SVC-138).
const stateFile = "tailscaled.state"

// maxHostname is the longest host name in bytes (RFC 1035 section 2.3.4).
const maxHostname = 63

// A settings is a Node's configuration with defaults filled in; nothing of it
// changes while the node lives.
type settings struct {
	hostname   string
	controlURL string
	authKey    string
	ephemeral  bool
	tags       []string
	port       uint16
	network    host.Network
	around     host.Network                                 // network for what may go into the TUN device
	tun        func(*slog.Logger) (dataplane.Device, error) // nil: netstack
	unmarked   bool                                         // network is the host's, and the packets of its sockets are told from others by nothing
	proxy      func(*http.Request) (*url.URL, error)
	headers    http.Header
	log        *slog.Logger
	userLog    func(format string, args ...any)
	store      state.Store
	closeStore bool // we have opened it
	loops      int  // outbound loops, and UDP sockets of a family
	seams      seams

	preferences Preferences // at the start

	memoryLimit int64 // bytes; 0 = none
	buffers     int64 // bytes of it for sockets
	held        int64 // bytes of it for packets that wait for those they have overtaken; 0 = as many as without
}

// settings checks the configuration, fills in defaults and opens the store.
func (n *Node) settings() (s settings, err error) {
	s = settings{
		authKey: strings.TrimSpace(n.AuthKey), ephemeral: n.Ephemeral, tags: n.AdvertiseTags, port: n.Port,
		network: n.Network, tun: n.TUN, proxy: n.Proxy, headers: n.Headers, log: n.logger(), userLog: n.UserLogf, store: n.Store,
		loops: cmp.Or(n.seams.loops, loopsFor(goruntime.GOMAXPROCS(0))), seams: n.seams,
	}
	if err := n.Check(); err != nil {
		return s, err
	}
	s.limitMemory(n.MemoryLimit)
	s.around = s.network
	if s.network == nil {
		s.network, s.around = n.underlay(), host.OS{}
		s.unmarked = s.network == host.Network(host.OS{})
	}
	if s.proxy == nil {
		s.proxy = http.ProxyFromEnvironment
	}
	if s.controlURL, err = checkControlURL(cmp.Or(n.ControlURL, DefaultControlURL)); err != nil {
		return s, err
	}
	if s.hostname, err = hostname(n.Hostname); err != nil {
		return s, err
	}
	s.preferences = n.preferences()
	return s, n.openStore(&s)
}

// Check returns all that is wrong with the values of the node's fields, for which
// Start would fail. It starts nothing.
func (n *Node) Check() error {
	_, err := checkControlURL(cmp.Or(n.ControlURL, DefaultControlURL))
	p := n.preferences()
	errs := []error{checkMemoryLimit(n.MemoryLimit), err, p.check()}
	for _, t := range n.AdvertiseTags {
		if !strings.HasPrefix(t, "tag:") || len(t) == len("tag:") {
			errs = append(errs, fmt.Errorf("tag %q: want tag:NAME", t))
		}
	}
	return errors.Join(errs...)
}

// loopsFor returns how many goroutines share what one can do for small loads:
// the loops that seal, and those that read UDP. On few cores one of each leaves
// the others to TCP and the program, and costs the least (WG-78, WG-79).
func loopsFor(cores int) int {
	const few, most = 3, 4
	if cores <= few {
		return 1
	}
	return min(cores/2, most)
}

// openStore chooses where state lives: Store, a file in Dir, or memory.
func (n *Node) openStore(s *settings) (err error) {
	switch {
	case s.store != nil:
		return nil
	case n.Dir != "":
		s.store, err = state.OpenFile(filepath.Join(n.Dir, stateFile))
		s.closeStore = true
		return err
	}
	s.store = state.NewMemory()
	if !s.ephemeral && n.Dir == "" {
		s.log.Debug("state is kept in memory: the tailnet will show a new node on every start", "set", "Dir, Store or Ephemeral")
	}
	return nil
}

func (s *settings) close() {
	if c, ok := s.store.(io.Closer); ok && s.closeStore {
		c.Close()
	}
}

func checkControlURL(text string) (string, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return "", fmt.Errorf("control URL: %w", err)
	case u.Scheme != "https" && u.Scheme != "http", u.Host == "":
		return "", fmt.Errorf("control URL %q: want https://HOST or http://HOST", text)
	case u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return "", fmt.Errorf("control URL %q: want no user, query or fragment", u.Redacted())
	}
	return strings.TrimSuffix(text, "/"), nil
}

// hostname returns the name to ask for: the configured one, or the host's.
func hostname(configured string) (string, error) {
	if configured != "" {
		if len(configured) > maxHostname || strings.ContainsAny(configured, " /:@\x00") {
			return "", fmt.Errorf("hostname %q: want at most %d letters, digits and hyphens", configured, maxHostname)
		}
		return configured, nil
	}
	h, err := os.Hostname()
	if err != nil || h == "" {
		return "tsnode", nil
	}
	h, _, _ = strings.Cut(h, ".")
	return h[:min(len(h), maxHostname)], nil
}

// logger returns Logger, or one that writes to Logf, or one that discards.
func (n *Node) logger() *slog.Logger {
	switch {
	case n.Logger != nil:
		return n.Logger
	case n.Logf != nil:
		return slog.New(slog.NewTextHandler(logfWriter(n.Logf), &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: withoutTime}))
	}
	return slog.New(slog.DiscardHandler)
}

// withoutTime drops the time, which what is behind Logf adds by itself.
func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// A logfWriter passes each line written to a printf-like function.
type logfWriter func(format string, args ...any)

func (w logfWriter) Write(line []byte) (int, error) {
	w("%s", strings.TrimSuffix(string(line), "\n"))
	return len(line), nil
}
