package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/seed94491740/tsnode/packet"
)

// A DialMode says what Dial does with addresses to which the tailnet has no route
// (SVC-44).
type DialMode uint8

// Modes of Dial. The routes of the tailnet are its nodes, and what is behind them
// by Node.AcceptRoutes and Node.ExitNode.
const (
	DialTailnet         DialMode = iota // refuse them: ErrNoRoute
	DialTailnetElseHost                 // go through the host's network, as tsnet does
	DialViaExitNode                     // have an exit node in use, or fail: ErrNoExitNode
)

// DialBy is Dial with a mode of its own in place of Node.DialMode.
func (n *Node) DialBy(ctx context.Context, mode DialMode, network, address string) (net.Conn, error) {
	return (&Dialer{Node: n, Mode: mode}).DialContext(ctx, network, address)
}

// A Dialer dials as Node.Dial, with choices of its own.
type Dialer struct {
	Node *Node
	Mode DialMode // in place of Node.DialMode

	// ExitNode, with DialViaExitNode, is the one that must be in use, by what
	// Node.ExitNode may be; empty for any.
	ExitNode string

	// Permit reports why nothing is to connect to an address. It is asked for each
	// that a name leads to, before the connection. nil permits all.
	Permit func(netip.Addr) error
}

// DialContext is Node.Dial by these choices.
func (by *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	d := dial{node: by.Node, by: by, fail: DialError{Network: network, Address: address}}
	c, err := d.do(ctx)
	if err != nil {
		d.fail.Err = err
		return nil, &d.fail
	}
	return c, nil
}

// check returns an error when the mode needs an exit node and there is none, or
// another one.
func (d *dial) check() error {
	if d.by.Mode != DialViaExitNode {
		return nil
	}
	exit := d.node.run.exit.Get()
	switch {
	case !exit.wanted:
		return fmt.Errorf("%w: set Node.ExitNode", ErrNoExitNode)
	case exit.id == "":
		return d.node.run.noExitNode()
	case d.by.ExitNode == "", d.by.ExitNode == autoExitNode, d.by.ExitNode == autoExitAny:
		return nil
	}
	if p := lookupPeer(d.nm, d.by.ExitNode); p == nil || p.StableID != exit.id {
		return fmt.Errorf("%w: %q is asked for, and %s is in use", ErrNoExitNode, d.by.ExitNode, exit.name)
	}
	return nil
}

// permitted returns the addresses that the dialer permits.
func (d *dial) permitted(addrs []netip.Addr) (some []netip.Addr, err error) {
	if d.by.Permit == nil {
		return addrs, nil
	}
	for _, a := range addrs {
		refused := d.by.Permit(a)
		if refused == nil {
			some = append(some, a)
		}
		err = cmp.Or(err, refused)
	}
	if len(some) > 0 {
		err = nil
	}
	return some, err
}

// noExitNode says why the exit node that is wanted is not in use, or not for all
// of the Internet.
func (r *runtime) noExitNode() error {
	exit := r.exit.Get()
	if exit.id != "" {
		return fmt.Errorf("%w: %s offers the other IP version only: have both of its default routes approved", ErrNoExitNode, exit.name)
	}
	return fmt.Errorf("%w: %s", ErrNoExitNode, exit.problem)
}

// leaving returns the addresses that packets leave to in one way.
func (d *dial) leaving(w way, addrs []netip.Addr) (some []netip.Addr) {
	for _, a := range addrs {
		if d.node.run.wayTo(a) == w {
			some = append(some, a)
		}
	}
	return some
}

// unroutable connects to addresses to which the tailnet has no route: not at all,
// or through the host's network.
func (d *dial) unroutable(ctx context.Context, addrs []netip.Addr, port uint16) (net.Conn, error) {
	d.fail.Addr = addrs[0]
	if len(d.leaving(wayBlocked, addrs)) > 0 {
		return nil, d.node.run.noExitNode()
	}
	if d.by.Mode == DialTailnetElseHost {
		return d.throughHost(ctx, d.leaving(wayNone, addrs), port)
	}
	return nil, ErrNoRoute
}

// throughHost connects through the host's network, which never leads to a node.
func (d *dial) throughHost(ctx context.Context, addrs []netip.Addr, port uint16) (net.Conn, error) {
	var to []netip.AddrPort
	for _, a := range addrs {
		if !d.node.run.isTailnets(a) {
			to = append(to, netip.AddrPortFrom(a, port))
		}
	}
	if len(to) == 0 {
		return nil, ErrNoRoute
	}
	try := func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
		return d.node.run.network.Dial(ctx, d.fail.Network, to.String())
	}
	if d.proto == packet.UDP {
		to = to[:1] // SVC-80
	}
	c, err := race(ctx, to, try)
	if err != nil && errors.Is(context.Cause(ctx), ErrNoAnswer) {
		return nil, fmt.Errorf("%w: %w", ErrNoAnswer, err)
	}
	return c, err
}
