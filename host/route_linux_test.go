package host

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tables are files in testdata/routes: the first line is a comment that says
// where the table is from and what is its default route, as
// "# ORIGIN: interface gateway", with - for what there is not.
func tables(t testing.TB) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("testdata/routes/*")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no tables in testdata/routes: %v", err)
	}
	all := make(map[string]string)
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(p)] = string(b)
	}
	return all
}

func parserFor(name string) parseRoute {
	if strings.HasPrefix(name, "v6") {
		return parseRoute6
	}
	return parseRoute4
}

func TestDefaultRouteTables(t *testing.T) {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Log("the tables of testdata are of little-endian machines; this one reads others")
		return
	}
	for name, file := range tables(t) {
		comment, table, _ := strings.Cut(file, "\n")
		_, want, _ := strings.Cut(comment, ": ")
		r, err := bestRoute(strings.NewReader(table), parserFor(name))
		got := "- -"
		if err == nil && r.Gateway.IsValid() {
			got = r.Interface + " " + r.Gateway.String()
		} else if err == nil {
			got = r.Interface + " -"
		}
		if got != want || (err != nil) != errors.Is(err, ErrNoRoute) {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
		for n := range table { // each truncation is a table, too
			bestRoute(strings.NewReader(table[:n]), parserFor(name))
		}
	}
}

// TestDefaultRouteLongTable: a default route behind 1000 others is not looked
// for, nor is a line that never ends read to its end (PATH-96).
func TestDefaultRouteLongTable(t *testing.T) {
	const route = "eth0 00000000 0101A8C0 0003 0 0 0 00000000 0 0 0\n"
	other := strings.Replace(route, "00000000", "0000000A", 1)
	if _, err := bestRoute(strings.NewReader(strings.Repeat(other, maxRoutes-1)+route), parseRoute4); err != nil {
		t.Errorf("line %d: %v", maxRoutes, err)
	}
	if _, err := bestRoute(strings.NewReader(strings.Repeat(other, maxRoutes)+route), parseRoute4); !errors.Is(err, ErrNoRoute) {
		t.Errorf("line %d: %v", maxRoutes+1, err)
	}
	if _, err := bestRoute(strings.NewReader(strings.Repeat("x", 1<<20)), parseRoute4); err == nil {
		t.Error("a line of 1 MiB is a route")
	}
}

// TestDefaultRoute: what the machine says is consistent, whatever it is.
func TestDefaultRoute(t *testing.T) {
	r, err := OS{}.DefaultRoute()
	if errors.Is(err, ErrNoRoute) || errors.Is(err, errors.ErrUnsupported) {
		t.Logf("this machine: %v", err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	all, err := OS{}.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if i.Name != r.Interface {
			continue
		}
		for _, p := range i.Addrs {
			if p.Addr() == r.Source {
				return
			}
		}
		if !r.Source.IsValid() {
			return
		}
	}
	t.Errorf("%+v is not of an interface in %v", r, all)
}

func FuzzDefaultRoute(f *testing.F) {
	for name, file := range tables(f) {
		_, table, _ := strings.Cut(file, "\n")
		f.Add(table, strings.HasPrefix(name, "v6"))
	}
	f.Fuzz(func(t *testing.T, table string, v6 bool) {
		parse := parseRoute4
		if v6 {
			parse = parseRoute6
		}
		r, err := bestRoute(strings.NewReader(table), parse)
		if err != nil {
			return
		}
		if r.Interface == "" || r.Gateway.IsValid() && r.Gateway.Zone() != "" && r.Gateway.Zone() != r.Interface {
			t.Errorf("%+v is no route", r)
		}
	})
}

// netlinkMessage returns one message of netlink(7).
func netlinkMessage(typ uint16, body ...byte) []byte {
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, make([]byte, 10)...) // flags, sequence, port
	b = append(b, body...)
	for len(b)%unix.NLMSG_ALIGNTO != 0 {
		b = append(b, 0)
	}
	return b
}

