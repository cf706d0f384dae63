package vpn

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// preamble begins every header; maxHeader is the most bytes before its line
// feed (vpn-tunnel.md section 2.2).
const (
	preamble  = "codervpn"
	maxHeader = 255
)

// A HeaderOrder is the order of role and version in the header that a side
// sends. Both are understood always.
type HeaderOrder string

// Orders of a header (vpn-tunnel.md section 2.1).
const (
	HeaderAuto    HeaderOrder = "auto"    // the peer's if it speaks first, within 250 ms, else shipped
	HeaderShipped HeaderOrder = "shipped" // role, then version: all known front ends
	HeaderSeed    HeaderOrder = "seed"    // version, then role: the protocol's first text
)

// check refuses an order that does not exist; empty is HeaderAuto.
func (o HeaderOrder) check() error {
	switch o {
	case HeaderAuto, HeaderShipped, HeaderSeed, "":
		return nil
	}
	return fmt.Errorf("header order %q: want %s, %s or %s", string(o), HeaderAuto, HeaderShipped, HeaderSeed)
}

// A role is a side of the stream.
type role string

const (
	roleManager role = "manager"
	roleTunnel  role = "tunnel"
)

// peer is the role on the other side.
func (r role) peer() role {
	if r == roleManager {
		return roleTunnel
	}
	return roleManager
}

// A header is the first line that a side sends.
type header struct {
	role     role
	versions []Version
	order    HeaderOrder // HeaderShipped or HeaderSeed
}

// newHeader is the header of a side in an order. A peer that knows the seed
// order only knows its version only (VPN-04).
func newHeader(r role, order HeaderOrder) header {
	if order == HeaderSeed {
		return header{r, []Version{seedVersion}, HeaderSeed}
	}
	return header{r, []Version{ownVersion}, HeaderShipped}
}

// String is the header as sent, without the line feed.
func (h header) String() string {
	texts := make([]string, len(h.versions))
	for i, v := range h.versions {
		texts[i] = v.String()
	}
	list := strings.Join(texts, ",")
	if h.order == HeaderSeed {
		return preamble + " " + list + " " + string(h.role)
	}
	return preamble + " " + string(h.role) + " " + list
}

// parseHeader reads the line of a peer that must have the role want, in either
// order: only a version begins with a digit (VPN-05, VPN-06).
func parseHeader(line string, want role) (h header, err error) {
	parts := strings.Split(line, " ")
	if len(parts) != 3 || parts[0] != preamble {
		return h, fmt.Errorf("header %.40q: want %q", line, newHeader(want, HeaderShipped).String())
	}
	peer, list := parts[1], parts[2]
	h.order = HeaderShipped
	if peer != "" && peer[0] >= '0' && peer[0] <= '9' {
		peer, list = list, peer
		h.order = HeaderSeed
	}
	if peer != string(want) {
		return h, fmt.Errorf("header %.40q: the peer is %.20q, want %q", line, peer, string(want))
	}
	h.role = want
	if h.versions, err = parseVersions(list); err != nil {
		return h, fmt.Errorf("header %.40q: %w", line, err)
	}
	return h, nil
}

// errLongHeader says that the first line does not end.
var errLongHeader = fmt.Errorf("header has more than %d bytes: the peer speaks another protocol", maxHeader)

// readLine reads up to the line feed, which it drops.
func readLine(r io.ByteReader) (string, error) {
	var line []byte
	for len(line) <= maxHeader {
		c, err := r.ReadByte()
		switch {
		case errors.Is(err, io.EOF):
			return "", fmt.Errorf("header: the stream ends after %d bytes: %w", len(line), io.ErrUnexpectedEOF)
		case err != nil:
			return "", fmt.Errorf("header: %w", err)
		case c == '\n':
			return string(line), nil
		}
		line = append(line, c)
	}
	return "", errLongHeader
}
