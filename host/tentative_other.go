//go:build !linux

package host

import "net/netip"

// notYet is not told by systems other than Linux.
func notYet() map[netip.Addr]bool { return nil }
