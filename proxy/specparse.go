package proxy

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
)

// maxRange bounds the ports of one range: each is a listener.
const maxRange = 1024

// A field is what stands between two colons of a spec.
type field struct {
	text string // without brackets; of a unix socket its path
	unix bool
}

// parse reads a spec; sides tells which fields say where to listen, and which what
// to forward to.
func parse(kind Kind, text string, sides func([]field) (listen, target []field, err error)) ([]Spec, error) {
	specs, err := parseSides(kind, text, sides)
	if err != nil {
		return nil, fmt.Errorf("%v %q: %w", kind, text, err)
	}
	return specs, nil
}

func parseSides(kind Kind, text string, sides func([]field) (listen, target []field, err error)) ([]Spec, error) {
	where, options, hasOptions := cutOptions(text)
	f, err := fields(where)
	if err != nil {
		return nil, err
	}
	base := Spec{Kind: kind, Network: "tcp"}
	if last := &f[len(f)-1]; !last.unix {
		if port, network, ok := strings.Cut(last.text, "/"); ok {
			last.text, base.Network = port, network
		}
	}
	if hasOptions {
		if base.Options, err = parseOptions(options); err != nil {
			return nil, err
		}
	}
	listen, target, err := sides(f)
	if err != nil {
		return nil, err
	}
	switch {
	case listen[0].text == "*":
		listen[0].text = ""
	case listen[0].text == loopbackName && base.Network == "udp":
		listen[0].text = "127.0.0.1" // a socket has one address
	}
	specs, err := base.expand(listen, target)
	if err == nil {
		err = specs[0].check()
	}
	return specs, err
}

// expand returns a spec for each port to listen on.
func (s Spec) expand(listen, target []field) (specs []Spec, err error) {
	from, err := addresses(listen, true)
	if err != nil {
		return nil, err
	}
	to := make([]string, len(from)) // of a proxy
	if target != nil {
		if to, err = addresses(target, false); err != nil {
			return nil, err
		}
	}
	if len(from) != len(to) {
		return nil, fmt.Errorf("%d ports cannot be forwarded to %d: want ranges of the same length, as in 8000-8010:host:9000-9010", len(from), len(to))
	}
	for i := range from {
		s.Listen, s.Target = from[i], to[i]
		specs = append(specs, s)
	}
	return specs, nil
}

// check returns why the parts of a spec do not go together.
func (s *Spec) check() error {
	switch {
	case s.Network != "tcp" && s.Network != "udp":
		return fmt.Errorf("/%s is no protocol: want /tcp or /udp", s.Network)
	case s.Network == "udp" && (strings.HasPrefix(s.Listen, unixPrefix) || strings.HasPrefix(s.Target, unixPrefix)):
		return errors.New("a unix socket carries no UDP: leave out /udp")
	case s.Network == "udp" && s.Kind != Local && s.Kind != Remote:
		return errors.New("a proxy listens on TCP: leave out /udp")
	}
	return s.Options.check(s)
}

// checkAll returns why a set cannot have those forwards: nothing but a program makes
// specs that no text stands for, and what they would listen on is anybody's guess.
func checkAll(all []Spec) error {
	for _, s := range all {
		if err := s.checkWhole(); err != nil {
			return fmt.Errorf("forward %q: %w", s.String(), err)
		}
	}
	return nil
}

// checkWhole is check for a spec that need not have been parsed.
func (s *Spec) checkWhole() error {
	switch {
	case s.Kind < Local || s.Kind > Mixed:
		return fmt.Errorf("no forward is of kind %d: make it with ParseLocal, ParseRemote or ParseProxy", s.Kind)
	case !isAddress(s.Listen):
		return fmt.Errorf("%q is no address to listen on: want host:port or unix:/path", s.Listen)
	case s.Kind <= Remote && !isAddress(s.Target):
		return fmt.Errorf("%q is no address to forward to: want host:port or unix:/path", s.Target)
	}
	return s.check()
}

