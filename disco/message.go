package disco

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/seed94491740/tsnode/key"
)

// A Type is the first byte of a message (PATH-06).
type Type byte

// Types of messages; paths.md section 2.2.
const (
	TypePing             Type = 0x01
	TypePong             Type = 0x02
	TypeCallMeMaybe      Type = 0x03
	TypeBind             Type = 0x04 // BindUDPRelayEndpoint
	TypeChallenge        Type = 0x05 // BindUDPRelayEndpointChallenge
	TypeAnswer           Type = 0x06 // BindUDPRelayEndpointAnswer
	TypeCallMeMaybeVia   Type = 0x07
	TypeAllocateRequest  Type = 0x08 // AllocateUDPRelayEndpointRequest
	TypeAllocateResponse Type = 0x09 // AllocateUDPRelayEndpointResponse
)

// Sizes in bytes of what messages are made of (PATH-07).
const (
	headerSize    = 2 // type and version
	endpointSize  = 18
	pingSize      = txIDSize + key.Size // without padding
	pongSize      = txIDSize + endpointSize
	bindSize      = 4 + 4 + key.Size + 32
	requestSize   = 2*key.Size + 4
	relayRecord   = 124 // without endpoints
	txIDSize      = 12
	maxVNI        = 1<<24 - 1
	lamportOffset = 3 * key.Size
)

// A TxID pairs a pong with its ping. Each transmission of a ping has a new one
// (PATH-10).
type TxID [txIDSize]byte

// NewTxID returns a random transaction identifier.
func NewTxID() (id TxID) {
	rand.Read(id[:])
	return id
}

// A Message is what a frame holds: one of the pointer types of this file.
type Message interface {
	// Type returns the type of the message.
	Type() Type

	appendPayload(b []byte) []byte
}

// A Ping asks for a Pong to where it came from.
type Ping struct {
	TxID    TxID
	NodeKey key.NodePublic // of the sender; a hint, no proof (PATH-15); zero: none
	Padding int            // zero bytes at the end, to probe a path's MTU
}

// A Pong answers a Ping.
type Pong struct {
	TxID TxID
	Src  netip.AddrPort // where the ping was seen to come from; of DERP: 127.3.3.40 and the region
}

// A CallMeMaybe asks to be pinged at these addresses; it comes over DERP only.
type CallMeMaybe struct {
	Endpoints []netip.AddrPort
}

// A BindStep is what the three messages of a handshake with a peer relay carry.
type BindStep struct {
	VNI        uint32 // as in the Geneve header
	Generation uint32 // not zero; chosen by the client for each handshake
	RemoteKey  key.DiscoPublic
	Challenge  [32]byte
}

// The messages of a handshake with a peer relay, in their order.
type (
	// A Bind asks a relay to bind this client to an endpoint.
	Bind struct{ BindStep }
	// A Challenge asks the client to prove that it receives.
	Challenge struct{ BindStep }
	// An Answer echoes the challenge.
	Answer struct{ BindStep }
)

// A RelayEndpoint is a session that a peer relay has set aside for two clients.
type RelayEndpoint struct {
	ServerDisco key.DiscoPublic
	Clients     [2]key.DiscoPublic
	Lamport     uint64 // higher is newer, of one server
	VNI         uint32
	BindLife    time.Duration // until both clients must be bound
	SteadyLife  time.Duration // how long it stays without traffic
	Addrs       []netip.AddrPort
}

// A CallMeMaybeVia tells the peer a relay endpoint; it comes over DERP only.
type CallMeMaybeVia struct{ RelayEndpoint }

// An AllocateRequest asks the node that hosts a peer relay for an endpoint.
type AllocateRequest struct {
	Clients    [2]key.DiscoPublic
	Generation uint32
}

// An AllocateResponse answers an AllocateRequest.
type AllocateResponse struct {
	Generation uint32
	RelayEndpoint
}

// Types of the messages.

// Type is part of Message.
func (*Ping) Type() Type { return TypePing }

// Type is part of Message.
func (*Pong) Type() Type { return TypePong }

// Type is part of Message.
func (*CallMeMaybe) Type() Type { return TypeCallMeMaybe }

// Type is part of Message.
func (*Bind) Type() Type { return TypeBind }

// Type is part of Message.
func (*Challenge) Type() Type { return TypeChallenge }

