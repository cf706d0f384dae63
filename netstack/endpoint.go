package netstack

import (
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// An endpoint is the links of a stack as gVisor sees them: one interface.
type endpoint struct {
	*nic
	links []*Link
}

var (
	_ stack.LinkEndpoint = (*endpoint)(nil)
	_ stack.GSOEndpoint  = (*endpoint)(nil)
)

// WritePackets implements stack.LinkWriter. gVisor counts what is refused here
// as sent, so it is a lost packet; only waiting stops TCP (WG-83). What is
// silenced goes nowhere.
func (e *endpoint) WritePackets(pkts stack.PacketBufferList) (n int, err tcpip.Error) {
	for _, p := range pkts.AsSlice() {
		if p.Owner == silenced {
			n++
			continue
		}
		if err := e.links[spread(p, len(e.links))].push(p); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// Attach implements stack.NetworkLinkEndpoint; nil detaches.
func (e *endpoint) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		e.dispatcher.Store(nil)
		return
	}
	e.dispatcher.Store(&d)
}

// IsAttached implements stack.NetworkLinkEndpoint.
func (e *endpoint) IsAttached() bool { return e.dispatcher.Load() != nil }

// MTU implements stack.NetworkLinkEndpoint.
func (e *endpoint) MTU() uint32 { return e.mtu }

// SetMTU implements stack.NetworkLinkEndpoint; the MTU of a tailnet is fixed.
func (e *endpoint) SetMTU(uint32) {}

// MaxHeaderLength implements stack.NetworkLinkEndpoint: there is no link header.
func (e *endpoint) MaxHeaderLength() uint16 { return 0 }

// LinkAddress implements stack.NetworkLinkEndpoint: there is none.
func (e *endpoint) LinkAddress() tcpip.LinkAddress { return "" }

// SetLinkAddress implements stack.NetworkLinkEndpoint.
func (e *endpoint) SetLinkAddress(tcpip.LinkAddress) {}

// Capabilities implements stack.NetworkLinkEndpoint. What passed the tunnel's
// AEAD is what the peer sent, and merged packets carry a stale checksum (WG-71).
// Transmit checksum offload is not declared: with it IPv6 fragments of UDP leave
// with checksum 0 (WG-63).
func (e *endpoint) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}

// GSOMaxSize implements stack.GSOEndpoint.
func (e *endpoint) GSOMaxSize() uint32 { return e.gsoMax }

// SupportedGSO implements stack.GSOEndpoint: TCP hands out super-packets.
func (e *endpoint) SupportedGSO() stack.SupportedGSO { return stack.HostGSOSupported }

// Wait implements stack.NetworkLinkEndpoint: the link has no goroutine.
func (e *endpoint) Wait() {}

// ARPHardwareType implements stack.NetworkLinkEndpoint.
func (e *endpoint) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }

// AddHeader implements stack.NetworkLinkEndpoint.
func (e *endpoint) AddHeader(*stack.PacketBuffer) {}

// ParseHeader implements stack.NetworkLinkEndpoint.
func (e *endpoint) ParseHeader(*stack.PacketBuffer) bool { return true }

// Close implements stack.NetworkLinkEndpoint.
func (e *endpoint) Close() { closeLinks(e.links) }

// SetOnCloseAction implements stack.NetworkLinkEndpoint.
func (e *endpoint) SetOnCloseAction(func()) {}
