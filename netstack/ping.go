package netstack

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Ping sends one ICMP echo request with payload to dst and returns how long its
// answer took. ctx bounds the wait.
func (s *Stack) Ping(ctx context.Context, dst netip.Addr, payload []byte) (time.Duration, error) {
	dst = dst.Unmap()
	took, err := s.ping(ctx, dst, payload)
	if err != nil {
		return 0, opError("ping", "ip", nil, &net.IPAddr{IP: dst.AsSlice()}, s.unlessClosed(err))
	}
	return took, nil
}

func (s *Stack) ping(ctx context.Context, dst netip.Addr, payload []byte) (time.Duration, error) {
	if err := s.mayDial(ctx, netip.Addr{}, netip.AddrPortFrom(dst, 1)); err != nil {
		return 0, err
	}
	if len(payload) > maxEcho {
		return 0, syscall.EMSGSIZE
	}
	var queue waiter.Queue
	entry, readable := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventErr | waiter.EventHUp)
	queue.EventRegister(&entry)
	defer queue.EventUnregister(&entry)
	ep, terr := s.gv.NewEndpoint(echoProtocol(dst), protocolOf(dst), &queue)
	if terr != nil {
		return 0, errorOf(terr)
	}
	defer ep.Close()
	if terr := ep.Connect(tcpip.FullAddress{NIC: nicID, Addr: toGvisor(dst)}); terr != nil {
		return 0, errorOf(terr)
	}
	sent := time.Now()
	if _, terr := ep.Write(bytes.NewReader(echoRequest(dst, payload)), tcpip.WriteOptions{}); terr != nil {
		return 0, errorOf(terr)
	}
	for {
		select {
		case <-readable:
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-s.done:
			return 0, net.ErrClosed
		}
		switch ok, err := echoed(ep, payload); {
		case err != nil:
			return 0, err
		case ok:
			return time.Since(sent), nil
		}
	}
}

// echoed reads what has come, and reports whether it holds the answer. gVisor
// gives the endpoint only replies with its own identifier.
func echoed(ep tcpip.Endpoint, payload []byte) (bool, error) {
	for {
		var b bytes.Buffer
		switch _, terr := ep.Read(&b, tcpip.ReadOptions{}); terr.(type) {
		case nil:
		case *tcpip.ErrWouldBlock:
			return false, nil
		default:
			return false, errorOf(terr)
		}
		// ICMPv4 and ICMPv6 echoes have headers of the same length.
		if got := b.Bytes(); len(got) >= header.ICMPv4MinimumSize && bytes.Equal(got[header.ICMPv4MinimumSize:], payload) {
			return true, nil
		}
	}
}

func echoProtocol(a netip.Addr) tcpip.TransportProtocolNumber {
	if a.Is4() {
		return icmp.ProtocolNumber4
	}
	return icmp.ProtocolNumber6
}

// echoRequest returns an ICMP echo request; RFC 792, RFC 4443 section 4.1. The
// endpoint sets the identifier and the checksum.
func echoRequest(dst netip.Addr, payload []byte) []byte {
	b := make([]byte, header.ICMPv4MinimumSize, header.ICMPv4MinimumSize+len(payload))
	if dst.Is4() {
		h := header.ICMPv4(b)
		h.SetType(header.ICMPv4Echo)
		h.SetSequence(1)
		h.SetChecksum(^checksum.Checksum(h, checksum.Checksum(payload, 0)))
	} else {
		h := header.ICMPv6(b)
		h.SetType(header.ICMPv6EchoRequest)
		h.SetSequence(1)
	}
	return append(b, payload...)
}

// maxEcho is the longest payload of a Ping in bytes: an IPv4 packet of 64 KiB.
const maxEcho = maxMTU - header.IPv4MinimumSize - header.ICMPv4MinimumSize
