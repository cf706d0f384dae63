package portmap

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/seed94491740/tsnode/host"
)

// Times of a probe.
const (
	probeTime  = 250 * time.Millisecond  // PATH-98, NC-37
	lastCall   = 50 * time.Millisecond   // after the first answer, for the others
	searchTime = 1500 * time.Millisecond // of a search of its own; devices may take MX seconds to answer a multicast
)

// An ask is a set of protocols to probe for.
type ask uint8

const (
	askPMP ask = 1 << iota
	askPCP
	askUPnP
)

// A probe asks a gateway what it speaks, all at once from one socket.
type probe struct {
	network host.Network
	route   route
	ask     ask
	waiting ask // not answered yet

	heard   sightings
	ignored uint64 // datagrams from elsewhere, malformed, or refusals
}

func newProbe(n host.Network, r route, a ask) *probe {
	return &probe{network: n, route: r, ask: a, waiting: a}
}

// run sends the requests and listens for at most about d; silence is no error.
func (p *probe) run(ctx context.Context, d time.Duration) error {
	if p.ask == 0 {
		return nil
	}
	return withSocket(ctx, p.network, func(ctx context.Context, s *socket) error {
		if err := p.send(s); err != nil {
			return err
		}
		return p.listen(ctx, s, d)
	})
}

// send fails only if nothing could be sent.
func (p *probe) send(s *socket) error {
	var sent bool
	var failed error
	send := func(to netip.AddrPort, b []byte) {
		err := s.send(to, b)
		sent = sent || err == nil
		if failed == nil {
			failed = err
		}
	}
	server := netip.AddrPortFrom(p.route.gateway, serverPort)
	if p.ask&askPMP != 0 {
		send(server, appendAddressQuery(nil))
	}
	if p.ask&askPCP != 0 {
		send(server, appendAnnounce(nil, p.route.own))
	}
	if p.ask&askUPnP != 0 {
		for _, q := range searches(p.route.gateway) {
			send(q.to, q.append(nil))
		}
	}
	if !sent {
		return fmt.Errorf("port mapping: probe gateway %v: %w", p.route.gateway, failed)
	}
	return nil
}

func (p *probe) listen(ctx context.Context, s *socket, d time.Duration) error {
	end, closing := time.Now().Add(d), false
	timer := time.NewTimer(d)
	defer timer.Stop()
	for heard := 0; ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		case a := <-s.answers:
			if !p.take(a) {
				p.ignored++
				continue
			}
			heard++
			all := p.waiting == 0
			switch {
			case all && p.ask&askUPnP == 0:
				return nil
			case all && !closing, heard == 1 && time.Now().Add(lastCall).After(end):
				timer.Reset(lastCall) // a gateway answers a search once for each thing it is
				closing = all
			}
		}
	}
}

// take reports whether d is an answer of use.
func (p *probe) take(d datagram) bool {
	switch {
	case d.from != netip.AddrPortFrom(p.route.gateway, serverPort):
		return p.takeDevice(d.b)
	case len(d.b) > 0 && d.b[0] == pmpVersion:
		a, err := parsePMP(d.b)
		return err == nil && a.result == pmpSuccess && p.note(natPMP, askPMP, a.epoch)
	}
	a, err := parsePCP(d.b)
	return err == nil && a.result == pcpSuccess && p.note(pcp, askPCP, a.epoch)
}

func (p *probe) takeDevice(b []byte) bool {
	d, ok, err := parseSearchAnswer(b)
	if err != nil || !ok {
		return false
	}
	p.heard.devices = addDevice(p.heard.devices, d)
	return p.note(upnp, askUPnP, 0)
}

func (p *probe) note(pr protocol, a ask, epoch uint32) bool {
	p.waiting &^= a
	p.heard.by[pr] = sighting{at: time.Now(), epoch: epoch, hasEpoch: pr != upnp}
	return true
}
