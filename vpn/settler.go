package vpn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/vpn/internal/wire"
)

// Times of NetworkSettings (VPN-19, VPN-49).
const (
	settingsTimeout  = 10 * time.Second
	settingsRetry    = time.Second      // after the first failure; doubles
	settingsRetryMax = 60 * time.Second // between two tries
)

// A settler keeps the manager's network settings those that the netmap asks for.
// Nobody shares it.
type settler struct {
	link *link
	node Node
	mtu  int
	log  *slog.Logger

	inForce NetworkSettings // what the manager has taken last
}

// settle has the manager take the settings of a netmap; those that it has already
// are not sent again. The error is an unfitError when the node must not run with
// what the manager has made of them.
func (s *settler) settle(ctx context.Context, nm *netmap.Netmap) error {
	if nm == nil || nm.Self == nil {
		return nil
	}
	want := s.trim(settingsFor(nm, s.node.Accepts, s.node.Excluded(ctx, nm), s.mtu))
	if reflect.DeepEqual(want, s.inForce) {
		return s.check()
	}
	m, err := s.link.call(ctx, "network settings", settingsTimeout, func(rpc *wire.RPC) message {
		return &wire.TunnelMessage{Rpc: rpc, Msg: &wire.TunnelMessage_NetworkSettings{NetworkSettings: want.toWire()}}
	})
	if err != nil {
		return err
	}
	if err := outcome("network settings", m.(*wire.ManagerMessage).GetNetworkSettings()); err != nil {
		return err
	}
	s.inForce = want
	return s.check()
}

// check asks the node whether it may run with the settings in force.
func (s *settler) check() error {
	if err := s.node.Check(s.inForce); err != nil {
		return &unfitError{err}
	}
	return nil
}

// An unfitError ends the node.
type unfitError struct{ error }

func (e *unfitError) Unwrap() error { return e.error }

// trim leaves out families that have never been set up; one that has is cleared
// by an empty one (VPN-48).
func (s *settler) trim(want NetworkSettings) NetworkSettings {
	if len(want.IPv4.Addrs) == 0 && s.inForce.IPv4 == nil {
		want.IPv4 = nil
	}
	if len(want.IPv6.Addrs) == 0 && s.inForce.IPv6 == nil {
		want.IPv6 = nil
	}
	return want
}

// serve follows the netmap. A failure is told, and tried again with what is the
// newest netmap then (VPN-49).
func (s *settler) serve(ctx context.Context) error {
	for retry := settingsRetry; ; {
		nm, changed := s.node.Netmap()
		err := s.settle(ctx, nm)
		var unfit *unfitError
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &unfit):
			return err
		case err != nil:
			s.log.Error("the manager does not take the network settings", "retry", retry, "err", err)
			if actor.Sleep(ctx, retry) != nil {
				return ctx.Err()
			}
			retry = min(2*retry, settingsRetryMax)
			continue
		}
		retry = settingsRetry
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// An answer says whether a request has succeeded.
type answer interface {
	GetSuccess() bool
	GetErrorMessage() string
}

// outcome is the error in an answer: nil for success, also one for an answer to
// something else (VPN-15).
func outcome[A interface {
	answer
	comparable
}](what string, a A) error {
	var none A
	switch {
	case a == none:
		return fmt.Errorf("vpn: %s: the peer's answer is to something else", what)
	case a.GetSuccess():
		return nil
	case a.GetErrorMessage() == "":
		return fmt.Errorf("vpn: %s: refused without a reason", what)
	}
	return fmt.Errorf("vpn: %s: %w", what, &RefusedError{a.GetErrorMessage()})
}

// A RefusedError is what the peer says of why it does not do something.
type RefusedError struct{ Text string }

// Error is the peer's text.
func (e *RefusedError) Error() string { return e.Text }
