package key

import (
	"fmt"
	"io"
	"log/slog"
)

// What a private key shows instead of itself.
const (
	machineRedacted   = "machine-private-key(redacted)"
	nodeRedacted      = "node-private-key(redacted)"
	discoRedacted     = "disco-private-key(redacted)"
	challengeRedacted = "challenge-private-key(redacted)"
	lockRedacted      = "lock-private-key(redacted)"
	sharedRedacted    = "disco-shared-key(redacted)"
)

// String never shows the key.
func (MachinePrivate) String() string { return machineRedacted }

// Format never shows the key, whatever the verb.
func (MachinePrivate) Format(f fmt.State, _ rune) { io.WriteString(f, machineRedacted) }

// LogValue never shows the key.
func (MachinePrivate) LogValue() slog.Value { return slog.StringValue(machineRedacted) }

// String never shows the key.
func (NodePrivate) String() string { return nodeRedacted }

// Format never shows the key, whatever the verb.
func (NodePrivate) Format(f fmt.State, _ rune) { io.WriteString(f, nodeRedacted) }

// LogValue never shows the key.
func (NodePrivate) LogValue() slog.Value { return slog.StringValue(nodeRedacted) }

// String never shows the key.
func (DiscoPrivate) String() string { return discoRedacted }

// Format never shows the key, whatever the verb.
func (DiscoPrivate) Format(f fmt.State, _ rune) { io.WriteString(f, discoRedacted) }

// LogValue never shows the key.
func (DiscoPrivate) LogValue() slog.Value { return slog.StringValue(discoRedacted) }

// String never shows the key.
func (ChallengePrivate) String() string { return challengeRedacted }

// Format never shows the key, whatever the verb.
func (ChallengePrivate) Format(f fmt.State, _ rune) { io.WriteString(f, challengeRedacted) }

// LogValue never shows the key.
func (ChallengePrivate) LogValue() slog.Value { return slog.StringValue(challengeRedacted) }

// String never shows the key.
func (LockPrivate) String() string { return lockRedacted }

// Format never shows the key, whatever the verb.
func (LockPrivate) Format(f fmt.State, _ rune) { io.WriteString(f, lockRedacted) }

// LogValue never shows the key.
func (LockPrivate) LogValue() slog.Value { return slog.StringValue(lockRedacted) }

// String never shows the key.
func (DiscoShared) String() string { return sharedRedacted }

// Format never shows the key, whatever the verb.
func (DiscoShared) Format(f fmt.State, _ rune) { io.WriteString(f, sharedRedacted) }

// LogValue never shows the key.
func (DiscoShared) LogValue() slog.Value { return slog.StringValue(sharedRedacted) }

// MarshalText always fails: an agreed key is never stored.
func (DiscoShared) MarshalText() ([]byte, error) { return nil, errSecret }
