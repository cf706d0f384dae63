package portmap

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/seed94491740/tsnode/host"
)

// An attempt asks a gateway for a mapping, once by each protocol that is worth
// it.
type attempt struct {
	network host.Network
	route   route
	port    uint16
	nonce   nonce
	wanted  netip.AddrPort // not valid: any
	renewed *mapping       // nil: create
	seen    sightings
	noUPnP  bool

	heard sightings // what the attempt has learned
}

// run returns the mapping. The error says what came of each protocol.
func (a *attempt) run(ctx context.Context) (*mapping, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptBudget)
	defer cancel()
	if a.renewed != nil {
		return a.renew(ctx)
	}
	var errs []error
	for _, step := range a.plan(time.Now()) {
		m, err := step(ctx)
		if m != nil {
			return m, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func (a *attempt) renew(ctx context.Context) (*mapping, error) {
	switch a.renewed.protocol {
	case natPMP:
		return a.viaPMP(ctx, patient)
	case pcp:
		return a.viaPCP(ctx, patient)
	}
	s := newSOAP(a.network, a.route.gateway)
	return a.viaService(ctx, s, a.renewed.service)
}

// A step tries one protocol. It returns nothing if there is nothing to try.
type step func(context.Context) (*mapping, error)

// plan returns what to try, in order (PATH-99): NAT-PMP, or PCP where that
// alone is known to be there; then UPnP; and then the first once more at a slow
// gateway's pace, if it was asked in haste.
func (a *attempt) plan(now time.Time) []step {
	ask, other := a.viaPMP, a.viaPCP
	pmpSeen, pcpSeen := a.seen.has(natPMP, now), a.seen.has(pcp, now)
	if pcpSeen && !pmpSeen {
		ask, other = other, ask
	}
	answered := false // by a refusal; then patience is of no use
	at := func(waits []time.Duration) step {
		return func(ctx context.Context) (*mapping, error) {
			if answered {
				return nil, nil
			}
			m, err := ask(ctx, waits)
			if errors.Is(err, pmpUnsupportedVersion) || errors.Is(err, pcpUnsupportedVersion) {
				m, err = other(ctx, patient)
			}
			answered = err != nil && !errors.Is(err, errNoAnswer)
			return m, err
		}
	}
	switch {
	case pmpSeen || pcpSeen:
		return []step{at(patient), a.viaUPnP}
	case a.seen.silent(now):
		return []step{a.viaUPnP, at(patient)}
	}
	return []step{at(quick), a.viaUPnP, at(patient)}
}

// note remembers that a server has answered.
func (a *attempt) note(p protocol, epoch uint32) {
	a.heard.by[p] = sighting{at: time.Now(), epoch: epoch, hasEpoch: p != upnp}
}

// viaPMP asks for the public address and for the port; both are needed
// (PATH-100).
func (a *attempt) viaPMP(ctx context.Context, waits []time.Duration) (*mapping, error) {
	var ip netip.Addr
	var grant pmpAnswer
	take := func(b []byte) (bool, error) {
		if refusal, err := parsePCP(b); err == nil && refusal.result == pcpUnsupportedVersion {
			return true, pmpUnsupportedVersion // as a PCP server says it (RFC 6887 section 9)
		}
		ans, err := parsePMP(b)
		if err != nil {
			return false, nil // a stray datagram; the right one may still come
		}
		if ans.result != pmpSuccess {
			return true, ans.result
		}
		a.note(natPMP, ans.epoch)
		switch {
		case ans.opcode == pmpOpAddress && !ans.public.IsValid():
			return true, fmt.Errorf("NAT-PMP: %w", errNoPublicAddress)
		case ans.opcode == pmpOpAddress:
			ip = ans.public
		case ans.internal == a.port && ans.external != 0 && ans.lifetime != 0:
			grant = ans
		}
		return ip.IsValid() && grant.external != 0, nil
	}
	q := pmpMapQuery{internal: a.port, wanted: a.wanted.Port(), lifetime: seconds(askLifetime)}
	err := a.ask(ctx, exchange{
		requests: [][]byte{appendAddressQuery(nil), q.append(nil)},
		waits:    waits,
		take:     take,
	}, pmpMapQuery{internal: a.port}.append(nil))
	if err != nil {
		return nil, fmt.Errorf("ask %v by NAT-PMP: %w", a.route.gateway, err)
	}
	return newMapping(natPMP, a, netip.AddrPortFrom(ip, grant.external), grant.lifetime), nil
}

// viaPCP asks for the port, which comes with the address.
func (a *attempt) viaPCP(ctx context.Context, waits []time.Duration) (*mapping, error) {
	var grant pcpAnswer
	take := func(b []byte) (bool, error) {
		if refusal, err := parsePMP(b); err == nil && refusal.result == pmpUnsupportedVersion {
			return true, pcpUnsupportedVersion // as a NAT-PMP server says it
		}
		ans, err := parsePCP(b)
		if err != nil || ans.opcode != pcpOpMap {
			return false, nil
		}
		if ans.result != pcpSuccess {
			return true, ans.result
		}
		// RFC 6887 section 11.4: what does not match the request is ignored.
		if ans.nonce != a.nonce || ans.protocol != protocolUDP || ans.internal != a.port || ans.lifetime == 0 {
			return false, nil
		}
		a.note(pcp, ans.epoch)
		if !ans.external.IsValid() {
			return true, fmt.Errorf("PCP: %w", errNoPublicAddress)
		}
		grant = ans
		return true, nil
	}
	q := pcpMapQuery{client: a.route.own, nonce: a.nonce, internal: a.port, wanted: a.wanted, lifetime: seconds(askLifetime)}
	err := a.ask(ctx, exchange{requests: [][]byte{q.append(nil)}, waits: waits, take: take},
		pcpMapQuery{client: a.route.own, nonce: a.nonce, internal: a.port}.append(nil))
	if err != nil {
		return nil, fmt.Errorf("ask %v by PCP: %w", a.route.gateway, err)
	}
	return newMapping(pcp, a, grant.external, grant.lifetime), nil
}

// ask runs an exchange with the gateway. When one that should create a mapping
// fails, it sends undo: the gateway may have granted it all the same.
func (a *attempt) ask(ctx context.Context, x exchange, undo []byte) error {
	return withSocket(ctx, a.network, func(ctx context.Context, s *socket) error {
		x.gateway = a.route.gateway
		err := s.run(ctx, x)
		if err != nil && a.renewed == nil {
			s.send(netip.AddrPortFrom(x.gateway, serverPort), undo)
		}
		return err
	})
}

// viaUPnP looks for gateways, unless a probe has just found some, and asks
// them one by one.
func (a *attempt) viaUPnP(ctx context.Context) (*mapping, error) {
	if a.noUPnP {
		return nil, errors.New("UPnP is switched off")
	}
	if a.seen.has(upnp, time.Now()) {
		m, err := a.viaDevices(ctx, a.seen.devices)
		if _, refused := errors.AsType[fault](err); refused || err == nil || ctx.Err() != nil {
			return m, err
		}
		// They are not where they were.
	}
	p := newProbe(a.network, a.route, askUPnP)
	if err := p.run(ctx, searchTime); err != nil {
		return nil, fmt.Errorf("UPnP: search: %w", err)
	}
	if len(p.heard.devices) == 0 {
		return nil, fmt.Errorf("UPnP: search: %w", errNoAnswer)
	}
	a.heard.by[upnp], a.heard.devices = p.heard.by[upnp], p.heard.devices
	return a.viaDevices(ctx, p.heard.devices)
}

func (a *attempt) viaDevices(ctx context.Context, devices []device) (*mapping, error) {
	s := newSOAP(a.network, a.route.gateway)
	var errs []error
	for _, d := range devices {
		m, err := a.viaDevice(ctx, s, d)
		if err == nil {
			return m, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func (a *attempt) viaDevice(ctx context.Context, s *soap, d device) (*mapping, error) {
	services, err := s.describe(ctx, d.location)
	if err != nil {
		return nil, err
	}
	return a.viaService(ctx, s, s.choose(ctx, services))
}

func (a *attempt) viaService(ctx context.Context, s *soap, sv service) (*mapping, error) {
	port, err := s.mapPort(ctx, sv, portQuery{
		client:   a.route.own,
		internal: a.port,
		wanted:   a.wanted.Port(),
		lifetime: askLifetime,
	})
	if err != nil {
		return nil, err
	}
	ip, err := s.publicAddress(ctx, sv)
	if err != nil {
		if a.renewed == nil {
			err = errors.Join(err, s.unmapPort(ctx, sv, port))
		}
		return nil, err
	}
	m := newMapping(upnp, a, netip.AddrPortFrom(ip, port), seconds(askLifetime))
	m.service = sv
	return m, nil
}

// release gives a mapping back. The gateway's word is waited for, but not for
// long: the mapping ends by itself.
func (m *mapping) release(ctx context.Context, n host.Network) error {
	ctx, cancel := context.WithTimeout(ctx, releaseBudget)
	defer cancel()
	var request []byte
	switch m.protocol {
	case upnp:
		return newSOAP(n, m.route.gateway).unmapPort(ctx, m.service, m.external.Port())
	case pcp:
		request = pcpMapQuery{client: m.route.own, nonce: m.nonce, internal: m.internal}.append(nil)
	case natPMP:
		request = pmpMapQuery{internal: m.internal}.append(nil)
	}
	return withSocket(ctx, n, func(ctx context.Context, s *socket) error {
		whatever := func([]byte) (bool, error) { return true, nil }
		return s.run(ctx, exchange{gateway: m.route.gateway, requests: [][]byte{request}, waits: quick, take: whatever})
	})
}

func seconds(d time.Duration) uint32 { return uint32(d / time.Second) }