// isAddress reports whether text is host:port, or names a unix socket.
func isAddress(text string) bool {
	_, port, err := net.SplitHostPort(text)
	return err == nil && port != "" || len(text) > len(unixPrefix) && strings.HasPrefix(text, unixPrefix)
}

// addresses returns what host and port, or a unix socket, name: an address for each
// port. Only to listen may the port be 0 and the host be empty.
func addresses(f []field, listen bool) (list []string, err error) {
	if len(f) == 1 {
		return []string{unixPrefix + f[0].text}, nil
	}
	if f[0].unix || f[1].unix {
		return nil, errors.New("a unix socket stands in place of host and port")
	}
	if f[0].text == "" && !listen {
		return nil, errors.New("the host to forward to is missing")
	}
	first, last, err := ports(f[1].text, listen)
	if err != nil {
		return nil, err
	}
	for p := first; p <= last; p++ {
		list = append(list, net.JoinHostPort(f[0].text, strconv.Itoa(p)))
	}
	return list, nil
}

// ports reads a port or a range of ports.
func ports(text string, zero bool) (first, last int, err error) {
	from, to, isRange := strings.Cut(text, "-")
	if first, err = port(from, zero && !isRange); err != nil || !isRange {
		return first, first, err
	}
	if last, err = port(to, false); err != nil {
		return 0, 0, err
	}
	if last < first || last-first >= maxRange {
		return 0, 0, fmt.Errorf("ports %s: want the lower port first, and %d at most", text, maxRange)
	}
	return first, last, nil
}

func port(text string, zero bool) (int, error) {
	p, err := strconv.ParseUint(text, 10, 16)
	if err != nil || p == 0 && !zero {
		return 0, fmt.Errorf("%q is not a port number from 1 to 65535", text)
	}
	return int(p), nil
}

// cutOptions splits text at the first comma that is not within brackets.
func cutOptions(text string) (where, options string, found bool) {
	inside := false
	for i, c := range text {
		switch {
		case c == '[':
			inside = true
		case c == ']':
			inside = false
		case c == ',' && !inside:
			return text[:i], text[i+1:], true
		}
	}
	return text, "", false
}

// fields splits text at colons that are not within brackets or behind "unix:", and
// removes the brackets.
func fields(text string) (f []field, err error) {
	for rest := text; ; {
		var one field
		if one, rest, err = nextField(rest); err != nil {
			return nil, err
		}
		f = append(f, one)
		if rest == "" {
			return f, nil
		}
		rest = rest[1:]
	}
}

// nextField reads the first field; rest is what follows it, from its colon on.
func nextField(text string) (f field, rest string, err error) {
	if inner, ok := strings.CutPrefix(text, "["); ok {
		f.text, rest, ok = strings.Cut(inner, "]")
		if !ok || rest != "" && rest[0] != ':' && rest[0] != '/' {
			return f, "", errors.New("brackets do not match")
		}
		f.text, f.unix = strings.CutPrefix(f.text, unixPrefix)
	} else {
		text, f.unix = strings.CutPrefix(text, unixPrefix)
		end := strings.IndexByte(text, ':')
		if end < 0 {
			end = len(text)
		}
		f.text, rest = text[:end], text[end:]
	}
	if f.unix = f.unix || strings.HasPrefix(f.text, "/"); f.unix && (f.text == "" || !filepath.IsAbs(f.text) && f.text[0] != '/' && !isAbstract(f.text)) {
		return f, "", fmt.Errorf("unix:%s: want a path from / on, as in unix:/run/app.sock", f.text)
	}
	if strings.ContainsAny(f.text, "[]") {
		return f, "", errors.New("brackets do not match")
	}
	if rest != "" && rest[0] != ':' {
		return f, "", errors.New("want a colon behind the brackets")
	}
	return f, rest, nil
}
