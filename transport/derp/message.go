package derp

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"time"

	"github.com/seed94491740/tsnode/key"
)

// A GoneReason says why a peer cannot be reached through a relay (DERP-13).
type GoneReason byte

// The reasons of a PeerGone frame.
const (
	GoneDisconnected  GoneReason = 0x00 // the peer left the region
	GoneNotHere       GoneReason = 0x01 // the relay does not know the destination
	GoneMeshConnBroke GoneReason = 0xf0 // made up by a mesh watcher, never on the wire
)

// PresentFlags describe a client to a mesh watcher (DERP-14); 0 means that the
// server is too old to say.
type PresentFlags byte

// The flags of a PeerPresent frame.
const (
	PresentRegular PresentFlags = 1 << iota
	PresentMeshPeer
	PresentProber
	PresentNotIdeal
)

// A PeerPresent says that a client is connected to the relay.
type PeerPresent struct {
	Peer  key.NodePublic
	Addr  netip.AddrPort // invalid when the relay does not say
	Flags PresentFlags
}

// A Restarting is a relay's advice for the time it is gone: wait ReconnectIn,
// then keep trying for about TryFor (DERP-17).
type Restarting struct {
	ReconnectIn, TryFor time.Duration
}

// PingSize is the length of the data of a ping and its pong, in bytes.
const PingSize = 8

// magic begins a ServerKey frame: "DERP" and U+1F511 (DERP-11).
const magic = "DERP\U0001f511"

// short is the error for a payload below its smallest size.
func short(t FrameType, b []byte, want int) error {
	return fmt.Errorf("derp: %v frame of %d bytes, want %d at least", t, len(b), want)
}

// cutKey splits a leading key off b, which must be at least that long.
func cutKey(b []byte) (key.NodePublic, []byte) {
	return key.NodePublicFromRaw([key.Size]byte(b)), b[key.Size:]
}

// appendKey appends the 32 bytes of a key.
func appendKey(b []byte, k key.NodePublic) []byte {
	raw := k.Raw()
	return append(b, raw[:]...)
}

// AppendServerKey appends the first frame of a server.
func AppendServerKey(b []byte, server key.NodePublic) []byte {
	b = AppendHeader(b, FrameServerKey, len(magic)+key.Size)
	return appendKey(append(b, magic...), server)
}

// ParseServerKey reads the payload of a ServerKey frame; bytes after the key
// are for the future and ignored.
func ParseServerKey(b []byte) (key.NodePublic, error) {
	const want = len(magic) + key.Size
	if len(b) < want {
		return key.NodePublic{}, short(FrameServerKey, b, want)
	}
	if string(b[:len(magic)]) != magic {
		return key.NodePublic{}, fmt.Errorf("derp: ServerKey frame begins with %x, want %x: this is not a DERP relay", b[:len(magic)], magic)
	}
	k, _ := cutKey(b[len(magic):])
	if k.IsZero() {
		return k, fmt.Errorf("derp: ServerKey frame with a zero key") // DERP-05
	}
	return k, nil
}

// AppendSendPacket appends a packet for dst. data is at most MaxPacketSize.
func AppendSendPacket(b []byte, dst key.NodePublic, data []byte) []byte {
	return appendPacket(b, FrameSendPacket, dst, data)
}

// AppendRecvPacket appends a packet from src. data is at most MaxPacketSize.
func AppendRecvPacket(b []byte, src key.NodePublic, data []byte) []byte {
	return appendPacket(b, FrameRecvPacket, src, data)
}

func appendPacket(b []byte, t FrameType, k key.NodePublic, data []byte) []byte {
	b = AppendHeader(b, t, key.Size+len(data))
	return append(appendKey(b, k), data...)
}

// ParsePacket reads the payload of a SendPacket or RecvPacket frame: the key of
// the other end and the data, which aliases b.
func ParsePacket(t FrameType, b []byte) (key.NodePublic, []byte, error) {
	if len(b) < key.Size {
		return key.NodePublic{}, nil, short(t, b, key.Size)
	}
	if n := len(b) - key.Size; n > MaxPacketSize {
		return key.NodePublic{}, nil, fmt.Errorf("derp: %v frame with %d bytes of data, want at most %d", t, n, MaxPacketSize)
	}
	k, data := cutKey(b)
	return k, data, nil
}

// AppendForwardPacket appends a packet that one relay hands to another.
func AppendForwardPacket(b []byte, src, dst key.NodePublic, data []byte) []byte {
	b = AppendHeader(b, FrameForwardPacket, 2*key.Size+len(data))
	return append(appendKey(appendKey(b, src), dst), data...)
}

// ParseForwardPacket reads the payload of a ForwardPacket frame; data aliases b.
func ParseForwardPacket(b []byte) (src, dst key.NodePublic, data []byte, err error) {
	if len(b) < 2*key.Size {
		return src, dst, nil, short(FrameForwardPacket, b, 2*key.Size)
	}
	if n := len(b) - 2*key.Size; n > MaxPacketSize {
		return src, dst, nil, fmt.Errorf("derp: ForwardPacket frame with %d bytes of data, want at most %d", n, MaxPacketSize)
	}
	src, b = cutKey(b)
	dst, data = cutKey(b)
	return src, dst, data, nil
}

