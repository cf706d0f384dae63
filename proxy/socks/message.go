package socks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
)

// Numbers of the protocol (RFC 1928 sections 3 to 6, RFC 1929 section 2).
const (
	version     = 5
	authVersion = 1

	methodNone     = 0
	methodPassword = 2
	noMethod       = 0xff // none of those that the client offers will do

	commandConnect = 1
	commandUDP     = 3

	typeIPv4 = 1
	typeName = 3
	typeIPv6 = 4

	authSuccess = 0
	authFailure = 1
)

// errVersion says that a client does not speak SOCKS5.
var errVersion = errors.New("not SOCKS5")

// readGreeting reads which methods a client offers (RFC 1928 section 3).
func readGreeting(r io.Reader) (methods []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	if head[0] != version {
		return nil, fmt.Errorf("greeting of version %d: %w", head[0], errVersion)
	}
	methods = make([]byte, head[1])
	_, err = io.ReadFull(r, methods)
	return methods, err
}

// readPassword reads user name and password (RFC 1929 section 2).
func readPassword(r io.Reader) (user, password string, err error) {
	var v [1]byte
	if _, err := io.ReadFull(r, v[:]); err != nil {
		return "", "", err
	}
	if v[0] != authVersion {
		return "", "", fmt.Errorf("authentication of version %d: want %d", v[0], authVersion)
	}
	if user, err = readString(r); err == nil {
		password, err = readString(r)
	}
	return user, password, err
}

// readString reads a string behind its length of one byte.
func readString(r io.Reader) (string, error) {
	var n [1]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return "", err
	}
	b := make([]byte, n[0])
	_, err := io.ReadFull(r, b)
	return string(b), err
}

// A request is what a client wants.
type request struct {
	command byte
	to      address
}

// errAddressType says that an address is of a type that there is not.
var errAddressType = errors.New("unknown type of address")

// errName says that no host is called so.
var errName = errors.New("name that no host has")

// readRequest reads a request (RFC 1928 section 4). It takes nothing of what
// follows.
func readRequest(r io.Reader) (q request, err error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return q, err
	}
	if head[0] != version {
		return q, fmt.Errorf("request of version %d: %w", head[0], errVersion)
	}
	q.command = head[1]
	var rest []byte
	switch head[3] {
	case typeIPv4:
		rest = make([]byte, 4+2)
	case typeIPv6:
		rest = make([]byte, 16+2)
	case typeName:
		var n [1]byte
		if _, err := io.ReadFull(r, n[:]); err != nil {
			return q, err
		}
		rest = make([]byte, 1+int(n[0])+2)
		rest[0] = n[0]
	default:
		return q, fmt.Errorf("%w: %d", errAddressType, head[3])
	}
	from := 0
	if head[3] == typeName {
		from = 1
	}
	if _, err := io.ReadFull(r, rest[from:]); err != nil {
		return q, err
	}
	q.to, _, err = parseAddress(append([]byte{head[3]}, rest...))
	return q, err
}

// An address is what a client names: an IP address or a name, and a port. It is
// comparable.
type address struct {
	ip   netip.AddrPort // valid unless it is a name
	name string
	port uint16
}

// String returns host and port.
func (a address) String() string {
	if a.ip.IsValid() {
		return a.ip.String()
	}
	return net.JoinHostPort(a.name, strconv.Itoa(int(a.port)))
}

// errShort says that a message ends too early.
var errShort = errors.New("message is cut off")

// parseAddress reads type, address and port from the beginning of b; rest is what
// follows them.
func parseAddress(b []byte) (a address, rest []byte, err error) {
	if len(b) < 2 {
		return a, nil, errShort
	}
	size, body := 0, b[1:]
	switch b[0] {
	case typeIPv4:
		size = 4
	case typeIPv6:
		size = 16
	case typeName:
		size, body = int(b[1]), b[2:]
	default:
		return a, nil, fmt.Errorf("%w: %d", errAddressType, b[0])
	}
	if len(body) < size+2 {
		return a, nil, errShort
	}
	port := binary.BigEndian.Uint16(body[size:])
	if b[0] == typeName {
		a = address{name: string(body[:size]), port: port}
		if err := a.checkName(); err != nil {
			return a, nil, err
		}
	} else {
		ip, _ := netip.AddrFromSlice(body[:size])
		a.ip = netip.AddrPortFrom(ip.Unmap(), port)
	}
	return a, body[size+2:], nil
}

// checkName refuses what no host is called, and takes an address in the form of a
// name for the address it is.
func (a *address) checkName() error {
	if ip, err := netip.ParseAddr(a.name); err == nil && ip.Zone() == "" {
		*a = address{ip: netip.AddrPortFrom(ip.Unmap(), a.port)}
		return nil
	}
	if a.name == "" {
		return fmt.Errorf("an empty %w", errName)
	}
	for _, c := range []byte(a.name) {
		if c <= ' ' || c == 0x7f || c == '/' || c == ':' || c == '[' || c == ']' || c == '%' {
			return fmt.Errorf("%q: %w", a.name, errName)
		}
	}
	return nil
}

// appendAddress writes type, address and port; what is not valid is 0.0.0.0:0.
func appendAddress(b []byte, a netip.AddrPort) []byte {
	ip := a.Addr().Unmap()
	switch {
	case !ip.IsValid():
		return append(b, typeIPv4, 0, 0, 0, 0, 0, 0)
	case ip.Is4():
		b = append(b, typeIPv4)
	default:
		b = append(b, typeIPv6)
	}
	b = append(b, ip.AsSlice()...)
	return binary.BigEndian.AppendUint16(b, a.Port())
}

// parseDatagram reads the header of a datagram for the relay (RFC 1928 section 7).
// A fragment is errFragment.
func parseDatagram(b []byte) (to address, payload []byte, err error) {
	if len(b) < 4 {
		return to, nil, errShort
	}
	if b[2] != 0 {
		return to, nil, errFragment
	}
	return parseAddress(b[3:])
}

// errFragment says that a datagram is a fragment: "An implementation that does not
// support fragmentation MUST drop any datagram whose FRAG field is other than X'00'"
// (RFC 1928 section 7).
var errFragment = errors.New("fragment")

// appendDatagram writes the header of a datagram that came from a host.
func appendDatagram(b []byte, from netip.AddrPort, payload []byte) []byte {
	b = appendAddress(append(b, 0, 0, 0), from)
	return append(b, payload...)
}
