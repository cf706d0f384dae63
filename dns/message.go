package dns

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	headerBytes = 12   // RFC 1035 section 4.1.1
	maxPlain    = 512  // bytes over UDP to a client that does not say more; RFC 1035 section 2.3.4
	maxUDP      = 4095 // bytes of a response over UDP; SVC-74
	maxMessage  = 65535

	positiveTTL = 5  // seconds an answer holds; SVC-72
	negativeTTL = 10 // seconds a missing name holds, by the SOA; SVC-72
)

// Bits of the third and fourth byte of a message (RFC 1035 section 4.1.1).
const (
	bitResponse  = 0x80 // third byte
	bitTruncated = 0x02 // third byte
	maskRCode    = 0x0f // fourth byte
)

// errNotQuery says that a message is none that anybody should answer.
var errNotQuery = errors.New("not a DNS query")

// A query is a message of a client.
type query struct {
	raw      []byte
	header   dnsmessage.Header
	question dnsmessage.Question
	name     string // of the question, in this package's form
	udpSize  int    // bytes that the client takes over UDP
	overUDP  bool
}

// parseQuery parses a client's message. With an error other than errNotQuery it
// is to be answered with FORMERR.
func parseQuery(raw []byte, overUDP bool) (*query, error) {
	q := &query{raw: raw, udpSize: maxPlain, overUDP: overUDP}
	var p dnsmessage.Parser
	var err error
	if q.header, err = p.Start(raw); err != nil || q.header.Response {
		return nil, errNotQuery
	}
	if q.question, err = p.Question(); err != nil {
		q.question = dnsmessage.Question{}
		return q, err
	}
	q.name = questionName(&q.question.Name)
	if at, ok := findOPT(raw); ok {
		q.udpSize = max(maxPlain, int(binary.BigEndian.Uint16(raw[at:])))
	}
	return q, nil
}

// findOPT returns where the UDP size of a message's OPT record is (RFC 6891
// section 6.1.2): two bytes where other records have their class. It reports
// false for version numbers that are not ours to read.
func findOPT(msg []byte) (at int, ok bool) {
	if len(msg) < headerBytes {
		return 0, false
	}
	count := func(i int) int { return int(binary.BigEndian.Uint16(msg[i:])) }
	at = headerBytes
	for range count(4) {
		if at = skipName(msg, at) + 4; at > len(msg) {
			return 0, false
		}
	}
	const fixed = 10 // bytes of a record without name and data
	for range count(6) + count(8) + count(10) {
		at = skipName(msg, at)
		if at+fixed > len(msg) {
			return 0, false
		}
		if dnsmessage.Type(count(at)) == dnsmessage.TypeOPT {
			return at + 2, msg[at+5] == 0
		}
		at += fixed + count(at+8)
	}
	return 0, false
}

// skipName returns where the name at an offset ends, past the message if it does
// not.
func skipName(msg []byte, at int) int {
	for at < len(msg) {
		switch n := int(msg[at]); {
		case n == 0:
			return at + 1
		case n >= 0xc0: // a pointer ends it; RFC 1035 section 4.1.4
			return at + 2
		default:
			at += n + 1
		}
	}
	return len(msg) + 1
}

// clampOPT lowers the size that a message's OPT record offers to maxUDP (SVC-74).
func clampOPT(msg []byte) {
	if at, ok := findOPT(msg); ok && binary.BigEndian.Uint16(msg[at:]) > maxUDP {
		binary.BigEndian.PutUint16(msg[at:], maxUDP)
	}
}

func truncated(msg []byte) bool { return len(msg) >= headerBytes && msg[2]&bitTruncated != 0 }

func rcode(msg []byte) dnsmessage.RCode { return dnsmessage.RCode(msg[3] & maskRCode) }

// fit makes a response what the client of q can take (SVC-74): one that is too
// long for it says so, and one that is too long for anybody has no records.
func (q *query) fit(response []byte) []byte {
	if !q.overUDP || len(response) <= q.udpSize && len(response) <= maxUDP {
		return response
	}
	if len(response) > maxUDP {
		h := q.header
		h.Response, h.RCode = true, rcode(response)
		response = q.build(h, nil)
	}
	response[2] |= bitTruncated
	return response
}

// fail returns the response that has only a code. What has failed offers no
// recursion.
func (q *query) fail(code dnsmessage.RCode) []byte {
	h := q.header
	h.Response, h.Authoritative, h.RCode = true, true, code
	h.RecursionAvailable = h.RecursionDesired && code != dnsmessage.RCodeServerFailure
	return q.build(h, nil)
}

// withhold returns NXDOMAIN in place of what somebody else might say.
func (q *query) withhold() []byte {
	h := q.header
	h.Response, h.RecursionAvailable, h.RCode = true, h.RecursionDesired, dnsmessage.RCodeNameError
	return q.build(h, nil)
}

// answer returns the response to a decision that is not Forward.
func (q *query) answer(d *Decision, now uint32) []byte {
	h := q.header
	h.Response, h.Authoritative, h.RecursionAvailable = true, true, h.RecursionDesired
	switch d.Verdict {
	case Withheld:
		return q.withhold()
	case Missing:
		h.RCode = dnsmessage.RCodeNameError
	case Unsupported:
		h.RCode = dnsmessage.RCodeNotImplemented
	}
	return q.build(h, func(b *dnsmessage.Builder) error {
		if err := q.records(b, d); err != nil {
			return err
		}
		if d.Zone == "" {
			return nil
		}
		return soa(b, d.Zone, now)
	})
}

