package dataplane

import (
	"context"
	"net/netip"

	"github.com/seed94491740/tsnode/dataplane/wireguard"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/packet"
	"github.com/seed94491740/tsnode/packetfilter"
)

// outboundBatch is how many packets are taken from the link at once. A TCP
// super-packet counts as one and becomes up to 64 datagrams.
const outboundBatch = 32

// An outboundService drains the links: filter, route, seal, send, on one
// goroutine for each (WG-74, WG-78).
type outboundService struct{ d *Dataplane }

func (*outboundService) String() string { return "dataplane.outbound" }

// Serve drains the links until ctx ends. What it knows is made anew on each
// call; flows and sessions are the filter's and the tunnel's.
func (s *outboundService) Serve(ctx context.Context) error {
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		errand := actor.NewWorker(g, 0, s.d.runErrands)
		s.d.errand.Store(errand)
		errand.Wake() // for those that a restart has left
		for i := 1; i < len(s.d.config.Links); i++ {
			g.Go(newOutbound(s.d, i).loop)
		}
		return newOutbound(s.d, 0).loop(ctx)
	})
}

// runErrands brings ICMP messages to the stack until none waits.
func (d *Dataplane) runErrands(context.Context) error {
	for {
		select {
		case pkt := <-d.errands:
			d.config.Links[0].Inject(pkt)
		default:
			return nil
		}
	}
}

// An outbound is the state of the loop that drains one link.
type outbound struct {
	d      *Dataplane
	link   Link
	inbox  <-chan answer
	sealer *wireguard.Sealer
	sender sender
	peer   *peer // that the run being sealed goes to
	path   Path  // its path

	table     *table
	lastDst   netip.Addr // owner of the last destination, while table is the same
	lastOwner *peer

	header packet.Header
	batch  [outboundBatch]packet.Outbound
	owners [outboundBatch]*peer
	run    [outboundBatch]packet.Outbound
}

// newOutbound returns the loop of one of the links.
func newOutbound(d *Dataplane, link int) *outbound {
	o := &outbound{d: d, link: d.config.Links[link], inbox: d.inboxes[link], sender: sender{d: d}}
	o.sealer = d.engine.NewSealer(o.send)
	return o
}

func (o *outbound) loop(ctx context.Context) error {
	detach := o.link.Attach()
	defer detach()
	for {
		if o.drain() > 0 {
			// Under load the link is never empty: look at the rest in passing.
			select {
			case <-ctx.Done():
				return ctx.Err()
			case a := <-o.inbox:
				o.answer(&a)
			default:
			}
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case a := <-o.inbox:
			o.answer(&a)
		case <-o.link.Ready():
		}
	}
}

// drain sends one batch of the link and returns how many packets it had.
func (o *outbound) drain() int {
	n := o.link.Next(o.batch[:])
	if n == 0 {
		return 0
	}
	defer o.link.Done(n)
	o.process(o.batch[:n])
	return n
}

// process sends pkts, the packets of each peer together and in order.
func (o *outbound) process(pkts []packet.Outbound) {
	now := o.d.engine.Now()
	if t := o.d.table.Load(); t != o.table {
		o.table, o.lastDst = t, netip.Addr{}
	}
	if t := o.d.tap(); t != nil {
		t.Sent(pkts)
	}
	for i := range pkts {
		o.owners[i] = o.judge(&pkts[i], now)
	}
	for i := range pkts {
		p := o.owners[i]
		if p == nil {
			continue
		}
		run := o.run[:0]
		for j := i; j < len(pkts); j++ {
			if o.owners[j] == p {
				run = append(run, pkts[j])
				o.owners[j] = nil
			}
		}
		o.seal(p, run, now)
		clear(run)
	}
}

// judge returns the peer that pkt goes to, nil when it goes nowhere.
func (o *outbound) judge(pkt *packet.Outbound, now wireguard.Tick) *peer {
	h, length := &o.header, pkt.Len()
	h.ParseHead(pkt.Head, length)
	p := o.owner(h.Dst.Addr())
	jailed := p != nil && p.node.Load().Jailed
	switch {
	case o.d.filter.Out(h, length, jailed, int64(now)) != packetfilter.Accepted:
		return nil
	case h.Proto == packet.UDP && carriesDisco(h, udpPayload(h, pkt), &o.d.config.Disco):
		o.d.count.dropped.add(Looped, 1)
		return nil
	case p == nil:
		o.d.count.dropped.add(NoRoute, 1)
		o.d.unreachable(h, pkt.Head, now)
	}
	return p
}

// owner returns who owns a destination.
func (o *outbound) owner(dst netip.Addr) *peer {
	if dst != o.lastDst {
		o.lastDst, o.lastOwner = dst, o.table.routes.owner(dst)
	}
	return o.lastOwner
}

// udpPayload returns the payload of a UDP packet, or as much of it as lies in
// one piece.
func udpPayload(h *packet.Header, pkt *packet.Outbound) []byte {
	if start := h.Transport + udpHeader; len(pkt.Head) > start {
		return pkt.Head[start:]
	}
	if len(pkt.Body) > 0 {
		return pkt.Body[0]
	}
	return nil
}

// seal seals and sends packets of one peer.
func (o *outbound) seal(p *peer, pkts []packet.Outbound, now wireguard.Tick) {
	wp := o.d.bound(p)
	if wp == nil {
		o.d.count.dropped.add(NoTunnel, len(pkts))
		return
	}
	o.d.sending(p, now)
	o.peer, o.path = p, p.current()
	if _, _, dropped := o.sealer.Seal(wp, pkts, o.path.room(), now); dropped > 0 {
		o.d.count.dropped.add(NotSealed, dropped)
	}
}

// send is called by the Sealer with what it has sealed for the current run.
func (o *outbound) send(_ *wireguard.Peer, bursts []packet.Burst) {
	o.sender.send(o.peer, &o.path, bursts)
}

// answer seals and sends one control message, or says that the loop turns.
func (o *outbound) answer(a *answer) {
	if a.to == nil {
		close(a.alive)
		return
	}
	o.run[0] = packet.Outbound{Head: a.pkt[:a.n]}
	o.seal(a.to, o.run[:1], o.d.engine.Now())
	o.run[0] = packet.Outbound{}
}
