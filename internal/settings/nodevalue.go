package settings

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/seed94491740/tsnode/node"
	"github.com/seed94491740/tsnode/state"
)

// The parsers of what a node would refuse when it starts: here each has its place.

func parseHostname(text string) (string, error) {
	return text, (&node.Node{Hostname: text}).Check()
}

func parseServer(text string) (string, error) {
	return text, (&node.Node{ControlURL: text}).Check()
}

func parseLimit(text string) (int64, error) {
	n, err := parseSize(text)
	if err == nil {
		err = (&node.Node{MemoryLimit: n}).Check()
	}
	return n, err
}

// parsePrefix reads a network to offer.
func parsePrefix(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q: want a network such as 10.0.0.0/8", text)
	}
	return p, (&node.Node{AdvertiseRoutes: []netip.Prefix{p}}).Check()
}

// parseState reads where the node's keys are kept, by a prefix (SVC-139).
func parseState(text string) (string, error) {
	prefix, name, hasPrefix := strings.Cut(text, ":")
	switch {
	case text == StateMemory || !hasPrefix:
		return text, nil
	case prefix+":" == StateKube:
		return text, state.CheckSecretName(name)
	case !strings.ContainsAny(prefix, `/\.`) && len(prefix) > 1: // one letter is a drive
		return "", fmt.Errorf("%q: this version has no store %s: use mem:, kube:SECRET or the path of a file", text, prefix)
	}
	return text, nil
}