// build returns a message with the question, if there was one, and what fill adds.
func (q *query) build(h dnsmessage.Header, fill func(*dnsmessage.Builder) error) []byte {
	b := dnsmessage.NewBuilder(make([]byte, 0, 256), h)
	if q.question.Type != 0 {
		_ = b.StartQuestions() // the builder is new
		if err := b.Question(q.question); err != nil {
			h.RCode = dnsmessage.RCodeFormatError
			b = dnsmessage.NewBuilder(nil, h)
			fill = nil
		}
	}
	if fill != nil {
		if err := fill(&b); err != nil { // a name of the netmap that fits in no message
			return q.fail(dnsmessage.RCodeServerFailure)
		}
	}
	msg, err := b.Finish()
	if err != nil {
		return nil
	}
	return msg
}

// records adds the answer, if the decision has one.
func (q *query) records(b *dnsmessage.Builder, d *Decision) error {
	if err := b.StartAnswers(); err != nil {
		return err
	}
	if d.Name == "" {
		return q.record(b, d.Addr)
	}
	name, err := dnsmessage.NewName(d.Name + ".")
	if err != nil {
		return err
	}
	return b.PTRResource(q.recordHeader(), dnsmessage.PTRResource{PTR: name})
}

func (q *query) recordHeader() dnsmessage.ResourceHeader {
	return dnsmessage.ResourceHeader{Name: q.question.Name, Class: dnsmessage.ClassINET, TTL: positiveTTL}
}

// record adds one address, if it is valid.
func (q *query) record(b *dnsmessage.Builder, a netip.Addr) error {
	switch {
	case a.Is4():
		return b.AResource(q.recordHeader(), dnsmessage.AResource{A: a.As4()})
	case a.Is6():
		return b.AAAAResource(q.recordHeader(), dnsmessage.AAAAResource{AAAA: a.As16()})
	}
	return nil
}

// addrs returns the response that has addresses which somebody else knew.
func (q *query) addrs(addrs []netip.Addr) []byte {
	h := q.header
	h.Response, h.RecursionAvailable = true, h.RecursionDesired
	return q.build(h, func(b *dnsmessage.Builder) error {
		if err := b.StartAnswers(); err != nil {
			return err
		}
		for _, a := range addrs {
			if err := q.record(b, a); err != nil {
				return err
			}
		}
		return nil
	})
}

// soa adds the record that says how long a negative answer holds (RFC 2308
// section 3). Nobody reads its other fields.
func soa(b *dnsmessage.Builder, zone string, now uint32) error {
	if err := b.StartAuthorities(); err != nil {
		return err
	}
	name, err := dnsmessage.NewName(zone + ".")
	if err != nil {
		return err
	}
	return b.SOAResource(
		dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: negativeTTL},
		dnsmessage.SOAResource{
			NS: name, MBox: name, Serial: now,
			Refresh: negativeTTL, Retry: negativeTTL, Expire: negativeTTL, MinTTL: negativeTTL,
		},
	)
}

// answers reports whether a message from upstream is the answer to a question
// that was sent with that ID: same ID, and the same question in any case. A
// server that understood nothing may leave the question out.
func answers(msg []byte, id uint16, asked *dnsmessage.Question) bool {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || !h.Response || h.ID != id {
		return false
	}
	q, err := p.Question()
	if errors.Is(err, dnsmessage.ErrSectionDone) {
		return h.RCode != dnsmessage.RCodeSuccess
	}
	return err == nil && q.Type == asked.Type && q.Class == asked.Class &&
		strings.EqualFold(q.Name.String(), asked.Name.String())
}

// newQuery returns a message that asks for a name.
func newQuery(id uint16, name string, typ dnsmessage.Type) ([]byte, error) {
	n, err := dnsmessage.NewName(name + ".")
	if err != nil {
		return nil, err
	}
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{ID: id, RecursionDesired: true})
	if err := b.StartQuestions(); err != nil {
		return nil, err
	}
	if err := b.Question(dnsmessage.Question{Name: n, Type: typ, Class: dnsmessage.ClassINET}); err != nil {
		return nil, err
	}
	return b.Finish()
}

// parseAddrs returns the code of a response and the addresses in its answer,
// whatever name they are for: a server follows aliases itself.
func parseAddrs(msg []byte) (addrs []netip.Addr, code dnsmessage.RCode, err error) {
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil {
		return nil, 0, err
	}
	if err := p.SkipAllQuestions(); err != nil {
		return nil, h.RCode, err
	}
	for {
		rh, err := p.AnswerHeader()
		switch {
		case errors.Is(err, dnsmessage.ErrSectionDone):
			return addrs, h.RCode, nil
		case err != nil:
			return nil, h.RCode, err
		}
		switch rh.Type {
		case dnsmessage.TypeA:
			r, err := p.AResource()
			if err != nil {
				return nil, h.RCode, err
			}
			addrs = append(addrs, netip.AddrFrom4(r.A))
		case dnsmessage.TypeAAAA:
			r, err := p.AAAAResource()
			if err != nil {
				return nil, h.RCode, err
			}
			addrs = append(addrs, netip.AddrFrom16(r.AAAA).Unmap())
		default:
			if err := p.SkipAnswer(); err != nil {
				return nil, h.RCode, err
			}
		}
	}
}