// Type is part of Message.
func (*Answer) Type() Type { return TypeAnswer }

// Type is part of Message.
func (*CallMeMaybeVia) Type() Type { return TypeCallMeMaybeVia }

// Type is part of Message.
func (*AllocateRequest) Type() Type { return TypeAllocateRequest }

// Type is part of Message.
func (*AllocateResponse) Type() Type { return TypeAllocateResponse }

// Append appends the plaintext of m to b, in exactly the lengths that real
// peers expect (PATH-09).
func Append(b []byte, m Message) []byte {
	return m.appendPayload(append(b, byte(m.Type()), 0))
}

func (m *Ping) appendPayload(b []byte) []byte {
	b = append(b, m.TxID[:]...)
	raw := m.NodeKey.Raw()
	b = append(b, raw[:]...)
	return append(b, make([]byte, max(0, m.Padding))...)
}

func (m *Pong) appendPayload(b []byte) []byte {
	return appendEndpoint(append(b, m.TxID[:]...), m.Src)
}

func (m *CallMeMaybe) appendPayload(b []byte) []byte { return appendEndpoints(b, m.Endpoints) }

func (m *BindStep) appendPayload(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, m.VNI)
	b = binary.BigEndian.AppendUint32(b, m.Generation)
	b = appendKey(b, m.RemoteKey)
	return append(b, m.Challenge[:]...)
}

func (m *RelayEndpoint) appendPayload(b []byte) []byte {
	b = appendKey(b, m.ServerDisco)
	b = appendKey(appendKey(b, m.Clients[0]), m.Clients[1])
	b = binary.BigEndian.AppendUint64(b, m.Lamport)
	b = binary.BigEndian.AppendUint32(b, m.VNI)
	b = binary.BigEndian.AppendUint64(b, uint64(m.BindLife))
	b = binary.BigEndian.AppendUint64(b, uint64(m.SteadyLife))
	return appendEndpoints(b, m.Addrs)
}

func (m *AllocateRequest) appendPayload(b []byte) []byte {
	b = appendKey(appendKey(b, m.Clients[0]), m.Clients[1])
	return binary.BigEndian.AppendUint32(b, m.Generation)
}

func (m *AllocateResponse) appendPayload(b []byte) []byte {
	return m.RelayEndpoint.appendPayload(binary.BigEndian.AppendUint32(b, m.Generation))
}

func appendKey(b []byte, k key.DiscoPublic) []byte {
	raw := k.Raw()
	return append(b, raw[:]...)
}

func appendEndpoint(b []byte, e netip.AddrPort) []byte {
	a := e.Addr().As16()
	return binary.BigEndian.AppendUint16(append(b, a[:]...), e.Port())
}

func appendEndpoints(b []byte, list []netip.AddrPort) []byte {
	for _, e := range list {
		b = appendEndpoint(b, e)
	}
	return b
}

// Errors of Parse; compare with errors.Is.
var (
	// ErrUnknownType says that the message is of a newer kind (PATH-08).
	ErrUnknownType = errors.New("unknown type")

	// ErrMalformed says that a message is too short, or of no use: it names an
	// all-zero key, or has a version whose contents are not known.
	ErrMalformed = errors.New("malformed")
)

// Parse returns the message with plaintext b, as tolerantly as real peers do
// (PATH-08). What it returns shares no memory with b.
func Parse(b []byte) (Message, error) {
	if len(b) < headerSize {
		return nil, fmt.Errorf("disco: message of %d bytes: %w", len(b), ErrMalformed)
	}
	t, version, p := Type(b[0]), b[1], b[headerSize:]
	m, ok := parsePayload(t, version, p)
	switch {
	case m == nil && ok:
		return nil, fmt.Errorf("disco: message of type %#x: %w", byte(t), ErrUnknownType)
	case !ok:
		return nil, fmt.Errorf("disco: message of type %#x, version %d, %d bytes: %w", byte(t), version, len(b), ErrMalformed)
	}
	return m, nil
}

