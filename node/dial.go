package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/seed94491740/tsnode/dns"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
)

const (
	// dialTimeout bounds the connecting of a Dial when its context does not
	// (SVC-80).
	dialTimeout = 30 * time.Second

	// routePatience is how long a Dial waits for the way to a node that is on the
	// netmap but has none yet.
	routePatience = 2 * time.Second

	// dialStagger is the head start of each candidate address (SVC-80).
	dialStagger = 300 * time.Millisecond

	// dnsPort is the one port of the service addresses.
	dnsPort = 53
)

// Dial connects to an address on the tailnet. network is tcp or udp, with 4 or
// 6 behind it to fix the family; the host part of address is a node's name,
// full or its first label alone, or an IP address. It starts the node if
// necessary and waits within ctx until it runs. Errors are *DialError.
//
// What lies beyond the tailnet is reached by Node.AcceptRoutes and Node.ExitNode,
// and by Node.DialMode through the host's network.
//
// A UDP connection is made at once; whether the peer answers shows in its use.
func (n *Node) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return n.DialBy(ctx, n.DialMode, network, address)
}

// A dial is one call of a Dialer; fail gathers what its error would tell.
type dial struct {
	node   *Node
	by     *Dialer
	nm     *netmap.Netmap
	proto  packet.Proto
	family string // "", "4" or "6"
	fail   DialError
}

func (d *dial) do(ctx context.Context) (net.Conn, error) {
	if err := d.parseNetwork(); err != nil {
		return nil, err
	}
	host, portText, err := net.SplitHostPort(d.fail.Address)
	if err != nil {
		return nil, err
	}
	name := map[packet.Proto]string{packet.TCP: "tcp", packet.UDP: "udp"}[d.proto]
	port, err := portOf(ctx, name, portText)
	if err != nil {
		return nil, err
	}
	if d.nm, err = d.node.awaitRunning(ctx); err != nil {
		return nil, err
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	addrs, err := d.node.resolve(ctx, d.nm, host, d.family)
	if err != nil {
		return nil, err
	}
	if addrs, err = d.permitted(addrs); err != nil {
		return nil, err
	}
	return d.connect(ctx, addrs, port)
}

func (d *dial) parseNetwork() error {
	switch d.fail.Network[:min(3, len(d.fail.Network))] {
	case "tcp":
		d.proto = packet.TCP
	case "udp":
		d.proto = packet.UDP
	default:
		return fmt.Errorf("network %q: want tcp, tcp4, tcp6, udp, udp4 or udp6", d.fail.Network)
	}
	d.family = d.fail.Network[3:]
	if d.family != "" && d.family != "4" && d.family != "6" {
		return fmt.Errorf("network %q: want tcp, tcp4, tcp6, udp, udp4 or udp6", d.fail.Network)
	}
	return nil
}

// connect tries the addresses that have a route, each a while after the one
// before; the first connection wins.
func (d *dial) connect(ctx context.Context, addrs []netip.Addr, port uint16) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, dialTimeout, ErrNoAnswer)
	defer cancel()
	if lan := d.leaving(wayLAN, addrs); len(lan) > 0 && d.by.Mode == DialTailnetElseHost {
		return d.throughHost(ctx, lan, port)
	}
	var to []netip.AddrPort
	for _, a := range d.awaitRoute(ctx, addrs) {
		if d.node.run.wayTo(a) != wayBlocked {
			to = append(to, netip.AddrPortFrom(a, port))
		}
	}
	if len(to) == 0 {
		return d.unroutable(ctx, addrs, port)
	}
	if err := d.node.run.checkStack(); err != nil {
		return nil, err
	}
	if dns.IsService(to[0].Addr()) {
		if err := d.openService(ctx, port); err != nil {
			return nil, err
		}
	}
	if d.proto == packet.UDP {
		return d.node.run.stack.DialUDP(ctx, netip.AddrPort{}, to[0])
	}
	c, err := race(ctx, to, d.one)
	if err != nil {
		d.describe(to[0].Addr())
		return nil, d.classify(ctx, err)
	}
	return c, nil
}

// openService makes sure that somebody answers on the service addresses
// (SVC-81). Only DNS is there.
func (d *dial) openService(ctx context.Context, port uint16) error {
	if port != dnsPort {
		return ErrRefused
	}
	return d.node.run.names.OpenService(ctx)
}

// awaitRoute returns the addresses that belong to a node. It waits a moment for
// one of a node that the netmap knows, but not yet how to reach: such as one
// that has only just joined, or the exit node that is wanted.
func (d *dial) awaitRoute(ctx context.Context, addrs []netip.Addr) []netip.Addr {
	var patience <-chan time.Time // from the first wait on: most dials have none
	for {
		nm, changed := d.node.run.control.Netmap.Load()
		if nm != nil && nm.Self != nil {
			d.nm = nm
		}
		applied := d.node.run.applied()
		var ready, known []netip.Addr
		for _, a := range addrs {
			switch {
			case a.IsLoopback():
			case d.nm.Self.HasAddr(a), dns.IsService(a), d.reachable(a):
				ready = append(ready, a)
			case d.known(a):
				known = append(known, a)
			}
		}
		if len(ready) > 0 || len(known) == 0 {
			return append(ready, known...)
		}
		if patience == nil {
			timer := time.NewTimer(routePatience)
			defer timer.Stop()
			patience = timer.C
		}
		select {
		case <-changed:
		case <-applied:
		case <-patience:
			return known
		case <-ctx.Done():
			return known
		}
	}
}

