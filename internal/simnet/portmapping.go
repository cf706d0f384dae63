package simnet

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"time"
)

// portMappingPort is where a gateway listens for NAT-PMP and PCP (RFC 6886
// section 1.1, RFC 6887 section 19.1).
const portMappingPort = 5351

// DefaultLease is the longest lease a gateway gives (RFC 6886 section 3.3: the
// lifetime it recommends).
const DefaultLease = 2 * time.Hour

// PortMapping says what a router answers to requests for mappings. The zero
// value answers nothing.
type PortMapping struct {
	PMP, PCP bool          // NAT-PMP (RFC 6886), PCP (RFC 6887)
	MaxLease time.Duration // longer requests are cut; 0: DefaultLease

	// Result answers requests for a mapping instead of one, unless it is 0: a
	// result code of the protocol spoken, such as 2, not authorized.
	Result uint8
}

// Result codes.
const (
	pmpVersion   = 1 // unsupported version
	pmpResources = 4
	pmpOpcode    = 5

	pcpVersion   = 1
	pcpMalformed = 3
	pcpOpcode    = 4
	pcpResources = 8
	pcpProtocol  = 9
	pcpAddress   = 12 // the client's address is not the one it says it has
	pcpNonce     = 2  // another client's nonce: not authorized
)

const (
	answerBit    = 0x80
	protocolUDP  = 17
	protocolTCP  = 6
	pcpHeader    = 24
	pcpMap       = 60
	pcpErrorTime = 30 // seconds for which a client is to believe an error
)

// A mapper answers requests for mappings.
type mapper struct {
	router *Router
	cfg    PortMapping
	epoch  int64 // when it started
	nonces map[inner][12]byte
}

func newMapper(r *Router) mapper {
	return mapper{router: r, cfg: r.cfg.PortMapping, epoch: r.net.at, nonces: make(map[inner][12]byte)}
}

// SetPortMapping changes what is answered; leases stay.
func (r *Router) SetPortMapping(c PortMapping) {
	r.net.acquire()
	defer r.net.release()
	r.mapper.cfg = c
}

// restart forgets leases; clients see the epoch begin anew.
func (m *mapper) restart() {
	m.epoch = m.router.net.at
	clear(m.nonces)
}

func (m *mapper) uptime() time.Duration { return time.Duration(m.router.net.at - m.epoch) }

func (m *mapper) seconds() uint32 { return uint32(m.uptime() / time.Second) }

// receive answers a request that has come to the gateway's port.
func (m *mapper) receive(p *parcel) {
	b := p.payload
	if len(b) < 2 || b[1]&answerBit != 0 {
		return
	}
	var answer []byte
	switch {
	case b[0] == 0 && m.cfg.PMP:
		answer = m.pmp(b, p.src)
	case b[0] == 2 && m.cfg.PCP:
		answer = m.pcp(b, p.src)
	case m.cfg.PCP:
		// RFC 6887 section 9: a PCP server answers in its own version.
		answer = m.pcpError(b, pcpVersion)
	case m.cfg.PMP:
		// RFC 6886 section 3.5: "the NAT gateway MUST return" the version it
		// speaks.
		answer = m.pmpError(b[1], pmpVersion)
	default:
		return
	}
	if answer == nil {
		return
	}
	n := m.router.net
	a := n.make(UDP, p.dst, p.src, len(answer))
	copy(a.payload, answer)
	m.router.inner.send(a)
}

// pmpError is the shortest answer with a result.
func (m *mapper) pmpError(op, result uint8) []byte {
	b := []byte{0, op | answerBit, 0, result}
	return binary.BigEndian.AppendUint32(b, m.seconds())
}

// pmp answers a NAT-PMP request (RFC 6886 sections 3.2 and 3.3).
func (m *mapper) pmp(b []byte, from netip.AddrPort) []byte {
	switch op := b[1]; op {
	case 0:
		outer := m.router.outer.first(false).As4()
		return append(m.pmpError(op, 0), outer[:]...)
	case 1, 2:
		if len(b) < 12 {
			return nil
		}
		proto := UDP
		if op == 2 {
			proto = TCP
		}
		return m.pmpMap(op, proto, b, from.Addr())
	default:
		return m.pmpError(op, pmpOpcode)
	}
}

