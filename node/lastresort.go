package node

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/state"
	"github.com/seed94491740/tsnode/transport/derp"
)

// answerFresh is how long an answer serves without a new question: the ways to
// the server that are tried at once ask once.
const answerFresh = time.Minute

// A lastResort finds the control server's addresses through relays when the
// host's resolver fails (DERP-105). It knows the relays of the newest DERP map
// and, before there is one, those that the run before has stored.
type lastResort struct {
	dialer *derp.Dialer
	latest *actor.Cell[*netmap.DERPMap]
	store  state.Store
	log    *slog.Logger

	turn chan struct{} // holds a token while one call asks; guards what follows
	addr []netip.Addr  // the last answer
	at   time.Time     // and when it came
}

func newLastResort(s *settings, latest *actor.Cell[*netmap.DERPMap]) *lastResort {
	return &lastResort{
		dialer: &derp.Dialer{Network: s.network, Proxy: s.proxy},
		latest: latest, store: s.store, log: s.log,
		turn: make(chan struct{}, 1),
	}
}

// resolve returns the addresses of a host, if need be those of an earlier
// answer.
func (l *lastResort) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-l.turn }()
	if l.addr != nil && time.Since(l.at) < answerFresh {
		return l.addr, nil
	}
	addrs, err := derp.LookupBootstrap(ctx, l.dialer, l.relays(ctx), host)
	switch {
	case err == nil:
		l.log.Info("the host's resolver does not know the control server, a relay does", "host", host, "addrs", addrs)
		l.addr, l.at = addrs, time.Now()
	case l.addr == nil:
		return nil, err
	}
	return l.addr, nil
}

// relays returns the relays of the DERP map.
func (l *lastResort) relays(ctx context.Context) (all []*netmap.DERPNode) {
	m := l.latest.Get()
	if m == nil {
		var err error
		if m, err = state.LoadRelays(ctx, l.store); err != nil {
			l.log.Warn("cannot read the relays of the last run", "err", err)
		}
	}
	if m == nil {
		return nil
	}
	for _, region := range m.Regions {
		if region != nil {
			all = append(all, region.Nodes...)
		}
	}
	return slices.DeleteFunc(all, func(n *netmap.DERPNode) bool { return n == nil })
}

// remember stores a new DERP map for the next run.
func (l *lastResort) remember(ctx context.Context, m *netmap.DERPMap) {
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	if err := state.SaveRelays(ctx, l.store, m); err != nil {
		l.log.Warn("cannot store the relays for the next run", "err", err)
	}
}