// reachable reports whether packets to a have somewhere to go.
func (d *dial) reachable(a netip.Addr) bool {
	p, ok := d.node.run.destination(a)
	if !ok {
		return false
	}
	s, ok := d.node.run.plane.Load().data.Peer(p.Key)
	return ok && !s.Path.Best.IsZero()
}

// known reports whether a belongs to a node, whether or not it can be reached.
func (d *dial) known(a netip.Addr) bool {
	if _, ok := d.node.run.destination(a); ok {
		return true
	}
	if d.node.run.wayTo(a) == wayBlocked {
		return true
	}
	_, ok := d.nm.PeerByAddr(a)
	return ok
}

// describe notes the peer that owns a, and how it stands, for an error.
func (d *dial) describe(a netip.Addr) {
	d.fail.Addr = a
	p, ok := d.node.run.destination(a)
	if !ok {
		return
	}
	d.fail.Peer = trimDot(p.Name)
	s := d.node.peerStatus(d.nm, p)
	d.fail.Path, d.fail.LastHeard = s.Path, s.LastHeard
}

// one dials one address; a reject of the peer ends it.
func (d *dial) one(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	ctx, forget := d.node.run.rejects.watch(ctx, d.proto, to)
	defer forget()
	c, err := d.node.run.stack.DialTCP(ctx, d.source(to.Addr()), to)
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return c, err
}

// source returns the address to connect from: our own for the service addresses,
// which the stack takes for ours, too; else it is the stack's choice.
func (d *dial) source(to netip.Addr) netip.Addr {
	if dns.IsService(to) {
		for _, own := range d.nm.Self.Addresses {
			if own.Addr().Is4() == to.Is4() {
				return own.Addr()
			}
		}
	}
	return netip.Addr{}
}

// classify turns the error of a connection attempt into one of the package's.
func (d *dial) classify(ctx context.Context, err error) error {
	rejected, isReject := errors.AsType[*rejectError](err)
	switch {
	case isReject:
		d.fail.Reason = rejected.reason
		return ErrRejected
	case d.node.closing():
		return ErrClosed
	case errors.Is(err, syscall.ECONNREFUSED):
		return ErrRefused
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, ErrNoAnswer), isTimeout(err):
		if errors.Is(ctx.Err(), context.Canceled) {
			return ctx.Err()
		}
		return fmt.Errorf("%w within the time allowed%s", ErrNoAnswer, d.policyHint())
	}
	return err
}

// policyHint says that silence may be the policy's doing: most peers drop what
// the policy denies without a word.
func (d *dial) policyHint() string {
	if d.fail.LastHeard.IsZero() {
		return ""
	}
	return ": the peer is alive, so the tailnet's policy or a firewall may drop the flow"
}

func isTimeout(err error) bool {
	t, ok := errors.AsType[net.Error](err)
	return ok && t.Timeout()
}

// attempt runs try and tells how it ended; a panic is an error like others.
func attempt(ctx context.Context, to netip.AddrPort, try func(context.Context, netip.AddrPort) (net.Conn, error), done func(net.Conn, error)) {
	var c net.Conn
	err := actor.Guard(ctx, func(ctx context.Context) (err error) {
		c, err = try(ctx, to)
		return err
	})
	done(c, err)
}

// race runs try for each address, staggered, and returns the first connection;
// the others are closed. Without one it returns the first address's error.
func race(ctx context.Context, to []netip.AddrPort, try func(context.Context, netip.AddrPort) (net.Conn, error)) (net.Conn, error) {
	if len(to) == 1 {
		return try(ctx, to[0])
	}
	type result struct {
		i   int
		c   net.Conn
		err error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan result)
	next, pending := 0, 0
	start := func() {
		i := next
		next, pending = next+1, pending+1
		go attempt(ctx, to[i], try, func(c net.Conn, err error) { results <- result{i, c, err} })
	}
	start()
	timer := time.NewTimer(dialStagger)
	defer timer.Stop()
	errs := make([]error, len(to))
	for pending > 0 {
		select {
		case <-timer.C:
			if next < len(to) && ctx.Err() == nil {
				start()
				timer.Reset(dialStagger)
			}
		case r := <-results:
			pending--
			if r.err == nil {
				cancel()
				for ; pending > 0; pending-- {
					if late := <-results; late.c != nil {
						late.c.Close()
					}
				}
				return r.c, nil
			}
			errs[r.i] = r.err
			if next < len(to) && ctx.Err() == nil {
				start()
				timer.Reset(dialStagger)
			}
		}
	}
	return nil, errs[0]
}
