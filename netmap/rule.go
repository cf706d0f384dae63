package netmap

import (
	"encoding/json"
	"net/netip"
)

// A FilterRule permits new inbound flows, as sent by the server; package
// packetfilter gives it meaning (control.md section 13.3).
type FilterRule struct {
	SrcIPs   []string       `json:",omitempty"`
	SrcBits  []int          `json:",omitempty"` // obsolete: its presence voids the whole filter
	DstPorts []NetPortRange `json:",omitempty"`
	IPProto  []int          `json:",omitempty"`
	CapGrant []CapGrant     `json:",omitempty"`
}

// A NetPortRange is a set of destinations.
type NetPortRange struct {
	IP    string // "*", an address, a CIDR or an inclusive range a-b
	Bits  *int   `json:",omitempty"` // obsolete: its presence voids the whole filter
	Ports PortRange
}

// A PortRange is inclusive.
type PortRange struct{ First, Last uint16 }

// A CapGrant gives the rule's sources capabilities towards Dsts; it permits no
// packets.
type CapGrant struct {
	Dsts   []netip.Prefix
	Caps   []string                     `json:",omitempty"`
	CapMap map[string][]json.RawMessage `json:",omitempty"`
}
