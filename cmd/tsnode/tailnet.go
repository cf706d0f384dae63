package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/seed94491740/tsnode/host"
	"github.com/seed94491740/tsnode/internal/settings"
	"github.com/seed94491740/tsnode/node"
	"github.com/seed94491740/tsnode/proxy"
)

// A tailnet is a node as forwards and proxies see it.
type tailnet struct{ *node.Node }

// Dial connects on the tailnet.
func (t tailnet) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	c, err := t.Node.Dial(ctx, network, address)
	return c, hintedError(err)
}

// ListenPending announces a TCP port on the tailnet.
func (t tailnet) ListenPending(network, address string) (net.Listener, error) {
	ln, err := t.Node.ListenPending(network, address)
	return ln, notYet(err)
}

// ListenPacket announces a UDP port on the tailnet.
func (t tailnet) ListenPacket(network, address string) (net.PacketConn, error) {
	pc, err := t.Node.ListenPacket(network, address)
	return pc, notYet(err)
}

// notYet tells a forward that the node has yet to learn its addresses.
func notYet(err error) error {
	if errors.Is(err, node.ErrNotRunning) {
		return fmt.Errorf("%w: %w", proxy.ErrNotYet, err)
	}
	return err
}

// ready returns once the node has its addresses.
func (t tailnet) ready(ctx context.Context) error {
	_, err := t.Node.Up(ctx)
	return err
}

// proxyConfig returns what forwards and proxies work with.
func (f *foreground) proxyConfig(s *settings.Settings) (proxy.Config, error) {
	proxies, err := f.proxies(s)
	if err != nil {
		return proxy.Config{}, err
	}
	t := tailnet{f.node}
	return proxy.Config{
		Tailnet: t, Ready: t.ready, Host: host.OS{}, WhoIs: f.whoIs, Proxies: proxies, Logger: f.log,
	}, nil
}

// proxies returns what the clients of proxies may do.
func (f *foreground) proxies(s *settings.Settings) (p proxy.Proxies, err error) {
	mode := node.DialTailnetElseHost
	if s.ProxyTailnetOnly {
		mode = node.DialTailnet
	}
	p = proxy.Proxies{AllowLoopback: s.ProxyAllowLoopback, AllowOpen: s.ProxyOpen}
	p.Dial = func(ctx context.Context, r proxy.Request) (net.Conn, error) {
		d := node.Dialer{Node: f.node, Mode: mode, ExitNode: r.ExitNode, Permit: r.Permit}
		if r.ExitNode != "" {
			d.Mode = node.DialViaExitNode
		}
		c, err := d.DialContext(ctx, r.Network, r.Address)
		if r.ExitNode != "" && errors.Is(err, node.ErrNoExitNode) {
			return nil, fmt.Errorf("%w: the exit node is one for all: 'tsnode set --exit-node' changes it", err)
		}
		return c, hintedError(err)
	}
	p.Way = func() string { return f.node.Preferences().ExitNode }
	for _, text := range s.ProxyAllow {
		d, err := proxy.ParseDestination(text)
		if err != nil {
			return p, &usageError{err}
		}
		p.Allow = append(p.Allow, d)
	}
	if s.From("proxy-auth") == "--proxy-auth" && !strings.HasPrefix(s.ProxyAuth, filePrefix) {
		fmt.Fprintln(at(slog.LevelWarn, f.people), "tsnode: warning: a password on the command line is visible to other users; use --proxy-auth file:PATH or TSNODE_PROXY_AUTH")
	}
	p.Passwords, err = passwords(s.ProxyAuth)
	f.secrets.know(slices.Collect(maps.Values(p.Passwords))...)
	return p, err
}

// maxUsers bounds the file of --proxy-auth, in bytes.
const maxUsers = 256 << 10

// passwords reads what --proxy-auth names: user:password, a line of a file for each
// user, or the one that stands there itself. A user "file" can only stand in a file.
func passwords(value string) (map[string]string, error) {
	if value == "" {
		return nil, nil
	}
	text, err := readSecret("--proxy-auth", value, maxUsers)
	if err != nil {
		return nil, err
	}
	all := make(map[string]string)
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		user, password, ok := strings.Cut(line, ":")
		switch {
		case !ok || user == "" || password == "":
			return nil, &usageError{errors.New("--proxy-auth: want user:password, or file:PATH with one on each line")}
		case strings.Contains(user, proxy.ExitMark):
			return nil, &usageError{fmt.Errorf("--proxy-auth: user %q: %s begins the exit node that a client asks for, and is in no user's name", user, proxy.ExitMark)}
		}
		all[user] = password
	}
	if len(all) == 0 {
		return nil, &usageError{errors.New("--proxy-auth: it names no user: want user:password, or leave it out")}
	}
	return all, nil
}

// whoIs tells who has opened a connection from the tailnet.
func (f *foreground) whoIs(c net.Conn) (id proxy.Identity, err error) {
	who, err := f.node.WhoIsConn(c)
	if err != nil {
		return id, err
	}
	id = proxy.Identity{Login: who.UserProfile.LoginName, Name: who.UserProfile.DisplayName, ProfilePic: who.UserProfile.ProfilePicURL}
	id.Tagged = len(who.Node.Tags) > 0
	return id, nil
}
