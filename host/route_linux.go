package host

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxRoutes is how many lines of a routing table are read: the kernel lists the
// default route among the first, and a router's table has a million (PATH-96).
const maxRoutes = 1000

// A parseRoute reads one line of a routing table. It reports whether that is a
// usable default route, and its metric.
type parseRoute func(fields []string) (r Route, metric uint64, ok bool)

// defaultRoute reads the tables in /proc/net (proc_net(5)): IPv4, then IPv6.
func defaultRoute() (Route, error) {
	r, err4 := readRoutes("route", parseRoute4)
	if err4 == nil {
		return r, nil
	}
	r, err6 := readRoutes("ipv6_route", parseRoute6)
	if err6 == nil {
		return r, nil
	}
	if errors.Is(err4, ErrNoRoute) || errors.Is(err6, ErrNoRoute) { // a kernel may lack a family
		return Route{}, fmt.Errorf("host: default route: %w", ErrNoRoute)
	}
	return Route{}, fmt.Errorf("host: default route: %w: %w", errors.ErrUnsupported, errors.Join(err4, err6))
}

// openNet opens a file of /proc/net, which is that of the process's first
// thread, as it is for this thread: threads may be in namespaces of their own.
func openNet(name string) (*os.File, error) {
	if f, err := os.Open("/proc/thread-self/net/" + name); err == nil {
		return f, nil
	}
	return os.Open("/proc/net/" + name)
}

func readRoutes(name string, parse parseRoute) (Route, error) {
	f, err := openNet(name)
	if err != nil {
		return Route{}, err
	}
	defer f.Close()
	return bestRoute(f, parse)
}

// bestRoute returns the default route of the least metric.
func bestRoute(table io.Reader, parse parseRoute) (best Route, err error) {
	err = ErrNoRoute
	var least uint64
	lines := bufio.NewScanner(table)
	for n := 0; n < maxRoutes && lines.Scan(); n++ {
		r, metric, ok := parse(strings.Fields(lines.Text()))
		if ok && (err != nil || metric < least) {
			best, least, err = r, metric, nil
		}
	}
	if err != nil && lines.Err() != nil {
		err = lines.Err()
	}
	return best, err
}

// parseRoute4 reads a line of /proc/net/route. Addresses are the hexadecimal of
// the kernel's word, whose bytes are in network order in memory:
//
//	Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT
//	eth0  00000000 010011AC 0003 0 0 100 00000000 0 0 0
func parseRoute4(f []string) (r Route, metric uint64, ok bool) {
	if len(f) < 8 {
		return Route{}, 0, false
	}
	dst, err1 := parseWord(f[1])
	gateway, err2 := parseWord(f[2])
	flags, err3 := strconv.ParseUint(f[3], 16, 16)
	metric, err4 := strconv.ParseUint(f[6], 10, 32)
	mask, err5 := parseWord(f[7])
	if errors.Join(err1, err2, err3, err4, err5) != nil || !leads(flags) || dst != [4]byte{} || mask != [4]byte{} {
		return Route{}, 0, false
	}
	r.Interface = f[0]
	if flags&unix.RTF_GATEWAY != 0 {
		r.Gateway = netip.AddrFrom4(gateway)
	}
	return r, metric, true
}

func parseWord(s string) (b [4]byte, err error) {
	v, err := strconv.ParseUint(s, 16, 32)
	binary.NativeEndian.PutUint32(b[:], uint32(v))
	return b, err
}

// parseRoute6 reads a line of /proc/net/ipv6_route, all of it hexadecimal:
//
//	destination length source length nexthop metric refcnt use flags interface
func parseRoute6(f []string) (r Route, metric uint64, ok bool) {
	if len(f) < 10 {
		return Route{}, 0, false
	}
	length, err1 := strconv.ParseUint(f[1], 16, 8)
	source, err2 := strconv.ParseUint(f[3], 16, 8)
	gateway, err3 := hex.DecodeString(f[4])
	metric, err4 := strconv.ParseUint(f[5], 16, 32)
	flags, err5 := strconv.ParseUint(f[8], 16, 32)
	if errors.Join(err1, err2, err3, err4, err5) != nil || !leads(flags) || length != 0 || source != 0 || len(gateway) != 16 {
		return Route{}, 0, false
	}
	r.Interface = f[9]
	if flags&unix.RTF_GATEWAY != 0 {
		r.Gateway = netip.AddrFrom16([16]byte(gateway)).Unmap()
		if r.Gateway.IsLinkLocalUnicast() {
			r.Gateway = r.Gateway.WithZone(r.Interface)
		}
	}
	return r, metric, r.Interface != "lo" // the kernel's own entries of no route
}

// leads reports whether a route with these flags is up and goes somewhere.
func leads(flags uint64) bool {
	return flags&unix.RTF_UP != 0 && flags&unix.RTF_REJECT == 0
}