// parsePayload returns nil and true for a type that is not known, and false for
// a payload that is malformed.
func parsePayload(t Type, version byte, p []byte) (m Message, ok bool) {
	switch t {
	case TypePing:
		return parsePing(p)
	case TypePong:
		return parsePong(p)
	case TypeCallMeMaybe:
		return parseCallMeMaybe(version, p), true
	case TypeBind:
		s, ok := parseBind(p)
		return &Bind{s}, ok
	case TypeChallenge:
		s, ok := parseBind(p)
		return &Challenge{s}, ok
	case TypeAnswer:
		s, ok := parseBind(p)
		return &Answer{s}, ok
	case TypeCallMeMaybeVia:
		e, ok := parseRelayEndpoint(p)
		return &CallMeMaybeVia{e}, ok && version == 0
	case TypeAllocateRequest:
		r, ok := parseRequest(p)
		return r, ok && version == 0
	case TypeAllocateResponse:
		r, ok := parseResponse(p)
		return r, ok && version == 0
	}
	return nil, true
}

func parsePing(p []byte) (*Ping, bool) {
	if len(p) < txIDSize {
		return nil, false
	}
	m := &Ping{TxID: TxID(p)}
	if len(p) >= pingSize {
		m.NodeKey = key.NodePublicFromRaw([key.Size]byte(p[txIDSize:]))
		m.Padding = len(p) - pingSize
	}
	return m, true
}

func parsePong(p []byte) (*Pong, bool) {
	if len(p) < pongSize {
		return nil, false
	}
	return &Pong{TxID: TxID(p), Src: parseEndpoint(p[txIDSize:])}, true
}

// parseCallMeMaybe returns an empty list for what it does not understand.
func parseCallMeMaybe(version byte, p []byte) *CallMeMaybe {
	m := new(CallMeMaybe)
	if version == 0 && len(p)%endpointSize == 0 {
		m.Endpoints = parseEndpoints(p)
	}
	return m
}

func parseBind(p []byte) (s BindStep, ok bool) {
	if len(p) < bindSize {
		return s, false
	}
	s.VNI = binary.BigEndian.Uint32(p)
	s.Generation = binary.BigEndian.Uint32(p[4:])
	s.RemoteKey = parseKey(p[8:])
	s.Challenge = [32]byte(p[8+key.Size:])
	return s, !s.RemoteKey.IsZero() && s.VNI <= maxVNI
}

func parseRelayEndpoint(p []byte) (e RelayEndpoint, ok bool) {
	if len(p) < relayRecord+endpointSize || (len(p)-relayRecord)%endpointSize != 0 {
		return e, false
	}
	e.ServerDisco = parseKey(p)
	e.Clients = [2]key.DiscoPublic{parseKey(p[key.Size:]), parseKey(p[2*key.Size:])}
	n := p[lamportOffset:]
	e.Lamport = binary.BigEndian.Uint64(n)
	e.VNI = binary.BigEndian.Uint32(n[8:])
	e.BindLife = time.Duration(binary.BigEndian.Uint64(n[12:]))
	e.SteadyLife = time.Duration(binary.BigEndian.Uint64(n[20:]))
	e.Addrs = parseEndpoints(p[relayRecord:])
	return e, !e.ServerDisco.IsZero() && !e.Clients[0].IsZero() && !e.Clients[1].IsZero()
}

func parseRequest(p []byte) (*AllocateRequest, bool) {
	if len(p) < requestSize {
		return nil, false
	}
	m := &AllocateRequest{
		Clients:    [2]key.DiscoPublic{parseKey(p), parseKey(p[key.Size:])},
		Generation: binary.BigEndian.Uint32(p[2*key.Size:]),
	}
	return m, !m.Clients[0].IsZero() && !m.Clients[1].IsZero()
}

func parseResponse(p []byte) (*AllocateResponse, bool) {
	if len(p) < 4 {
		return nil, false
	}
	e, ok := parseRelayEndpoint(p[4:])
	return &AllocateResponse{Generation: binary.BigEndian.Uint32(p), RelayEndpoint: e}, ok
}

func parseKey(p []byte) key.DiscoPublic { return key.DiscoPublicFromRaw([key.Size]byte(p)) }

func parseEndpoint(p []byte) netip.AddrPort {
	a := netip.AddrFrom16([16]byte(p)).Unmap()
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(p[16:]))
}

func parseEndpoints(p []byte) []netip.AddrPort {
	if len(p) == 0 {
		return nil
	}
	list := make([]netip.AddrPort, 0, len(p)/endpointSize)
	for ; len(p) >= endpointSize; p = p[endpointSize:] {
		list = append(list, parseEndpoint(p))
	}
	return list
}
