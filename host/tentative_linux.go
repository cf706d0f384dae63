package host

import (
	"bufio"
	"encoding/hex"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// notYet returns the IPv6 addresses that the kernel lists but does not use: it
// is still asking, for a second or so, whether another host has them, or has
// learned that one does (RFC 4862 section 5.4). An address that counted from
// then on would be acted on before packets can come from it.
func notYet() map[netip.Addr]bool {
	f, err := openNet("if_inet6")
	if err != nil {
		return nil // no IPv6, or a sandbox hides it
	}
	defer f.Close()
	return parseNotYet(f)
}

// parseNotYet reads /proc/net/if_inet6, all of it hexadecimal but the name:
//
//	address index length scope flags interface
func parseNotYet(table io.Reader) map[netip.Addr]bool {
	var not map[netip.Addr]bool
	for lines := bufio.NewScanner(table); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 6 {
			continue
		}
		a, err := hex.DecodeString(f[0])
		flags, flagsErr := strconv.ParseUint(f[4], 16, 32)
		if err != nil || len(a) != 16 || flagsErr != nil || !waits(flags) {
			continue
		}
		if not == nil {
			not = make(map[netip.Addr]bool)
		}
		not[netip.AddrFrom16([16]byte(a))] = true
	}
	return not
}

// waits reports whether an address with these flags (rtnetlink(7)) must not be
// used. An optimistic one may be (RFC 4429).
func waits(flags uint64) bool {
	tentative := flags&unix.IFA_F_TENTATIVE != 0 && flags&unix.IFA_F_OPTIMISTIC == 0
	return tentative || flags&unix.IFA_F_DADFAILED != 0
}
