package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/seed94491740/tsnode/node"
)

// protocols are the IP protocols that have a name here; their numbers are IANA's.
var protocols = []struct {
	name   string
	number uint8
}{{"tcp", 6}, {"udp", 17}, {"sctp", 132}, {"icmp", 1}}

// icmp6 is the number of icmp between IPv6 addresses; RFC 4443.
const icmp6 = 58

// A tuple describes the first packet of a connection as it was typed.
type tuple struct {
	protocol uint8
	src, dst end
}

// An end is one end of a connection.
type end struct {
	host string // name, IP address or selfWord
	port uint16 // 0: none
}

// selfWord stands for the node itself.
const selfWord = "self"

// parseTuple reads protocol, source and destination.
func parseTuple(args []string) (t tuple, err error) {
	if t.protocol, err = parseProtocol(args[0]); err != nil {
		return t, err
	}
	if t.src, err = parseEnd(args[1]); err != nil {
		return t, fmt.Errorf("source %q: %w", args[1], err)
	}
	if t.dst, err = parseEnd(args[2]); err != nil {
		return t, fmt.Errorf("destination %q: %w", args[2], err)
	}
	switch ports := hasPorts(t.protocol); {
	case ports && t.dst.port == 0:
		return t, fmt.Errorf("destination %q: want a port, as in %s", args[2], net.JoinHostPort(t.dst.host, "80"))
	case !ports && t.src.port != 0:
		return t, fmt.Errorf("source %q: %s has no ports", args[1], args[0])
	case !ports && t.dst.port != 0:
		return t, fmt.Errorf("destination %q: %s has no ports", args[2], args[0])
	}
	return t, nil
}

func parseProtocol(text string) (uint8, error) {
	for _, p := range protocols {
		if strings.EqualFold(text, p.name) {
			return p.number, nil
		}
	}
	number, err := strconv.ParseUint(text, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("protocol %q: want tcp, udp, sctp, icmp or a number from 0 to 255", text)
	}
	return uint8(number), nil
}

// protocolName returns the name of a protocol, else its number.
func protocolName(number uint8) string {
	if number == icmp6 {
		return "icmp"
	}
	for _, p := range protocols {
		if p.number == number {
			return p.name
		}
	}
	return "protocol " + strconv.Itoa(int(number))
}

func hasPorts(protocol uint8) bool { return protocol == 6 || protocol == 17 || protocol == 132 }

// parseEnd reads host or host:port.
func parseEnd(text string) (end, error) {
	if a, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil { // an IPv6 address has colons of its own
		return end{host: a.Unmap().String()}, nil
	}
	if text != "" && !strings.Contains(text, ":") {
		return end{host: text}, nil
	}
	host, portText, err := net.SplitHostPort(text)
	if err != nil || host == "" {
		return end{}, errors.New("want HOST or HOST:PORT, with brackets around an IPv6 address")
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 {
		return end{}, fmt.Errorf("port %q: want a number from 1 to 65535", portText)
	}
	return end{host, uint16(port)}, nil
}

// errFamilies says that a packet cannot be both.
var errFamilies = errors.New("one is IPv4 and the other IPv6")

// query makes the names addresses. A packet from the node itself is outbound.
func (t *tuple) query(n *node.Node) (q node.PacketQuery, err error) {
	src, err := addressesOf(n, t.src.host)
	if err != nil {
		return q, fmt.Errorf("source: %w", err)
	}
	dst, err := addressesOf(n, t.dst.host)
	if err != nil {
		return q, fmt.Errorf("destination: %w", err)
	}
	from, to, ok := sameFamily(src, dst)
	if !ok {
		return q, fmt.Errorf("source %v, destination %v: %w", src, dst, errFamilies)
	}
	q = node.PacketQuery{
		Protocol: t.protocol, Src: netip.AddrPortFrom(from, t.src.port), Dst: netip.AddrPortFrom(to, t.dst.port),
	}
	ip4, ip6 := n.TailscaleIPs()
	q.Inbound = from != ip4 && from != ip6
	if from.Is6() && q.Protocol == 1 {
		q.Protocol = icmp6
	}
	return q, nil
}

// addressesOf returns the addresses that a host of a tuple may mean.
func addressesOf(n *node.Node, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	if host == selfWord {
		ip4, ip6 := n.TailscaleIPs()
		return []netip.Addr{ip4, ip6}, nil
	}
	p, ok := n.Peer(host)
	if !ok {
		return nil, fmt.Errorf("%q: %w", host, node.ErrNameNotFound)
	}
	return p.TailscaleIPs, nil
}

// sameFamily returns the first two addresses that are of one family.
func sameFamily(src, dst []netip.Addr) (from, to netip.Addr, ok bool) {
	for _, from := range src {
		for _, to := range dst {
			if from.IsValid() && to.IsValid() && from.Is4() == to.Is4() {
				return from, to, true
			}
		}
	}
	return netip.Addr{}, netip.Addr{}, false
}
