package simnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"
)

// fallbackDelay is how long IPv6 has before IPv4 is tried, too (RFC 8305
// section 5, with the default of net.Dialer).
const fallbackDelay = 300 * time.Millisecond

// Dial implements host.Network, but for unix.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	targets, err := h.resolve(ctx, network, address)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	if network[:3] == "udp" {
		return h.dialUDP(ctx, network, targets[0])
	}
	var first, second []netip.AddrPort // families
	for _, t := range targets {
		if t.Addr().Is6() == targets[0].Addr().Is6() {
			first = append(first, t)
		} else {
			second = append(second, t)
		}
	}
	if len(second) == 0 {
		return h.dialEach(ctx, network, first)
	}
	return h.race(ctx, network, first, second)
}

// resolve returns the addresses behind HOST:PORT, those of IPv6 first.
func (h *Host) resolve(ctx context.Context, network, address string) (targets []netip.AddrPort, err error) {
	family, ok := map[string]string{"tcp": "ip", "tcp4": "ip4", "tcp6": "ip6", "udp": "ip", "udp4": "ip4", "udp6": "ip6"}[network]
	if !ok {
		return nil, fmt.Errorf("simnet: network %s: %w", network, errors.ErrUnsupported)
	}
	name, port, err := splitPort(address)
	if err != nil {
		return nil, err
	}
	if name == "" {
		name = "localhost"
	}
	addrs, err := h.LookupNetIP(ctx, family, name)
	if err != nil {
		return nil, err
	}
	for _, six := range [...]bool{true, false} {
		for _, a := range addrs {
			if a.Is6() == six {
				targets = append(targets, netip.AddrPortFrom(a, port))
			}
		}
	}
	return targets, nil
}

func splitPort(address string) (name string, port uint16, err error) {
	name, p, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil {
		return "", 0, &net.AddrError{Err: "port is not a number from 0 to 65535", Addr: address}
	}
	return name, uint16(n), nil
}

// dialEach tries addresses one after the other.
func (h *Host) dialEach(ctx context.Context, network string, targets []netip.AddrPort) (net.Conn, error) {
	var first error
	for _, t := range targets {
		c, err := h.connect(ctx, t)
		if err == nil {
			return c, nil
		}
		if first == nil {
			first = &net.OpError{Op: "dial", Net: network, Addr: net.TCPAddrFromAddrPort(t), Err: err}
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, first
}

// race tries both families, the second a little later or when the first has
// failed (RFC 8305).
func (h *Host) race(ctx context.Context, network string, first, second []netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result, 2)
	try := func(targets []netip.AddrPort) {
		c, err := h.dialEach(ctx, network, targets)
		results <- result{c, err}
	}
	go try(first)
	fallback := time.NewTimer(fallbackDelay)
	defer fallback.Stop()
	var failure error
	for running, started := 1, false; running > 0; {
		begin := false
		select {
		case <-fallback.C:
			begin = true
		case r := <-results:
			running--
			if r.err == nil {
				cancel()
				for ; running > 0; running-- {
					if late := <-results; late.err == nil {
						late.conn.Close()
					}
				}
				return r.conn, nil
			}
			if failure == nil {
				failure = r.err
			}
			begin = true
		}
		if begin && !started {
			started = true
			running++
			go try(second)
		}
	}
	return nil, failure
}

// connect opens one connection.
func (h *Host) connect(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c, err := h.startConnect(to)
	if err != nil {
		return nil, err
	}
	n := h.net
	stop := context.AfterFunc(ctx, c.wake)
	defer stop()
	n.acquire()
	defer n.release()
	for c.state == synSent && ctx.Err() == nil {
		c.wait()
	}
	switch {
	case c.err != nil && c.state == ended && !c.finReceived:
		return nil, c.err
	case c.state == synSent:
		c.remove()
		return nil, ctx.Err()
	}
	return c, nil
}

func (h *Host) startConnect(to netip.AddrPort) (*tcpConn, error) {
	n := h.net
	n.acquire()
	defer n.release()
	if n.closed {
		return nil, net.ErrClosed
	}
	from, err := h.source(to.Addr())
	if err != nil {
		return nil, os.NewSyscallError("connect", err)
	}
	port := n.ephemeral(func(p uint16) bool {
		return h.tcp[tuple{netip.AddrPortFrom(from, p), to}] == nil && h.listeners[p] == nil
	})
	if port == 0 {
		return nil, os.NewSyscallError("connect", syscall.EADDRNOTAVAIL)
	}
	c := h.newConn(tuple{netip.AddrPortFrom(from, port), to}, synSent)
	c.sendSYN()
	return c, nil
}