// AppendNotePreferred appends a client's word on whether this is its home.
func AppendNotePreferred(b []byte, home bool) []byte {
	b = AppendHeader(b, FrameNotePreferred, 1)
	if home {
		return append(b, 1)
	}
	return append(b, 0)
}

// ParseNotePreferred reads the payload of a NotePreferred frame.
func ParseNotePreferred(b []byte) (home bool, err error) {
	if len(b) != 1 {
		return false, fmt.Errorf("derp: NotePreferred frame of %d bytes, want 1", len(b))
	}
	return b[0] != 0, nil
}

// AppendPeerGone appends a PeerGone frame, always with its reason (DERP-18).
func AppendPeerGone(b []byte, peer key.NodePublic, why GoneReason) []byte {
	b = AppendHeader(b, FramePeerGone, key.Size+1)
	return append(appendKey(b, peer), byte(why))
}

// ParsePeerGone reads the payload of a PeerGone frame; old servers leave out
// the reason.
func ParsePeerGone(b []byte) (key.NodePublic, GoneReason, error) {
	if len(b) < key.Size {
		return key.NodePublic{}, 0, short(FramePeerGone, b, key.Size)
	}
	peer, rest := cutKey(b)
	if len(rest) == 0 {
		return peer, GoneDisconnected, nil
	}
	return peer, GoneReason(rest[0]), nil
}

// AppendPeerPresent appends a PeerPresent frame in its full form.
func AppendPeerPresent(b []byte, p PeerPresent) []byte {
	b = AppendHeader(b, FramePeerPresent, key.Size+16+2+1)
	b = appendKey(b, p.Peer)
	var ip [16]byte
	if p.Addr.IsValid() {
		ip = p.Addr.Addr().As16() // IPv4 is written IPv4-mapped (DERP-15)
	}
	b = append(b, ip[:]...)
	b = binary.BigEndian.AppendUint16(b, p.Addr.Port())
	return append(b, byte(p.Flags))
}

// ParsePeerPresent reads the payload of a PeerPresent frame; old servers leave
// out the flags, or the address and the flags.
func ParsePeerPresent(b []byte) (PeerPresent, error) {
	if len(b) < key.Size {
		return PeerPresent{}, short(FramePeerPresent, b, key.Size)
	}
	var p PeerPresent
	p.Peer, b = cutKey(b)
	if len(b) < 18 {
		return p, nil
	}
	if raw := [16]byte(b); raw != [16]byte{} {
		p.Addr = netip.AddrPortFrom(netip.AddrFrom16(raw).Unmap(), binary.BigEndian.Uint16(b[16:]))
	}
	if len(b) > 18 {
		p.Flags = PresentFlags(b[18])
	}
	return p, nil
}

// AppendClosePeer appends the order of a mesh client to close all connections
// of a peer.
func AppendClosePeer(b []byte, target key.NodePublic) []byte {
	return appendKey(AppendHeader(b, FrameClosePeer, key.Size), target)
}

// ParseClosePeer reads the payload of a ClosePeer frame.
func ParseClosePeer(b []byte) (key.NodePublic, error) {
	if len(b) != key.Size {
		return key.NodePublic{}, fmt.Errorf("derp: ClosePeer frame of %d bytes, want %d", len(b), key.Size)
	}
	target, _ := cutKey(b)
	return target, nil
}

// AppendPing appends a Ping or, with FramePong, a Pong frame.
func AppendPing(b []byte, t FrameType, data [PingSize]byte) []byte {
	return append(AppendHeader(b, t, PingSize), data[:]...)
}

// ParsePing reads the payload of a Ping or Pong frame; bytes past the eighth
// are for the future and ignored.
func ParsePing(t FrameType, b []byte) ([PingSize]byte, error) {
	if len(b) < PingSize {
		return [PingSize]byte{}, short(t, b, PingSize)
	}
	return [PingSize]byte(b), nil
}

// AppendRestarting appends a Restarting frame; durations are cut to whole
// milliseconds and to 49 days.
func AppendRestarting(b []byte, r Restarting) []byte {
	b = AppendHeader(b, FrameRestarting, 8)
	b = binary.BigEndian.AppendUint32(b, milliseconds(r.ReconnectIn))
	return binary.BigEndian.AppendUint32(b, milliseconds(r.TryFor))
}

func milliseconds(d time.Duration) uint32 {
	return uint32(min(max(d.Milliseconds(), 0), math.MaxUint32))
}

// ParseRestarting reads the payload of a Restarting frame.
func ParseRestarting(b []byte) (Restarting, error) {
	if len(b) < 8 {
		return Restarting{}, short(FrameRestarting, b, 8)
	}
	return Restarting{
		ReconnectIn: time.Duration(binary.BigEndian.Uint32(b)) * time.Millisecond,
		TryFor:      time.Duration(binary.BigEndian.Uint32(b[4:])) * time.Millisecond,
	}, nil
}

// discoMagic begins every disco message (paths.md section 2).
const discoMagic = "TS\U0001f4ac"

// discoMin is the shortest disco message in bytes: magic, key and nonce.
const discoMin = len(discoMagic) + key.Size + NonceSize

// IsDisco reports whether the data of a packet is a disco message, which
// relays and clients queue apart from bulk traffic (DERP-52, DERP-53).
func IsDisco(data []byte) bool {
	return len(data) >= discoMin && string(data[:len(discoMagic)]) == discoMagic
}
