package tka

import (
	"crypto/subtle"

	"golang.org/x/crypto/argon2"
)

// Parameters of the function that derives a disablement value from a secret
// (SVC-149).
const (
	disablementSalt   = "tailscale network-lock disablement salt"
	disablementTime   = 4        // passes
	disablementMemory = 16 << 10 // KiB
	disablementLanes  = 4
)

// Disables reports whether a secret turns the lock off: whoever has it was told
// when the lock was turned on. It takes some 50 ms of a processor and 16 MiB.
func (a *Authority) Disables(secret []byte) bool {
	value := argon2.Key(secret, []byte(disablementSalt), disablementTime, disablementMemory, disablementLanes, disablementLen)
	found := 0
	for _, v := range a.state.disablement {
		found |= subtle.ConstantTimeCompare(v, value)
	}
	return found == 1
}
