package portmap

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sort"
	"strings"
)

// maxDevices is how many answers to a search are kept (PATH-103).
const maxDevices = 10

// ssdpPort is where devices listen for searches; ssdpGroup is their multicast
// address (UPnP Device Architecture 1.1, section 1).
const ssdpPort = 1900

var ssdpGroup = netip.AddrPortFrom(netip.AddrFrom4([4]byte{239, 255, 255, 250}), ssdpPort)

// What is searched for (PATH-103).
const (
	searchAll     = "ssdp:all"
	searchGateway = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
)

// A search is one datagram that asks devices to say where they are.
type search struct {
	to     netip.AddrPort
	target string
}

// searches returns what to send, in order: the one to the gateway alone comes
// first, because it makes the host's firewall let the answers in.
func searches(gateway netip.Addr) []search {
	return []search{
		{netip.AddrPortFrom(gateway, ssdpPort), searchAll},
		{ssdpGroup, searchAll},
		{ssdpGroup, searchGateway},
	}
}

// append appends the datagram (UPnP Device Architecture 1.1, section 1.3.2).
func (s search) append(b []byte) []byte {
	return fmt.Appendf(b, "M-SEARCH * HTTP/1.1\r\n"+
		"HOST: 239.255.255.250:1900\r\n"+
		"ST: %s\r\n"+
		"MAN: \"ssdp:discover\"\r\n"+
		"MX: 2\r\n\r\n", s.target)
}

// A device is an internet gateway that has answered a search.
type device struct {
	location *url.URL // of its description; the host is an IPv4 literal
	server   string   // what it calls itself
	usn      string   // its unique name, which ends with its type and version
}

// parseSearchAnswer parses an answer to a search. ok is false for a device that
// is no internet gateway.
func parseSearchAnswer(b []byte) (d device, ok bool, err error) {
	r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), nil)
	if err != nil {
		return device{}, false, fmt.Errorf("SSDP answer: %w", err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return device{}, false, fmt.Errorf("SSDP answer with status %q", r.Status)
	}
	d.server, d.usn = r.Header.Get("Server"), r.Header.Get("Usn")
	if !isGatewayType(d.usn) && !isGatewayType(r.Header.Get("St")) {
		return device{}, false, nil
	}
	d.location, err = parseLocation(r.Header.Get("Location"))
	if err != nil {
		return device{}, false, err
	}
	return d, true, nil
}

func isGatewayType(s string) bool { return strings.Contains(s, ":InternetGatewayDevice:") }

// parseLocation accepts plain HTTP at an IPv4 literal: nobody on the local
// network makes this node look up a name (PATH-103).
func parseLocation(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil {
		return nil, fmt.Errorf("SSDP answer: location: %w", err)
	}
	ip, err := netip.ParseAddr(u.Hostname())
	if u.Scheme != "http" || err != nil || !ip.Is4() {
		return nil, fmt.Errorf("SSDP answer: location %q is not http at an IPv4 address", s)
	}
	return u, nil
}

// atGateway returns u with its host replaced by the gateway, the only one this
// node asks; the port stays.
func atGateway(u *url.URL, gateway netip.Addr) *url.URL {
	v := *u
	v.User = nil
	v.Host = gateway.String()
	if p := u.Port(); p != "" {
		v.Host += ":" + p
	}
	return &v
}

// addDevice adds d unless it is known or there are too many. The order is that
// of use: version 2 of a gateway before its version 1 (PATH-103).
func addDevice(known []device, d device) []device {
	same := func(k device) bool { return *k.location == *d.location && k.server == d.server }
	if len(known) >= maxDevices || slices.ContainsFunc(known, same) {
		return known
	}
	known = append(known, d)
	sort.SliceStable(known, func(i, j int) bool { return known[i].usn > known[j].usn })
	return known
}
