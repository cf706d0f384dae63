package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/dataplane/tun"
	"github.com/seed94491740/tsnode/internal/settings"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/node"
	"github.com/seed94491740/tsnode/state"
	"github.com/seed94491740/tsnode/vpn"
)

// A tunnelNode is a node as a tunnel needs it.
type tunnelNode struct {
	*node.Node
	device *os.File // nil without
	log    *slog.Logger

	servers servers // of Excluded
}

// newTunnelNode makes the node that a manager wants; what it does not say, the
// settings do.
func newTunnelNode(s *settings.Settings, start vpn.StartOptions) (vpn.Node, error) {
	var device *os.File
	if start.Descriptor > 0 {
		var err error
		if device, err = tun.Duplicate(uintptr(start.Descriptor)); err != nil {
			return nil, fmt.Errorf("%w: want an open TUN device", err)
		}
	}
	with := *s
	with.LoginServer, with.AuthKey = start.ControlURL, "" // the manager's, never the environment's
	n, err := newNode(context.Background(), &with, nil, io.Discard)
	if err != nil {
		device.Close() // fails without one
		return nil, tunnelError(err)
	}
	n.TUN = tun.On(device)
	n.AuthKey, n.Headers, n.Logger = start.Token, start.Headers, start.Logger
	return &tunnelNode{Node: n, device: device, log: start.Logger}, nil
}

// Up is part of vpn.Node. That a person must log in is an error, for the manager
// is told of it in no other way (VPN-22).
func (t *tunnelNode) Up(ctx context.Context) error {
	events := t.Events(ctx)
	if err := t.Start(); err != nil {
		return tunnelError(err)
	}
	cause := errors.New("waiting for the control server")
	for e := range events {
		switch e := e.(type) {
		case node.Running:
			return nil
		case node.NeedsLogin:
			return fmt.Errorf("a login is needed: visit %s, then start the tunnel again, or start it with an auth key as its token", e.URL)
		case node.NeedsApproval:
			cause = errors.New("waiting for an administrator of the tailnet to approve this node")
		case node.ControlProblem:
			cause = e.Err
		case node.Stopped:
			return tunnelError(cmp.Or(e.Err, node.ErrClosed))
		}
	}
	return fmt.Errorf("%w: %w", context.Cause(ctx), tunnelError(cause))
}

// tunnelHints say what to do about an error to the person at a front end, who knows
// of no flags.
var tunnelHints = []struct {
	err  error
	text string
}{
	{node.ErrBadAuthKey, "Make a new auth key in the admin console of the tailnet, and start the tunnel with it as its token."},
	{node.ErrNodeDeleted, "An administrator has removed this node: start the tunnel again to join as a new one."},
	{node.ErrWrongControl, "Check the control URL: it must be that of a control server, as in https://headscale.example.org."},
	{control.ErrUntrusted, "Install the CA certificate of the control server on this machine."},
	{node.ErrControlUnreachable, "Check the control URL and this machine's network: the control server does not answer."},
	{node.ErrKeyExpired, "Start the tunnel again with a fresh token."},
	{state.ErrLocked, "Another process uses the state directory of this tunnel: stop it."},
}

// tunnelError is an error with what to do about it.
func tunnelError(err error) error {
	for _, h := range tunnelHints {
		if errors.Is(err, h.err) {
			return fmt.Errorf("%w. %s", err, h.text)
		}
	}
	return err
}

// Close is part of vpn.Node. The device stays the manager's (VPN-41).
func (t *tunnelNode) Close() error {
	t.device.Close() // fails without one
	return t.Node.Close()
}

// Wait is part of vpn.Node.
func (t *tunnelNode) Wait(ctx context.Context) error {
	for e := range t.Events(ctx) {
		switch e := e.(type) {
		case node.KeyExpired:
			t.log.Error("the node key has expired: start the tunnel again with a fresh token")
		case node.NeedsLogin:
			t.log.Error("the tailnet asks for a new login: start the tunnel again with a fresh token")
		case node.ControlProblem:
			t.log.Warn("control server", "err", e.Err)
		case node.Stopped:
			return cmp.Or(e.Err, node.ErrClosed)
		}
	}
	return ctx.Err()
}

// Traffic is part of vpn.Node.
func (t *tunnelNode) Traffic() map[netmap.StableID]vpn.Traffic {
	peers := t.Peers()
	traffic := make(map[netmap.StableID]vpn.Traffic, len(peers))
	for _, p := range peers {
		traffic[p.ID] = vpn.Traffic{LastHandshake: p.LastHandshake, Bytes: p.RxBytes + p.TxBytes}
	}
	return traffic
}

// Accepts is part of vpn.Node.
func (t *tunnelNode) Accepts(peer *netmap.Peer, route netip.Prefix) bool {
	return t.Routes(route, peer)
}

// Ping is part of vpn.Node.
func (t *tunnelNode) Ping(ctx context.Context, peer netip.Addr, inside bool) (vpn.Pong, error) {
	kind := node.PingDisco
	if inside {
		kind = node.PingTSMP
	}
	pong, err := t.Node.Ping(ctx, peer.String(), kind)
	if err != nil {
		return vpn.Pong{}, err
	}
	return vpn.Pong{Latency: pong.Latency, Direct: pong.Direct.IsValid()}, nil
}
