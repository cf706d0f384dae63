package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"
)

// TCPOptions are what a server of many long connections asks of its listening
// socket; accepted connections inherit them (DERP-157).
type TCPOptions struct {
	KeepAlive   time.Duration // until the kernel probes an idle connection; 0 = 15 s, negative = never
	UserTimeout time.Duration // how long sent data may stay unacknowledged (RFC 5482); 0 = system default; Linux only
}

// ListenTCP listens on the host with options. Multipath TCP stays off: it knows
// no user timeout.
func (o OS) ListenTCP(ctx context.Context, address string, options TCPOptions) (net.Listener, error) {
	lc := net.ListenConfig{
		KeepAlive: options.KeepAlive,
		Control: o.marked(func(_, _ string, c syscall.RawConn) error {
			if options.UserTimeout <= 0 {
				return nil
			}
			return setUserTimeout(c, options.UserTimeout)
		}),
	}
	lc.SetMultipathTCP(false)
	return lc.Listen(ctx, "tcp", address)
}

// ListenPacket binds a UDP socket, a *net.UDPConn, as net.ListenConfig.ListenPacket
// does; 0.0.0.0 means IPv4 only.
func (o OS) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	lc := net.ListenConfig{Control: o.marked(nil)}
	return lc.ListenPacket(ctx, ofFamily(network, address), address)
}

// ofFamily returns the network to listen on: package net would take 0.0.0.0 for all
// addresses of both families.
func ofFamily(network, address string) string {
	at, err := netip.ParseAddrPort(address)
	if err == nil && at.Addr() == netip.IPv4Unspecified() && (network == "tcp" || network == "udp") {
		return network + "4"
	}
	return network
}

// DialFrom is Dial that connects from a local address, where that is not empty: IP
// and port of the network udp.
func (o OS) DialFrom(ctx context.Context, network, local, address string) (net.Conn, error) {
	if local == "" {
		return o.Dial(ctx, network, address)
	}
	from, err := netip.ParseAddrPort(local)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(from), Control: o.marked(nil)}
	return d.DialContext(ctx, network, address)
}

// ListenUDPAt is ListenUDP for a server that answers at one of the host's
// addresses.
func (o OS) ListenUDPAt(ctx context.Context, at netip.AddrPort) (UDPConn, error) {
	family := "udp4"
	if at.Addr().Is6() {
		family = "udp6"
	}
	return listenUDP(ctx, family, at.String(), o.marked(controlUDP))
}

// ListenUDP binds a wildcard UDP socket with large buffers and, on Linux, with
// batched and segmented I/O where the kernel offers it.
func (o OS) ListenUDP(ctx context.Context, family string, port uint16) (UDPConn, error) {
	if familyNames[family] == "" {
		return nil, fmt.Errorf("host: listen UDP: family %q is neither udp4 nor udp6", family)
	}
	return listenUDP(ctx, family, ":"+strconv.Itoa(int(port)), o.marked(controlUDP))
}

// A control sets options of a socket before it is bound.
type control = func(network, address string, c syscall.RawConn) error

func listenUDP(ctx context.Context, family, address string, c control) (UDPConn, error) {
	lc := net.ListenConfig{Control: c}
	pc, err := lc.ListenPacket(ctx, family, address)
	if errors.Is(err, syscall.EAFNOSUPPORT) {
		return nil, fmt.Errorf("host: this host has no %s: %w", familyNames[family], err)
	}
	if err != nil {
		return nil, err
	}
	u := pc.(*net.UDPConn)
	// Failure only costs throughput (PATH-55).
	u.SetReadBuffer(udpBuffer)
	u.SetWriteBuffer(udpBuffer)
	return newUDPConn(u, family == "udp6")
}
