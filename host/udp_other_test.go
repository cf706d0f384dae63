//go:build !linux

package host

const maxAllocs = 1 << 10 // the portable path allocates inside package net

// withoutOffload reports that there is no offload to switch off.
func withoutOffload(UDPConn) bool { return false }
