package proxy

import (
	"fmt"
	"net"
	"strings"
)

// A Kind says which way a forward goes.
type Kind uint8

// Kinds of forwards, and the flags of ssh that they are.
const (
	Local  Kind = iota + 1 // -L: listen on this machine, forward into the tailnet
	Remote                 // -R: listen on the tailnet, forward to what this machine reaches
	SOCKS                  // -D: a SOCKS5 proxy on this machine
	HTTP                   // an HTTP proxy on this machine
	Mixed                  // SOCKS5 and HTTP on one port (SVC-166)
)

// String returns the flag that stands for the kind.
func (k Kind) String() string {
	return map[Kind]string{Local: "-L", Remote: "-R", SOCKS: "-D", HTTP: "--http-proxy", Mixed: "-D and --http-proxy"}[k]
}

// A Spec is a forward as ssh writes it: where to listen, and what each connection
// is forwarded to.
type Spec struct {
	Kind    Kind
	Network string // "tcp" or "udp"
	Listen  string // host:port, an empty host for all addresses, localhost for 127.0.0.1 and ::1; or unix:/path, where Kind is not Remote
	Target  string // host:port; or unix:/path, where Kind is Remote; empty for proxies
	Options Options
}

// String returns the flag and the text that the spec is parsed from.
func (s Spec) String() string { return s.Kind.String() + " " + s.text() }

// text returns what ParseLocal, ParseRemote and ParseProxy read.
func (s Spec) text() string {
	parts := []string{fieldsOf(s.Listen)}
	if s.Target != "" {
		parts = append(parts, fieldsOf(s.Target))
	}
	text := strings.Join(parts, ":")
	if s.Network == "udp" {
		text += "/udp"
	}
	return text + s.Options.text()
}

// fieldsOf returns an address as it is written in a spec.
func fieldsOf(address string) string {
	if path, ok := strings.CutPrefix(address, unixPrefix); ok {
		if strings.ContainsAny(path, ":,") {
			return "[" + unixPrefix + path + "]"
		}
		return address
	}
	host, port, err := net.SplitHostPort(address)
	switch {
	case err != nil:
		return address
	case host == "":
		host = "*"
	case strings.ContainsAny(host, ":,"):
		host = "[" + host + "]"
	}
	return host + ":" + port
}

// unixPrefix begins the address of a unix socket.
const unixPrefix = "unix:"

// split returns network and address of what a spec names, as package net has them.
func split(network, address string) (string, string) {
	if path, ok := strings.CutPrefix(address, unixPrefix); ok {
		return "unix", path
	}
	return network, address
}

// ParseLocal reads "[bind:]port:host:hostport": listen on this machine, on
// its loopback interface unless bind says otherwise, and forward into the tailnet. An
// IPv6 address stands in brackets; an empty bind and "*" mean all addresses. In place of
// [bind:]port there may be unix:/path. Behind it may follow "/udp" and options, as
// [Options] has them. Ports may be ranges of the same length, as in
// 8000-8010:host:9000-9010: there is a Spec for each port.
func ParseLocal(text string) ([]Spec, error) {
	return parse(Local, text, func(f []field) (listen, target []field, err error) {
		switch {
		case len(f) == 3 && f[0].unix:
			return f[:1], f[1:], nil
		case len(f) == 3:
			return []field{{text: loopbackName}, f[0]}, f[1:], nil
		case len(f) == 4:
			return f[:2], f[2:], nil
		}
		return nil, nil, fmt.Errorf("want [bind:]port:host:hostport or unix:/path:host:hostport")
	})
}

// ParseRemote reads "[bind:]port:host:hostport": listen on the tailnet, on all
// addresses of the node unless bind is one of them, and forward to a host that this
// machine reaches. In place of host:hostport there may be unix:/path. Otherwise it
// is as ParseLocal.
func ParseRemote(text string) ([]Spec, error) {
	return parse(Remote, text, func(f []field) (listen, target []field, err error) {
		n := 2 // fields of the target
		if len(f) > 1 && f[len(f)-1].unix {
			n = 1
		}
		switch len(f) - n {
		case 1:
			return []field{{text: ""}, f[0]}, f[1:], nil
		case 2:
			return f[:2], f[2:], nil
		}
		return nil, nil, fmt.Errorf("want [bind:]port:host:hostport or [bind:]port:unix:/path")
	})
}

// ParseProxy reads "[bind:]port" or "unix:/path", where a proxy of the kind SOCKS
// or HTTP listens on this machine; it may be followed by options.
func ParseProxy(kind Kind, text string) (Spec, error) {
	specs, err := parse(kind, text, func(f []field) (listen, target []field, err error) {
		switch {
		case len(f) == 1 && f[0].unix, len(f) == 2:
			return f, nil, nil
		case len(f) == 1:
			return []field{{text: loopbackName}, f[0]}, nil, nil
		}
		return nil, nil, fmt.Errorf("want [bind:]port or unix:/path")
	})
	if err != nil {
		return Spec{}, err
	}
	if len(specs) > 1 {
		return Spec{}, fmt.Errorf("%v %q: a proxy has one port", kind, text)
	}
	return specs[0], nil
}
