package proxy

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// A Spec is a forward as ssh writes it: where to listen, and what each
// connection is forwarded to.
type Spec struct {
	Listen string // host:port; an empty host means all addresses
	Target string // host:port
}

// String returns the spec in the form that ParseLocal reads.
func (s Spec) String() string { return s.Listen + " to " + s.Target }

// ParseLocal reads "[bind:]port:host:hostport": listen on the host, on
// 127.0.0.1 unless bind says otherwise, and forward into the tailnet. An IPv6
// address stands in brackets; bind "*" means all addresses.
func ParseLocal(text string) (Spec, error) {
	f, err := fields(text)
	if err == nil && len(f) == 3 {
		f = append([]string{"127.0.0.1"}, f...)
	}
	if err == nil && len(f) != 4 {
		err = errors.New("want [bind:]port:host:hostport")
	}
	if err != nil {
		return Spec{}, fmt.Errorf("forward %q: %w", text, err)
	}
	if f[0] == "*" {
		f[0] = ""
	}
	return spec(text, f)
}

// ParseRemote reads "port:host:hostport": listen on the tailnet and forward to
// a host that this machine reaches.
func ParseRemote(text string) (Spec, error) {
	f, err := fields(text)
	if err == nil && len(f) != 3 {
		err = errors.New("want port:host:hostport")
	}
	if err != nil {
		return Spec{}, fmt.Errorf("forward %q: %w", text, err)
	}
	return spec(text, append([]string{""}, f...))
}

// spec checks bind, port, host and hostport.
func spec(text string, f []string) (Spec, error) {
	for _, port := range []string{f[1], f[3]} {
		if p, err := strconv.ParseUint(port, 10, 16); err != nil || p == 0 && port == f[3] {
			return Spec{}, fmt.Errorf("forward %q: %q is not a port number from 1 to 65535", text, port)
		}
	}
	if f[2] == "" {
		return Spec{}, fmt.Errorf("forward %q: the host to forward to is missing", text)
	}
	return Spec{Listen: net.JoinHostPort(f[0], f[1]), Target: net.JoinHostPort(f[2], f[3])}, nil
}

// fields splits text at colons that are not within brackets, and removes the
// brackets.
func fields(text string) (f []string, err error) {
	for rest := text; ; {
		var field string
		if inner, ok := strings.CutPrefix(rest, "["); ok {
			field, rest, ok = strings.Cut(inner, "]")
			if !ok || rest != "" && rest[0] != ':' {
				return nil, errors.New("brackets do not match")
			}
		} else {
			end := strings.IndexByte(rest, ':')
			if end < 0 {
				end = len(rest)
			}
			field, rest = rest[:end], rest[end:]
		}
		f = append(f, field)
		if rest == "" {
			return f, nil
		}
		rest = rest[1:]
	}
}
