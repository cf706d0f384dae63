package settings

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/seed94491740/tsnode/proxy"
)

// What Type of a value returns; wants says what each looks like in a file.
const (
	kindText     = "string"
	kindSwitch   = "bool"
	kindPort     = "port"
	kindDuration = "duration"
	kindSize     = "size"
	kindList     = "list"
	kindRoutes   = "routes"
	kindProxies  = "list or string"
)

// A scalar is a setting that one text says. It is the value of a flag.
type scalar[T any] struct {
	to    *T
	kind  string
	parse func(string) (T, error)
}

var _ pflag.Value = scalar[bool]{}

// Set implements pflag.Value; an error changes nothing.
func (s scalar[T]) Set(text string) error {
	v, err := s.parse(text)
	if err == nil {
		*s.to = v
	}
	return err
}

// String implements pflag.Value.
func (s scalar[T]) String() string { return fmt.Sprint(*s.to) }

// Type implements pflag.Value.
func (s scalar[T]) Type() string { return s.kind }

// A list is a setting of several texts. It is the value of a flag that may be
// given more than once.
type list[T any] struct {
	to     *[]T
	parse  func(string) (T, error)
	commas bool // whether one flag may hold several, apart by commas
	single bool // whether one text may stand in place of a list, and an empty one for none
	given  bool
}

var _ pflag.SliceValue = (*list[string])(nil)

// Set implements pflag.Value: the first time in place of the default, then
// beside what was given before.
func (l *list[T]) Set(text string) error {
	if !l.given {
		*l.to, l.given = nil, true
	}
	switch {
	case l.single && text == "":
		return nil // none
	case !l.commas:
		return l.Append(text)
	}
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		if err := l.Append(part); err != nil {
			return err
		}
	}
	return nil
}

// Append implements pflag.SliceValue.
func (l *list[T]) Append(text string) error {
	v, err := l.parse(text)
	if err == nil {
		*l.to = append(*l.to, v)
	}
	return err
}

// Replace implements pflag.SliceValue.
func (l *list[T]) Replace(texts []string) error {
	*l.to, l.given = nil, true
	for _, t := range texts {
		if err := l.Append(t); err != nil {
			return err
		}
	}
	return nil
}

// GetSlice implements pflag.SliceValue.
func (l *list[T]) GetSlice() (texts []string) {
	for _, v := range *l.to {
		texts = append(texts, fmt.Sprint(v))
	}
	return texts
}

// String implements pflag.Value.
func (l *list[T]) String() string { return strings.Join(l.GetSlice(), ",") }

// Type implements pflag.Value.
func (l *list[T]) Type() string {
	if l.single {
		return kindProxies
	}
	return kindList
}

func (l *list[T]) apartByCommas() bool { return l.commas }

// RouteChoice returns the value of a flag that is true, false, or a list of networks
// and nodes whose routes alone are taken, as accept-routes is.
func RouteChoice(on *bool, from *[]string) pflag.Value { return routeChoice{on, from} }

// A routeChoice is the value of accept-routes: true, false, or a list of networks
// and nodes.
type routeChoice struct {
	on   *bool
	from *[]string
}

// Set implements pflag.Value.
func (c routeChoice) Set(text string) error {
	if on, err := strconv.ParseBool(text); err == nil {
		*c.on, *c.from = on, nil
		return nil
	}
	var from []string
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part == "" {
			return errors.New("want true, false, or networks and nodes such as 10.0.0.0/8,router")
		}
		from = append(from, part)
	}
	*c.on, *c.from = true, from
	return nil
}

// String implements pflag.Value.
func (c routeChoice) String() string {
	if len(*c.from) > 0 {
		return strings.Join(*c.from, ",")
	}
	return strconv.FormatBool(*c.on)
}

// Type implements pflag.Value.
func (routeChoice) Type() string { return kindRoutes }

// The parsers of values. Their errors say what is wanted; where it was said, and
// what, is for the caller to add.

func anyText(text string) (string, error) { return text, nil }

func parseSwitch(text string) (bool, error) {
	on, err := strconv.ParseBool(text)
	if err != nil {
		return false, errors.New("want true or false")
	}
	return on, nil
}

func parsePort(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0, errors.New("want a port number from 0 to 65535")
	}
	return uint16(n), nil
}

func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, errors.New("want a duration such as 10s or 1m30s")
	}
	return d, nil
}

func parseTag(text string) (string, error) {
	if name, ok := strings.CutPrefix(text, "tag:"); !ok || name == "" {
		return "", fmt.Errorf("%q: want a tag such as tag:web", text)
	}
	return text, nil
}

// oneOf returns a parser of the words given.
func oneOf(words ...string) func(string) (string, error) {
	return func(text string) (string, error) {
		if !slices.Contains(words, text) {
			return "", fmt.Errorf("want %s", strings.Join(words, " or "))
		}
		return text, nil
	}
}

func parseDestination(text string) (string, error) {
	_, err := proxy.ParseDestination(text)
	return text, err
}

// parseAddress reads what ssh's -W takes: host:port, an IPv6 address in brackets.
func parseAddress(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil || host == "" {
		return "", errors.New("want host:port, as in web:22 or [fd7a:115c:a1e0::1]:22")
	}
	if n, err := parsePort(port); err != nil || n == 0 {
		return "", fmt.Errorf("port %q: want a port number from 1 to 65535", port)
	}
	return text, nil
}

// parseListen reads where an endpoint listens: [IP]:port, where no address means
// all, for it is the orchestrator of a container that asks.
func parseListen(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	_, port, err := net.SplitHostPort(text)
	if err != nil {
		return "", errors.New("want [IP]:port, as in :9002 or 127.0.0.1:9002")
	}
	if _, err := parsePort(port); err != nil {
		return "", fmt.Errorf("port %q: %w", port, err)
	}
	return text, nil
}
