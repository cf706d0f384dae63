package vpn

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/netmap"
)

// How nodes are probed (VPN-32).
const (
	probeEvery   = 30 * time.Second
	probeAll     = 25              // with so many nodes listed at most, all are probed
	probeTraffic = 5 * time.Minute // with more, those that have had traffic since
	probeTimeout = 5 * time.Second // of one ping
	probeAtOnce  = 8               // pings under way
)

// A prober knows the newest answer of each node to a ping.
type prober struct {
	node Node
	log  *slog.Logger

	pings *actor.Cell[map[netmap.StableID]Ping] // what it knows; maps never change
}

// serve probes until ctx ends.
func (p *prober) serve(ctx context.Context) error {
	recent := newRecency()
	for {
		nm, _ := p.node.Netmap()
		if nm != nil {
			peers, inside := recent.choose(nm, p.node.Traffic(), time.Now())
			answers, err := p.round(ctx, peers, inside)
			if err != nil {
				return err
			}
			p.pings.Store(p.merged(nm, answers))
		}
		if err := actor.Sleep(ctx, probeEvery); err != nil {
			return err
		}
	}
}

// merged are the newest answers of the nodes that there are (VPN-31).
func (p *prober) merged(nm *netmap.Netmap, answers map[netmap.StableID]Ping) map[netmap.StableID]Ping {
	old, pings := p.pings.Get(), make(map[netmap.StableID]Ping)
	for _, peer := range nm.Peers {
		ping, ok := answers[peer.StableID]
		if !ok {
			ping, ok = old[peer.StableID]
		}
		if ok {
			ping.Relay, ping.RelayLatency = regionName(nm, peer.HomeDERP), p.node.RelayLatency(peer.HomeDERP)
			pings[peer.StableID] = ping
		}
	}
	return pings
}

// regionName is the display name of a relay region; empty for none.
func regionName(nm *netmap.Netmap, id int) string {
	if nm.DERP == nil || nm.DERP.Regions[id] == nil {
		return ""
	}
	return nm.DERP.Regions[id].RegionName
}

// A probe asks one node.
type probe struct {
	id   netmap.StableID
	addr netip.Addr
}

// round pings peers, a few at a time, and returns the answers.
func (p *prober) round(ctx context.Context, peers []probe, inside bool) (map[netmap.StableID]Ping, error) {
	todo, done := make(chan probe, len(peers)), make(chan answered, len(peers))
	for _, t := range peers {
		todo <- t
	}
	close(todo)
	g := actor.NewGroup(ctx)
	for range min(probeAtOnce, len(peers)) {
		g.Go(func(ctx context.Context) error { return p.work(ctx, todo, done, inside) })
	}
	err := g.Wait()
	close(done)
	answers := make(map[netmap.StableID]Ping)
	for a := range done {
		answers[a.id] = Ping{Latency: a.pong.Latency, Direct: a.pong.Direct}
	}
	return answers, err
}

// answered is a probe with its answer.
type answered struct {
	id   netmap.StableID
	pong Pong
}

// work pings one node after the other.
func (p *prober) work(ctx context.Context, todo <-chan probe, done chan<- answered, inside bool) error {
	for t := range todo {
		one, cancel := context.WithTimeout(ctx, probeTimeout)
		pong, err := p.node.Ping(one, t.addr, inside)
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			p.log.Debug("vpn: probe", "peer", t.addr, "err", err)
			continue
		}
		done <- answered{t.id, pong}
	}
	return nil
}

// recency knows when nodes had traffic.
type recency struct {
	bytes map[netmap.StableID]uint64
	last  map[netmap.StableID]time.Time
}

func newRecency() *recency {
	return &recency{make(map[netmap.StableID]uint64), make(map[netmap.StableID]time.Time)}
}

// choose returns the nodes to probe, and whether inside of the tunnel: all if
// there are few, which also keeps their handshakes fresh; else those with traffic,
// outside, so that probes are no traffic.
func (r *recency) choose(nm *netmap.Netmap, traffic map[netmap.StableID]Traffic, now time.Time) (peers []probe, inside bool) {
	r.note(traffic, now)
	var listed, busy []probe
	for _, p := range nm.Peers {
		addrs := agentAddrs(p)
		if p.Online == netmap.OnlineNo || len(addrs) == 0 {
			continue
		}
		listed = append(listed, probe{p.StableID, addrs[0]})
		if at, ok := r.last[p.StableID]; ok && now.Sub(at) < probeTraffic {
			busy = append(busy, probe{p.StableID, addrs[0]})
		}
	}
	if len(listed) <= probeAll {
		return listed, true
	}
	return busy, false
}

// note takes what has come since the last time.
func (r *recency) note(traffic map[netmap.StableID]Traffic, now time.Time) {
	for id, t := range traffic {
		if t.Bytes != r.bytes[id] {
			r.bytes[id], r.last[id] = t.Bytes, now
		}
	}
	maps.DeleteFunc(r.bytes, func(id netmap.StableID, _ uint64) bool { _, ok := traffic[id]; return !ok })
	maps.DeleteFunc(r.last, func(id netmap.StableID, _ time.Time) bool { _, ok := traffic[id]; return !ok })
}
