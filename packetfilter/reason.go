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

var reasonText = [...]string{
	Accepted:        "nothing is wrong with it",
	TooShort:        "shorter than an IP header",
	UnknownProtocol: "not well-formed IP",
	Multicast:       "its destination is multicast",
	LinkLocal:       "its destination is link-local",
	NoNetmap:        "nothing passes at all: there is no network map yet, or its rules are void",
	NotLocal:        "its destination is neither this node nor routed through it",
	NoRule:          "no rule permits it",
	ShieldsUp:       "new flows are not taken, from this peer or from anybody",
	Reserved:        "applications may not send this protocol",
}

// Explain says the reason for people.
func (r Reason) Explain() string { return reasonText[r] }
