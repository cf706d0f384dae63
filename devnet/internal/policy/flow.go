package policy

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/seed94491740/tsnode/netmap"
	"github.com/seed94491740/tsnode/packet"
)

// A flow is a set of IP protocols and ports.
type flow struct {
	protos []int // none: TCP, UDP and ICMP (SVC-10)
	ports  []netmap.PortRange
}

var anyPort = netmap.PortRange{First: 0, Last: 65535}

// protoNames are what a policy may call IP protocols. "icmp" means those of both
// families.
var protoNames = map[string][]int{
	"icmp": {int(packet.ICMPv4), int(packet.ICMPv6)}, "ipv6-icmp": {int(packet.ICMPv6)}, "igmp": {int(packet.IGMP)},
	"tcp": {int(packet.TCP)}, "udp": {int(packet.UDP)}, "sctp": {int(packet.SCTP)}, "dccp": {int(packet.DCCP)},
	"ipv4": {4}, "ip-in-ip": {4}, "egp": {8}, "igp": {9}, "gre": {int(packet.GRE)}, "esp": {50}, "ah": {51},
}

// parseProto reads the name or number of an IP protocol; none stands for the
// usual ones.
func parseProto(s string) ([]int, error) {
	if s == "" || s == "*" {
		return nil, nil
	}
	if protos, ok := protoNames[s]; ok {
		return protos, nil
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil || n == 0 || n == 255 {
		return nil, fmt.Errorf("protocol %q: want a name such as tcp, or a number from 1 to 254", s)
	}
	return []int{int(n)}, nil
}

// parsePorts reads "*", or ports and ranges with commas.
func parsePorts(s string) (ranges []netmap.PortRange, err error) {
	if s == "*" {
		return []netmap.PortRange{anyPort}, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, errA := strconv.ParseUint(first, 10, 16)
		b, errB := strconv.ParseUint(last, 10, 16)
		if errA != nil || errB != nil || a > b {
			return nil, fmt.Errorf("ports %q: want *, a port, or a range such as 8000-8010", part)
		}
		ranges = append(ranges, netmap.PortRange{First: uint16(a), Last: uint16(b)})
	}
	return ranges, nil
}

// parseFlow reads what a grant says in "ip": "*", "tcp", "443", "8000-8010" or
// "tcp:443,8000-8010".
func parseFlow(s string) (f flow, err error) {
	proto, ports, both := strings.Cut(s, ":")
	switch {
	case s == "*":
		proto, ports = "", "*"
	case both:
	case protoNames[s] == nil:
		proto, ports = "", s
	default:
		ports = "*"
	}
	if f.protos, err = parseProto(proto); err != nil {
		return flow{}, fmt.Errorf("%q: %w", s, err)
	}
	if f.ports, err = parsePorts(ports); err != nil {
		return flow{}, fmt.Errorf("%q: %w", s, err)
	}
	return f, nil
}
