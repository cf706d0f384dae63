package ground

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Of NAT-PMP (RFC 6886).
const (
	pmpPort = 5351 // section 3.1

	// Opcodes of requests, sections 3.2 and 3.3; a response adds pmpResponse.
	pmpExternalAddress = 0
	pmpMapUDP          = 1
	pmpResponse        = 128

	// Sizes of requests in bytes.
	pmpRequestLen    = 2
	pmpMapRequestLen = 12

	// Result codes, section 3.5.
	pmpOK         = 0
	pmpBadVersion = 1
	pmpBadOpcode  = 5
)

// firstMapped is the first outside port that a mapper gives out.
const firstMapped = 40001

// A mapper answers NAT-PMP requests of a site's hosts. A mapping lasts until it
// is deleted, or the same inside address asks again.
type mapper struct {
	site  *Site
	conn  *net.UDPConn
	began time.Time
	done  sync.WaitGroup

	// Of the serving goroutine.
	mapped map[netip.AddrPort]uint16 // inside address to outside port
	next   uint16
}

// newMapper starts answering on the gateway's inside address.
func newMapper(s *Site) (*mapper, error) {
	m := &mapper{site: s, began: time.Now(), mapped: make(map[netip.AddrPort]uint16), next: firstMapped}
	err := s.gateway.Do(func() (err error) {
		m.conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(s.inside(), pmpPort)))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: NAT-PMP: %w", s.gateway, err)
	}
	m.done.Go(m.serve)
	return m, nil
}

func (m *mapper) close() {
	m.conn.Close()
	m.done.Wait()
}

func (m *mapper) serve() {
	buf := make([]byte, 1100) // RFC 6887: the longest request of PCP, which shares the port
	for {
		n, from, err := m.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if answer := m.answer(from.Addr(), buf[:n]); answer != nil {
			m.conn.WriteToUDPAddrPort(answer, from)
		}
	}
}

// answer returns the response to a request, nil for none.
func (m *mapper) answer(from netip.Addr, request []byte) []byte {
	if len(request) < pmpRequestLen || request[1] >= pmpResponse {
		return nil
	}
	switch opcode := request[1]; {
	case request[0] != 0:
		return m.response(opcode, pmpBadVersion)
	case opcode == pmpExternalAddress:
		outside := m.site.outside.As4()
		return append(m.response(opcode, pmpOK), outside[:]...)
	case opcode == pmpMapUDP && len(request) >= pmpMapRequestLen:
		return m.answerMap(from, request)
	default:
		return m.response(opcode, pmpBadOpcode)
	}
}

// answerMap makes a mapping, or deletes it if the request has no lifetime.
func (m *mapper) answerMap(from netip.Addr, request []byte) []byte {
	inside := netip.AddrPortFrom(from, binary.BigEndian.Uint16(request[4:]))
	lifetime := binary.BigEndian.Uint32(request[8:])
	outside := m.mapped[inside]
	switch {
	case lifetime == 0:
		outside = 0
		delete(m.mapped, inside)
		m.apply()
	case outside == 0:
		outside = m.next
		m.next++
		m.mapped[inside] = outside
		m.apply()
	}
	b := m.response(pmpMapUDP, pmpOK)
	b = binary.BigEndian.AppendUint16(b, inside.Port())
	b = binary.BigEndian.AppendUint16(b, outside)
	return binary.BigEndian.AppendUint32(b, lifetime)
}

// apply makes the gateway's mappings those of the table.
func (m *mapper) apply() {
	m.site.unmapPorts()
	for inside, outside := range m.mapped {
		m.site.mapPort(outside, inside)
	}
}

// response returns the head that all responses share.
func (m *mapper) response(opcode byte, result uint16) []byte {
	b := []byte{0, pmpResponse + opcode}
	b = binary.BigEndian.AppendUint16(b, result)
	return binary.BigEndian.AppendUint32(b, uint32(time.Since(m.began)/time.Second))
}
