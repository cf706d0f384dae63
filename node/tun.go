package node

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/seed94491740/tsnode/control"
	"github.com/seed94491740/tsnode/dataplane"
	"github.com/seed94491740/tsnode/dataplane/tun"
	"github.com/seed94491740/tsnode/dns"
	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/packet"
)

// Errors of a node with a TUN device; compare with errors.Is.
var (
	// ErrNoStack says that a node with a TUN device has no stack of its own: Dial,
	// Listen and their kin are not for it.
	ErrNoStack = errors.New("the node's packets go to a TUN device: use the sockets of the operating system")

	// ErrDeviceGone ends a node whose TUN device was removed (VPN-43).
	ErrDeviceGone = tun.ErrGone
)

const (
	maxDeviceQuestions = 64 // that wait to be asked, of a TUN device
	udpHeader          = 8  // bytes; RFC 768
)

// openDevice makes the overlay on the device that the program has given.
func (r *runtime) openDevice() (err error) {
	if r.device, err = tun.New(r.tun, r.log); err != nil {
		return err
	}
	r.deviceDNS = &deviceDNS{runtime: r, inbox: make(chan packet.Outbound, maxDeviceQuestions)}
	r.device.Divert = r.deviceDNS.takes
	r.overlay.links = []dataplane.Link{r.device}
	r.overlay.newDelivery = func() dataplane.Delivery { return r.device.NewDelivery() }
	return nil
}

// userspace tells the tailnet whether the node has a stack of its own.
func (r *runtime) userspace() control.OptBool { return control.OptBoolOf(r.tun == nil) }

// checkStack fails when there is no stack of our own.
func (r *runtime) checkStack() error {
	if r.stack == nil {
		return ErrNoStack
	}
	return nil
}

// DeviceStats count what passed the TUN device of a node.
type DeviceStats struct {
	tun.Stats
	QuestionsDropped uint64 // to the service address, while more waited than may
}

// DeviceStats returns the counters of the node's TUN device; zeros without one. It
// does not start the node.
func (n *Node) DeviceStats() DeviceStats {
	n.life.Lock()
	r := n.run
	n.life.Unlock()
	if r == nil || r.device == nil {
		return DeviceStats{}
	}
	return DeviceStats{Stats: r.device.Stats(), QuestionsDropped: r.deviceDNS.dropped.Load()}
}

// A deviceDNS answers the questions that the operating system sends to the
// service addresses by UDP, of a node with a TUN device (SVC-82). There is no TCP
// without a stack.
type deviceDNS struct {
	*runtime
	inbox   chan packet.Outbound // whole packets of our own, in Head
	dropped atomic.Uint64        // questions that found the inbox full
}

// String names the actor.
func (*deviceDNS) String() string { return "node.deviceDNS" }

// takes keeps a copy of a packet that is such a question, and reports whether it
// was one. It does not block.
func (s *deviceDNS) takes(pkt *packet.Outbound) bool {
	var h packet.Header
	h.ParseHead(pkt.Head, pkt.Len())
	if h.Proto != packet.UDP || h.Dst.Port() != dnsPort || !dns.IsService(h.Dst.Addr()) || pkt.Segment > 0 {
		return false
	}
	select {
	case s.inbox <- packet.Outbound{Head: slices.Clone(pkt.Head)}:
	default:
		s.dropped.Add(1)
	}
	return true
}

// Serve has every question answered, until ctx ends. How many are under way is
// bounded by the resolver.
func (s *deviceDNS) Serve(ctx context.Context) error {
	return actor.Run(ctx, func(ctx context.Context, g *actor.Group) error {
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case pkt := <-s.inbox:
				g.Go(deviceQuestion{s.runtime, pkt.Head}.answer)
			}
		}
	})
}

// A deviceQuestion is the packet of a question.
type deviceQuestion struct {
	*runtime
	pkt []byte
}

// answer asks the resolver, and gives its answer to the operating system.
func (q deviceQuestion) answer(ctx context.Context) error {
	var h packet.Header
	h.Parse(q.pkt)
	message, err := q.names.Query(ctx, "udp", q.pkt[h.Transport+udpHeader:h.Length])
	if err != nil {
		return nil // who asked asks again; the resolver has counted it
	}
	if pkt, err := appendUDP(nil, h.Dst, h.Src, message); err == nil {
		q.device.Inject(pkt)
	}
	return nil
}

// appendUDP appends a UDP datagram in an IP packet to b.
func appendUDP(b []byte, from, to netip.AddrPort, payload []byte) ([]byte, error) {
	start, length := len(b), udpHeader+len(payload)
	b, err := packet.AppendIP(b, from.Addr(), to.Addr(), packet.UDP, length)
	if err != nil {
		return b, err
	}
	b = binary.BigEndian.AppendUint16(b, from.Port())
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(length))
	b = append(append(b, 0, 0), payload...)
	var h packet.Header
	h.Parse(b[start:])
	h.SetChecksum(b[start:])
	return b, nil
}
