package iface

import (
	"errors"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed94491740/tsnode/internal/ownnet"
)

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, t := range texts {
		all = append(all, netip.MustParsePrefix(t))
	}
	return all
}

var wanted = Settings{
	MTU: 1280, Addrs: prefixes("100.64.0.1/32", "fd7a:115c:a1e0::1/128"),
	Routes:   prefixes("0.0.0.0/0", "100.64.0.0/10", "fd7a:115c:a1e0::/48"),
	Excluded: prefixes("192.168.1.0/24"),
}

// Settings are commands for who may not make the changes, in an order in which
// they can be run; a family without an address has none.
func TestCommands(t *testing.T) {
	got := strings.Join(Commands("ts0", wanted), "\n")
	for _, want := range []string{
		"ip link set dev ts0 mtu 1280 up\nip addr replace 100.64.0.1/32 dev ts0\nip route replace throw 192.168.1.0/24 table ",
		"ip route replace 0.0.0.0/0 dev ts0 table ",
		"ip -6 addr replace fd7a:115c:a1e0::1/128 dev ts0",
		"ip -6 rule add not fwmark 0x740000/0xff0000 lookup ",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("commands %s\nlack %q", got, want)
		}
	}
	for _, line := range Commands("ts0", Settings{Addrs: prefixes("100.64.0.1/32"), Routes: prefixes("fd7a::/16")}) {
		if strings.Contains(line, "-6") {
			t.Errorf("without an address of IPv6: %s", line)
		}
	}
}

// lists returns what ip(8) shows of both families, rules and the interface's table.
func lists(t *testing.T, name string) string {
	t.Helper()
	table := []string{"table", fmtTable(name)}
	text := ownnet.IP(t, "addr show dev "+name) + ownnet.IP(t, "rule show")
	for _, family := range []string{"-4", "-6"} {
		text += ownnet.IP(t, family+" rule show")
		out, _ := exec.Command("ip", slices.Concat([]string{family, "route", "show"}, table)...).Output() // fails without a table
		text += string(out)
	}
	return text
}

func fmtTable(name string) string {
	line := Commands(name, wanted)
	last := strings.Fields(line[len(line)-1])
	return last[len(last)-3]
}

// VPN-56, VPN-50: settings are applied in the kernel, a change takes away what is
// no longer asked for, one that cannot be had leaves the ones before, and Close
// leaves nothing. What marked packets do is shown by the route that the kernel
// finds (VPN-51).
func TestApply(t *testing.T) {
	if !ownnet.Again(t) {
		return
	}
	ownnet.IP(t, "link set lo up")
	ownnet.IP(t, "link add ts0 type veth peer name other")
	ownnet.IP(t, "link set other up")
	ownnet.IP(t, "addr add 192.0.2.2/24 dev other")
	ownnet.IP(t, "route add default via 192.0.2.1 dev other")
	i, err := Open("ts0")
	if err != nil {
		t.Fatal(err)
	}
	clean := lists(t, "ts0")
	if err := i.Apply(wanted); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"mtu 1280", "inet 100.64.0.1/32", "throw 192.168.1.0/24", "default dev ts0", "not from all fwmark 0x740000/0xff0000 lookup " + fmtTable("ts0")} {
		if got := lists(t, "ts0"); !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	for line, want := range map[string]string{
		"route get 198.51.100.1": "dev ts0", "route get 198.51.100.1 mark 0x740000": "dev other",
		"route get 192.168.1.9": "dev other", "route get 100.64.0.7": "dev ts0",
	} {
		if got := ownnet.IP(t, line); !strings.Contains(got, want) {
			t.Errorf("ip %s: %s, want %s", line, got, want)
		}
	}
	again, err := Open("ts0") // as after a process that was killed
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Apply(wanted); err != nil {
		t.Errorf("over what another process has left: %v", err)
	}

	less := wanted
	less.Routes, less.Excluded = prefixes("100.64.0.0/10"), nil
	if err := i.Apply(less); err != nil {
		t.Fatal(err)
	}
	if got := lists(t, "ts0"); strings.Contains(got, "default dev ts0") || strings.Contains(got, "throw") {
		t.Errorf("routes that nobody wants any more: %s", got)
	}
	before := lists(t, "ts0")
	bad := less
	bad.MTU, bad.Routes = 1<<30, prefixes("10.0.0.0/8")
	if err := i.Apply(bad); !errors.Is(err, unix.EINVAL) {
		t.Errorf("an MTU of a gigabyte: %v", err)
	}
	if got := lists(t, "ts0"); got != before {
		t.Errorf("after settings that cannot be had:\n%s\nwant\n%s", got, before)
	}
	if err := i.Close(); err != nil {
		t.Error(err)
	}
	got := lists(t, "ts0")
	if strings.Contains(got, "100.64.") || strings.Contains(got, "0x740000") {
		t.Errorf("after Close:\n%s\nbefore all:\n%s", got, clean)
	}
	if err := i.Close(); err != nil {
		t.Errorf("Close again: %v", err)
	}
}
