package admit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/key"
	"github.com/seed94491740/tsnode/transport/derp/relay"
)

// localHost is the host name by which a node's local service is asked (DERP-73).
const localHost = "local-tailscaled.sock"

// tooOld is in the answer of a daemon that takes addresses only, not keys
// (DERP-73).
const tooOld = "invalid 'addr' parameter"

// LocalNode returns the check that admits the clients which the tailnet node on
// this host knows (DERP-73). It asks the node through its unix socket; an empty
// path is the platform's default. That the node cannot be asked, so that nobody
// is admitted, is logged; a nil log discards.
func LocalNode(socketPath string, log *slog.Logger) Check {
	n := newLocalNode(socketPath, host.OS{})
	n.warnings = newWarnings(log)
	return n.check
}

// SelfCheck asks the tailnet node on this host for its own key and returns why
// verify would refuse that, as a prober from the host itself; nil if it would
// not (DERP-78).
func SelfCheck(ctx context.Context, socketPath string, verify Check) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	self, err := newLocalNode(socketPath, host.OS{}).key(ctx)
	if err != nil {
		return err
	}
	source := netip.AddrPortFrom(netip.IPv6Loopback(), 0)
	if err := verify(ctx, relay.Candidate{Key: self, Addr: source, Prober: true}); err != nil {
		return fmt.Errorf("admit: this host's own node is refused: %w", err)
	}
	return nil
}

// defaultSocket returns where a system's tailnet daemon listens, empty where it
// is no unix socket.
func defaultSocket(goos string) string {
	switch goos {
	case "darwin":
		return "/var/run/tailscaled.socket"
	case "windows", "plan9", "js", "wasip1":
		return ""
	}
	return "/var/run/tailscale/tailscaled.sock"
}

// A localNode is the tailnet node on this host.
type localNode struct {
	socket   string
	client   http.Client
	warnings *warnings
}

func newLocalNode(socket string, network host.Network) *localNode {
	if socket == "" {
		socket = defaultSocket(runtime.GOOS)
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		if socket == "" {
			return nil, errors.New("this system has no default socket: name the node's socket")
		}
		return network.Dial(ctx, "unix", socket)
	}
	// A connection to a socket of this host costs nothing to make anew.
	return &localNode{
		socket:   socket,
		client:   http.Client{Transport: &http.Transport{DialContext: inTime(dial), DisableKeepAlives: true}},
		warnings: newWarnings(nil),
	}
}

// get asks for a path of the local service.
func (n *localNode) get(ctx context.Context, path string, limit int64) (status int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+localHost+path, nil)
	if err != nil {
		return 0, nil, err
	}
	return ask(&n.client, req, limit)
}

// check asks who has the client's key.
func (n *localNode) check(ctx context.Context, c relay.Candidate) error {
	status, body, err := n.get(ctx, "/localapi/v0/whois?addr="+url.QueryEscape(c.Key.String()), maxAnswer)
	switch {
	case status == http.StatusOK: // whatever else the node knows of it
		return nil
	case status == http.StatusNotFound:
		return fmt.Errorf("admit: client %s is not authorized: the node at %s does not know it", c.Key.Short(), n.socket)
	case ctx.Err() != nil: // the client has gone
		return fmt.Errorf("admit: client %s: %w", c.Key.Short(), ctx.Err())
	case bytes.Contains(body, []byte(tooOld)):
		err = fmt.Errorf("the daemon at %s is too old to be asked for a node key: update it", n.socket)
	case err != nil:
		err = fmt.Errorf("ask the node at %s (is it running, and may this user ask it?): %w", n.socket, explain(err))
	default:
		err = fmt.Errorf("the node at %s answers with status %d: %.200q", n.socket, status, body)
	}
	n.warnings.warn("clients cannot be verified and are refused", c, err)
	return fmt.Errorf("admit: client %s: %w", c.Key.Short(), err)
}

// key asks the node for its own key.
func (n *localNode) key(ctx context.Context) (key.NodePublic, error) {
	status, body, err := n.get(ctx, "/localapi/v0/status?peers=false", maxStatus)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d: %.200q", status, body)
	}
	var answer struct {
		Self struct{ PublicKey key.NodePublic }
	}
	if err == nil {
		err = json.Unmarshal(body, &answer)
	}
	if err == nil && answer.Self.PublicKey.IsZero() {
		err = errors.New("it has none: log it in")
	}
	if err != nil {
		return key.NodePublic{}, fmt.Errorf("admit: ask the node at %s for its key: %w", n.socket, explain(err))
	}
	return answer.Self.PublicKey, nil
}