// routeMessage returns a message about a route to a destination of length bits.
func routeMessage(typ uint16, length, table, kind byte) []byte {
	return netlinkMessage(typ, unix.AF_INET, length, 0, 0, table, unix.RTPROT_DHCP, unix.RT_SCOPE_UNIVERSE, kind, 0, 0, 0, 0)
}

// TestTellsOfChange: routes that PATH-63 has ignored wake nobody.
func TestTellsOfChange(t *testing.T) {
	const main, local = unix.RT_TABLE_MAIN, unix.RT_TABLE_LOCAL
	subnet := routeMessage(unix.RTM_NEWROUTE, 24, main, unix.RTN_UNICAST)
	address := netlinkMessage(unix.RTM_NEWADDR, 1, 2, 3, 4, 5, 6, 7, 8)
	tests := []struct {
		name string
		b    []byte
		want bool
	}{
		{"nothing", nil, false},
		{"address", address, true},
		{"address of odd length", netlinkMessage(unix.RTM_DELADDR, 1), true},
		{"link", netlinkMessage(unix.RTM_NEWLINK), true},
		{"link gone", netlinkMessage(unix.RTM_DELLINK), true},
		{"default route", routeMessage(unix.RTM_NEWROUTE, 0, main, unix.RTN_UNICAST), true},
		{"default route gone", routeMessage(unix.RTM_DELROUTE, 0, main, unix.RTN_UNICAST), true},
		{"default route of another table", routeMessage(unix.RTM_NEWROUTE, 0, 52, unix.RTN_UNICAST), false},
		{"route to a network", subnet, false},
		{"local route", routeMessage(unix.RTM_NEWROUTE, 32, local, unix.RTN_LOCAL), false},
		{"multicast route", routeMessage(unix.RTM_NEWROUTE, 8, local, unix.RTN_MULTICAST), false},
		{"no default route", routeMessage(unix.RTM_NEWROUTE, 0, main, unix.RTN_UNREACHABLE), false},
		{"end of a dump", netlinkMessage(unix.NLMSG_DONE), false},
		{"lost messages", netlinkMessage(unix.NLMSG_OVERRUN), true},
		{"unknown", netlinkMessage(999), true},
		{"second of two", append(subnet[:len(subnet):len(subnet)], address...), true},
		{"two of none", append(subnet[:len(subnet):len(subnet)], subnet...), false},
		{"length too long", []byte{255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, true},
		{"length 0", make([]byte, 16), true},
	}
	for _, tt := range tests {
		if got := tellsOfChange(tt.b); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
		for n := 1; n < len(tt.b) && n < 16; n++ {
			if !tellsOfChange(tt.b[:n]) {
				t.Errorf("%s: %d bytes of it are no change", tt.name, n)
			}
		}
	}
}

func FuzzTellsOfChange(f *testing.F) {
	f.Add(netlinkMessage(unix.RTM_NEWADDR, 1, 2, 3, 4, 5, 6, 7, 8))
	f.Add(routeMessage(unix.RTM_NEWROUTE, 24, unix.RT_TABLE_MAIN, unix.RTN_UNICAST))
	f.Fuzz(func(t *testing.T, b []byte) {
		// Messages before others are not lost on the way to them.
		if link := netlinkMessage(unix.RTM_NEWLINK); !tellsOfChange(append(link, b...)) {
			t.Error("a link's message goes unheard")
		}
		tellsOfChange(b)
	})
}

// TestGatewayZone: the link-local gateway of IPv6 names its interface.
func TestGatewayZone(t *testing.T) {
	line := "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003 eth0"
	r, metric, ok := parseRoute6(strings.Fields(line))
	if want := netip.MustParseAddr("fe80::1%eth0"); !ok || metric != 0x400 || r.Gateway != want {
		t.Errorf("%+v, metric %d, %v; want gateway %v", r, metric, ok, want)
	}
}
