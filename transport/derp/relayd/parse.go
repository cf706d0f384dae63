package relayd

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// parseListen reads the address of a listener: a port, perhaps behind an IP
// address. A name would be one more thing that can fail later.
func parseListen(text string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q: want [IP]:port, as in :443 or 192.0.2.1:443", text)
	}
	n, err := net.LookupPort("tcp", port)
	if err != nil || strings.HasPrefix(port, "-") {
		return netip.AddrPort{}, fmt.Errorf("%q: %q is not a TCP port", text, port)
	}
	switch host {
	case "":
		return netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(n)), nil
	case "localhost":
		host = "127.0.0.1"
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q: %q is not an IP address of this machine", text, host)
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)), nil
}

// joinListen is the counterpart of parseListen for package net, where an empty
// host stands for all addresses of both families.
func joinListen(ip netip.Addr, port uint16) string {
	if ip == netip.IPv6Unspecified() {
		return fmt.Sprintf(":%d", port)
	}
	return netip.AddrPortFrom(ip, port).String()
}

// parsePrefix reads a network or a single address.
func parsePrefix(text string) (netip.Prefix, error) {
	if ip, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return p, fmt.Errorf("%q: want an IP address or a network, as in 192.0.2.0/24", text)
	}
	return p.Masked(), nil
}

// parseWebURL reads a URL of the web.
func parseWebURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("%q: want a URL as in https://example.org/path", text)
	}
	return u, nil
}

// parseMeshPeer reads host or host/dialhost (derp.md section 14.1), the host
// with a port where that is not 443.
func parseMeshPeer(text string) (meshPeer, error) {
	host, dial, cut := strings.Cut(text, "/")
	if !isHost(host) || cut && !isHostName(dial) && !isIP(dial) {
		return meshPeer{}, fmt.Errorf("%q: want the name of a relay's certificate, or name/address to dial another address", text)
	}
	return meshPeer{host: host, dial: dial}, nil
}

// isHost reports whether s is a DNS name or an IP address, with or without a
// port.
func isHost(s string) bool {
	if host, port, err := net.SplitHostPort(s); err == nil {
		n, err := strconv.ParseUint(port, 10, 16)
		return err == nil && n > 0 && (isHostName(host) || isIP(host))
	}
	return isHostName(s) || isIP(s) && !strings.Contains(s, ":")
}

func isIP(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

// isHostName reports whether s looks like a DNS name (RFC 1123 section 2.1).
func isHostName(s string) bool {
	bad := strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '.')
	})
	return s != "" && len(s) <= 253 && !bad && !strings.Contains(s, "..") && s[0] != '.' && s[0] != '-'
}
