package vpn

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// VT-01: headers, byte for byte, in both orders (VPN-04), which the parser tells
// apart (VPN-05).
func TestHeaderBytes(t *testing.T) {
	for _, tt := range []struct {
		role  role
		order HeaderOrder
		want  string
	}{
		{roleTunnel, HeaderShipped, "codervpn tunnel 1.3"},
		{roleManager, HeaderShipped, "codervpn manager 1.3"},
		{roleTunnel, HeaderSeed, "codervpn 1.0 tunnel"},
		{roleManager, HeaderSeed, "codervpn 1.0 manager"},
	} {
		h := newHeader(tt.role, tt.order)
		if h.String() != tt.want {
			t.Errorf("%s %s: got %q, want %q", tt.role, tt.order, h, tt.want)
		}
		got, err := parseHeader(tt.want, tt.role)
		if err != nil || got.order != tt.order || got.String() != tt.want {
			t.Errorf("parse %q: got %+v, %v", tt.want, got, err)
		}
	}
}

// VT-01, VPN-06: headers of other protocols, roles and forms.
func TestHeaderRejects(t *testing.T) {
	for _, line := range []string{
		"", "codervpn", "codervpn manager", "codervpn manager 1.3 ", " codervpn manager 1.3", "codervpn  manager 1.3",
		"Codervpn manager 1.3", "codervpn Manager 1.3", "codervpn tunnel 1.3", "codervpn service 1.3", "codervpn 1.3 tunnel",
		"codervpn manager 1.3\r", "codervpn\tmanager\t1.3", "codervpn manager manager", "codervpn 1.3 1.3",
		"codervpn manager 1.0,1.1", "codervpn manager", "codervpn  1.3", "HTTP/1.1 200 OK",
	} {
		if h, err := parseHeader(line, roleManager); err == nil {
			t.Errorf("%q: got %+v", line, h)
		}
	}
}

// VT-01: 255 bytes before the line feed are the most, and what follows it stays.
func TestReadLineLimits(t *testing.T) {
	for _, tt := range []struct {
		text string
		want int // bytes of the line; -1: an error
	}{
		{strings.Repeat("x", 254) + "\nnext", 254},
		{strings.Repeat("x", 255) + "\nnext", 255},
		{strings.Repeat("x", 256) + "\nnext", -1},
		{strings.Repeat("x", 300), -1},
		{"\nnext", 0},
	} {
		r := strings.NewReader(tt.text)
		line, err := readLine(r)
		rest, _ := io.ReadAll(r)
		if tt.want < 0 {
			if !errors.Is(err, errLongHeader) {
				t.Errorf("%d bytes: got %v", len(tt.text), err)
			}
			continue
		}
		if err != nil || len(line) != tt.want || string(rest) != "next" {
			t.Errorf("%d bytes: got %d, %v, and %q after it", tt.want, len(line), err, rest)
		}
	}
	if _, err := readLine(strings.NewReader("codervpn")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("end inside of the header: %v", err)
	}
}

func FuzzHeader(f *testing.F) {
	for _, line := range []string{
		"codervpn tunnel 1.3", "codervpn 1.0 tunnel", "codervpn manager 1.3,2.1", "codervpn 1.0,2.7 manager", "codervpn manager 1.x", "",
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		for _, want := range []role{roleManager, roleTunnel} {
			h, err := parseHeader(line, want)
			if err != nil {
				continue
			}
			again, err := parseHeader(h.String(), want)
			if err != nil || again.String() != h.String() {
				t.Errorf("%q: read as %q, and that as %q, %v", line, h, again, err)
			}
			if v, err := common(h.versions, h.versions); err != nil || v != h.versions[len(h.versions)-1] {
				t.Errorf("%q agrees with itself on %v, %v", line, v, err)
			}
		}
	})
}
