package proxy

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/seed94491740/tsnode/internal/carry"
)

// socketMode is who may connect to a unix socket, unless it is said: this user.
const socketMode fs.FileMode = 0o600

// isAbstract reports whether a unix socket is of Linux's own names, which are no files
// and have no permissions (unix(7)).
func isAbstract(path string) bool { return strings.HasPrefix(path, "@") }

// listen listens on this machine. A unix socket has the permissions mode, or by 0 the
// usual ones.
func (c *Config) listen(ctx context.Context, network, address string, mode fs.FileMode) (net.Listener, error) {
	ln, err := c.listenAnew(ctx, network, address)
	if err != nil || network != "unix" || isAbstract(address) {
		return ln, err
	}
	if err := os.Chmod(address, cmp.Or(mode, socketMode)); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

// listenAnew listens on this machine. A unix socket that a process has left behind,
// which is no more, makes room.
func (c *Config) listenAnew(ctx context.Context, network, address string) (net.Listener, error) {
	if host, port, _ := net.SplitHostPort(address); network == "tcp" && host == loopbackName {
		return c.listenLoopback(ctx, port)
	}
	ln, err := c.Host.Listen(ctx, network, address)
	if network != "unix" || err == nil {
		return ln, err
	}
	if staleErr := carry.RemoveStale(address); staleErr != nil {
		return nil, fmt.Errorf("%w: %w", err, staleErr)
	}
	return c.Host.Listen(ctx, network, address)
}

// dialHost connects to what this machine reaches.
func (c *Config) dialHost(ctx context.Context, network, address string) (net.Conn, error) {
	return c.Host.DialFrom(ctx, network, "", address)
}

// dialNear is dialHost of datagrams for a client of the tailnet. To this machine
// itself they come from the client's port if it is free, as it may matter to who
// answers (SVC-57).
func (c *Config) dialNear(ctx context.Context, address string, client netip.AddrPort) (net.Conn, error) {
	host, _, _ := net.SplitHostPort(address)
	if a, err := netip.ParseAddr(host); err == nil && a.IsLoopback() {
		near := netip.AddrPortFrom(a, client.Port())
		if conn, err := c.Host.DialFrom(ctx, "udp", near.String(), address); err == nil {
			return conn, nil
		}
	}
	return c.dialHost(ctx, "udp", address)
}
