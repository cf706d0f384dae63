package packetfilter

// A Reason says what a Filter decided about a packet, and why.
type Reason uint8

// Reasons of a Filter; all but Accepted are drops. The comments give the labels
// of the metric tailscaled_inbound_dropped_packets_total (SVC-172).
const (
	Accepted        Reason = iota
	TooShort               // fewer than 20 bytes: too_short
	UnknownProtocol        // what the parser could not judge: unknown_protocol
	Multicast              // destination is multicast: multicast
	LinkLocal              // destination is link-local unicast: link_local_unicast
	NoNetmap               // nothing is allowed yet, or at all: acl
	NotLocal               // destination is neither ours nor routed through us: acl
	NoRule                 // no rule permits it: acl
	ShieldsUp              // the node, or the jail of the peer, takes no new flows: acl
	Reserved               // protocol 99 from an application (SVC-37): acl
	Reasons                // number of reasons
)

// String returns the metric's label for a drop and "accepted" otherwise.
func (r Reason) String() string {
	switch r {
	case Accepted:
		return "accepted"
	case TooShort:
		return "too_short"
	case UnknownProtocol:
		return "unknown_protocol"
	case Multicast:
		return "multicast"
	case LinkLocal:
		return "link_local_unicast"
	}
	return "acl"
}