func (m *mapper) pmpMap(op uint8, proto Protocol, b []byte, client netip.Addr) []byte {
	port, wanted := binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:])
	lifetime := binary.BigEndian.Uint32(b[8:])
	external, result := uint16(0), m.cfg.Result
	if result == 0 {
		external, lifetime, result = m.lease(proto, netip.AddrPortFrom(client, port), wanted, lifetime)
		if result != 0 {
			result = pmpResources
		}
	}
	if result != 0 {
		external, lifetime = 0, 0
	}
	a := m.pmpError(op, result)
	a = binary.BigEndian.AppendUint16(a, port)
	a = binary.BigEndian.AppendUint16(a, external)
	return binary.BigEndian.AppendUint32(a, lifetime)
}

// lease makes, renews or, with lifetime 0, ends a lease. The lifetime is in
// seconds; the result is that of PCP.
func (m *mapper) lease(proto Protocol, addr netip.AddrPort, wanted uint16, lifetime uint32) (port uint16, granted uint32, result uint8) {
	key := inner{proto: proto, addr: addr}
	if lifetime == 0 {
		m.router.nat.unlease(proto, addr)
		delete(m.nonces, key)
		return 0, 0, 0
	}
	limit := m.cfg.MaxLease
	if limit == 0 {
		limit = DefaultLease
	}
	granted = uint32(min(time.Duration(lifetime)*time.Second, limit) / time.Second)
	l := m.router.nat.lease(proto, addr, wanted, time.Duration(granted)*time.Second)
	if l == nil {
		return 0, 0, pcpResources
	}
	return l.port, granted, 0
}

// pcpAnswer begins an answer: its header.
func (m *mapper) pcpAnswer(op, result uint8, lifetime uint32) []byte {
	b := []byte{2, op | answerBit, 0, result}
	b = binary.BigEndian.AppendUint32(b, lifetime)
	b = binary.BigEndian.AppendUint32(b, m.seconds())
	return append(b, make([]byte, 12)...)
}

// pcpError is a request, sent back with a result (RFC 6887 section 8.2).
func (m *mapper) pcpError(b []byte, result uint8) []byte {
	a := m.pcpAnswer(b[1], result, pcpErrorTime)
	if len(b) > pcpHeader {
		a = append(a, b[pcpHeader:]...)
	}
	return a
}

// pcp answers a PCP request (RFC 6887 sections 8, 11 and 14.1).
func (m *mapper) pcp(b []byte, from netip.AddrPort) []byte {
	if len(b) < pcpHeader || len(b)%4 != 0 {
		return m.pcpError(b, pcpMalformed)
	}
	client := netip.AddrFrom16([16]byte(b[8:pcpHeader])).Unmap()
	switch op := b[1]; {
	case client != from.Addr():
		return m.pcpError(b, pcpAddress)
	case op == 0:
		return m.pcpAnswer(op, 0, 0)
	case op != 1:
		return m.pcpError(b, pcpOpcode)
	case len(b) < pcpMap:
		return m.pcpError(b, pcpMalformed)
	case m.cfg.Result != 0:
		return m.pcpError(b, m.cfg.Result)
	}
	return m.pcpMap(b, client)
}

func (m *mapper) pcpMap(b []byte, client netip.Addr) []byte {
	proto, ok := map[uint8]Protocol{protocolUDP: UDP, protocolTCP: TCP}[b[36]]
	if !ok {
		return m.pcpError(b, pcpProtocol)
	}
	nonce := [12]byte(b[24:36])
	addr := netip.AddrPortFrom(client, binary.BigEndian.Uint16(b[40:]))
	key := inner{proto: proto, addr: addr}
	if l := m.router.nat.leases[key]; l != nil && !m.router.nat.expired(l) {
		// RFC 6887 section 11.3: a mapping is its nonce's.
		if owner, ok := m.nonces[key]; ok && owner != nonce {
			return m.pcpError(b, pcpNonce)
		}
	}
	port, lifetime, result := m.lease(proto, addr, binary.BigEndian.Uint16(b[42:]), binary.BigEndian.Uint32(b[4:]))
	if result != 0 {
		return m.pcpError(b, result)
	}
	if lifetime > 0 {
		m.nonces[key] = nonce
	}
	a := append(m.pcpAnswer(1, 0, lifetime), bytes.Clone(b[24:pcpMap])...)
	binary.BigEndian.PutUint16(a[42:], port)
	outer := m.router.outer.first(false).As16()
	copy(a[44:pcpMap], outer[:])
	return a
}
