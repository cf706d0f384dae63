package main

import (
	"fmt"
	"strings"

	"github.com/seed94491740/tsnode/internal/settings"
	"github.com/seed94491740/tsnode/state"
)

// openStore opens where the node's keys are kept, by the prefix of the setting
// state (SVC-139). It is nil when that is not set: then the node opens a file in
// its folder, or keeps keys in memory.
func openStore(s *settings.Settings) (state.Store, error) {
	prefix, _, hasPrefix := strings.Cut(s.State, ":")
	switch {
	case s.State == "":
		return nil, nil
	case s.State == settings.StateMemory:
		return state.NewMemory(), nil
	case hasPrefix && !strings.ContainsAny(prefix, `/\.`) && len(prefix) > 1: // one letter is a drive
		return nil, &usageError{fmt.Errorf("%s: %q: this version has no store %s: use mem: or the path of a file", s.From("state"), s.State, prefix)}
	}
	return state.OpenFile(s.State)
}
