package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
)

// A machine is the kernel under one address of the machine.
type machine struct {
	addr   string
	dialer net.Dialer
	config net.ListenConfig
}

// newMachine returns the kernel with a congestion control, its default if that
// is empty.
func newMachine(addr, congestion string) *machine {
	m := &machine{addr: addr}
	if congestion != "" {
		m.dialer.Control = control(congestion)
		m.config.Control = control(congestion)
	}
	return m
}

// control sets the congestion control of TCP sockets.
func control(congestion string) func(network, address string, c syscall.RawConn) error {
	return func(network, _ string, c syscall.RawConn) (err error) {
		if network != "tcp4" && network != "tcp6" {
			return nil
		}
		failed := c.Control(func(fd uintptr) { err = setCongestion(int(fd), congestion) })
		return errors.Join(failed, err)
	}
}

// Up implements load.Node.
func (m *machine) Up(context.Context) (netip.Addr, error) { return netip.ParseAddr(m.addr) }

// Dial implements load.Node.
func (m *machine) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return m.dialer.DialContext(ctx, network, address)
}

// Listen implements load.Node.
func (m *machine) Listen(network, addr string) (net.Listener, error) {
	return m.config.Listen(context.Background(), network, m.addr+addr)
}

// ListenPacket implements load.Node.
func (*machine) ListenPacket(network, addr string) (net.PacketConn, error) {
	return net.ListenPacket(network, addr)
}

// Path implements load.Node.
func (*machine) Path(context.Context, netip.Addr) (string, error) { return "direct", nil }

// Close implements load.Node.
func (*machine) Close() error { return nil }
