package node

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Listen announces on the tailnet. network is tcp, tcp4 or tcp6; the host part
// of addr is empty for all own addresses, present and future, or one own
// address; port 0 picks a free port (SVC-63). It starts the node if necessary,
// and need not wait for it to run. Connections to a port without a listener
// are refused. WhoIsConn tells who opened an accepted connection. A node that runs
// has one port from 32768 on for its own service to peers, one that is free then.
func (n *Node) Listen(network, addr string) (net.Listener, error) {
	ap, err := n.listenAddr("tcp", network, addr)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	ln, err := n.run.stack.ListenTCP(ap)
	if err != nil {
		return nil, fmt.Errorf("listen %s %s: %w", network, addr, err)
	}
	return &listener{ln, n.run}, nil
}

// ListenPacket announces a UDP socket on the tailnet. network is udp, udp4 or
// udp6; the host part of addr may be empty for all own addresses, in which case
// replies leave from the address that was asked (SVC-60). Otherwise as Listen.
//
// As package net's, ip4:icmp and ip6:ipv6-icmp open a raw socket for the messages
// of ICMP, with an own address or nothing for addr: the socket gets each that
// comes, and sends what it is given, without IP headers, from and to *net.IPAddr.
// The node answers pings all the same.
func (n *Node) ListenPacket(network, addr string) (net.PacketConn, error) {
	if strings.HasPrefix(network, "ip") {
		return n.listenICMP(network, addr)
	}
	ap, err := n.listenAddr("udp", network, addr)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	n.run.names.WantService() // WriteTo may ask there
	pc, err := n.run.stack.ListenUDP(ap)
	if err != nil {
		return nil, fmt.Errorf("listen %s %s: %w", network, addr, err)
	}
	return pc, nil
}

// listenICMP is ListenPacket for raw sockets.
func (n *Node) listenICMP(network, addr string) (net.PacketConn, error) {
	host, err := parseICMP(network, addr)
	if err == nil {
		err = n.Start()
	}
	if err == nil {
		err = n.run.checkStack()
	}
	if err == nil && !host.IsUnspecified() {
		err = n.checkOwn(host)
	}
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	pc, err := n.run.stack.ListenICMP(host)
	if err != nil {
		return nil, fmt.Errorf("listen %s %s: %w", network, addr, err)
	}
	return pc, nil
}

// parseICMP parses what ListenPacket was given for a raw socket. There are none
// of other protocols; the tunnel's own is not for applications (SVC-37).
func parseICMP(network, addr string) (host netip.Addr, err error) {
	family := map[string]string{"ip4:icmp": "4", "ip4:1": "4", "ip6:ipv6-icmp": "6", "ip6:58": "6"}[strings.ToLower(network)]
	if family == "" {
		return host, fmt.Errorf("network %q: want ip4:icmp or ip6:ipv6-icmp", network)
	}
	return listenHost(addr, family)
}

// listenAddr starts the node and parses what Listen was given.
func (n *Node) listenAddr(proto, network, addr string) (netip.AddrPort, error) {
	ap, err := parseListen(proto, network, addr)
	if err != nil {
		return ap, err
	}
	if err := n.Start(); err != nil {
		return ap, err
	}
	if err := n.run.checkStack(); err != nil {
		return ap, err
	}
	if host := ap.Addr(); host.IsValid() && !host.IsUnspecified() {
		return ap, n.checkOwn(host)
	}
	return ap, nil
}

// checkOwn refuses an address that the netmap says is not ours.
func (n *Node) checkOwn(host netip.Addr) error {
	nm := n.run.control.Netmap.Get()
	if nm == nil || nm.Self == nil {
		return fmt.Errorf("%v: %w: own addresses are not known yet; listen on an empty host or call Up first", host, ErrNotRunning)
	}
	if !nm.Self.HasAddr(host) {
		return fmt.Errorf("%v is not an address of this node, which has %v", host, nm.Self.Addresses)
	}
	return nil
}

// parseListen splits an address to listen on. The host is invalid for both
// families, unspecified for all addresses of one.
func parseListen(proto, network, addr string) (ap netip.AddrPort, err error) {
	family, ok := strings.CutPrefix(network, proto)
	if !ok || family != "" && family != "4" && family != "6" {
		return ap, fmt.Errorf("network %q: want %s, %s4 or %s6", network, proto, proto, proto)
	}
	hostText, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return ap, err
	}
	port, err := portOf(context.Background(), proto, portText)
	if err != nil {
		return ap, err
	}
	host, err := listenHost(hostText, family)
	return netip.AddrPortFrom(host, port), err
}

func listenHost(text, family string) (netip.Addr, error) {
	if text == "" {
		switch family {
		case "4":
			return netip.IPv4Unspecified(), nil
		case "6":
			return netip.IPv6Unspecified(), nil
		}
		return netip.Addr{}, nil
	}
	host, err := netip.ParseAddr(text)
	if err != nil {
		return host, fmt.Errorf("host %q: want an IP address of this node, or nothing", text)
	}
	host = host.Unmap()
	if family == "4" && !host.Is4() || family == "6" && !host.Is6() {
		return host, fmt.Errorf("host %v is not an IPv%s address", host, family)
	}
	if host.IsUnspecified() && family == "" && host.Is6() {
		return netip.Addr{}, nil // [::] means both families, as with net.Listen
	}
	return host, nil
}

// portOf parses a port number or service name.
func portOf(ctx context.Context, network, text string) (uint16, error) {
	if p, err := strconv.ParseUint(text, 10, 16); err == nil {
		return uint16(p), nil
	}
	p, err := net.DefaultResolver.LookupPort(ctx, network, text)
	if err != nil {
		return 0, fmt.Errorf("port %q: want 0 to 65535 or the name of a service", text)
	}
	return uint16(p), nil
}
