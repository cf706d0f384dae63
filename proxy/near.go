package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
)

// listen listens on this machine. A unix socket that a process has left behind,
// which is no more, makes room.
func (c *Config) listen(ctx context.Context, network, address string) (net.Listener, error) {
	ln, err := c.Host.Listen(ctx, network, address)
	if network != "unix" || !errors.Is(err, syscall.EADDRINUSE) {
		return ln, err
	}
	if conn, dialErr := c.dialHost(ctx, network, address); dialErr == nil {
		conn.Close()
		return nil, fmt.Errorf("%w by a process that runs", err)
	} else if !errors.Is(dialErr, syscall.ECONNREFUSED) {
		return nil, err
	}
	if err := os.Remove(address); err != nil {
		return nil, err
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
