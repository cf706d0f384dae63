package proxy

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"
)

// Options are what may follow a forward behind commas, as in
// 80:localhost:8080,proxy=v2,max=100.
type Options struct {
	// SendProxy ("proxy=v1", "proxy=v2") is the version of the PROXY protocol's
	// header that each connection to the target begins with: it tells who has
	// connected (SVC-103). 0 is none.
	SendProxy int

	// AcceptProxy ("accept-proxy") has each connection begin with such a header of
	// either version, which tells whom it is made for. One without is refused.
	// Whoever may connect is believed.
	AcceptProxy bool

	// Identity ("http", for -R) forwards HTTP requests one by one, and tells the
	// target in headers who asks (SVC-101, SVC-102).
	Identity bool

	// Mode ("mode=0660", for unix sockets to listen on) is who may connect, as the
	// permissions of the file; 0 is 0600, this user alone.
	Mode fs.FileMode

	// MaxConns ("max=N") bounds the connections or flows of the forward; 0 is
	// DefaultMaxConns. MaxPerSource ("max-per-source=N") bounds those of one
	// address; 0 is as many as are left for others.
	MaxConns, MaxPerSource int

	// Idle ("idle=30s", for UDP) is how long nothing may go either way of a flow
	// until it ends; 0 is 2 minutes, 30 seconds to port 53 (SVC-57).
	Idle time.Duration
}

// DefaultMaxConns is how many connections or flows a forward has at most, unless
// its options say otherwise.
const DefaultMaxConns = 32768

// option reads one option into o; known is false when there is none of that name.
func (o *Options) option(name, value string) (known bool, err error) {
	switch name {
	case "proxy":
		version, ok := map[string]int{"v1": 1, "v2": 2}[value]
		if !ok {
			return true, fmt.Errorf("proxy=%s: want proxy=v1 or proxy=v2", value)
		}
		o.SendProxy = version
	case "accept-proxy":
		o.AcceptProxy = true
		err = noValue(name, value)
	case "http":
		o.Identity = true
		err = noValue(name, value)
	case "mode":
		var bits uint64
		bits, err = strconv.ParseUint(value, 8, 9)
		if o.Mode = fs.FileMode(bits); err != nil || o.Mode == 0 {
			err = fmt.Errorf("mode=%s: want permissions such as mode=0660", value)
		}
	case "max":
		o.MaxConns, err = positive(name, value)
	case "max-per-source":
		o.MaxPerSource, err = positive(name, value)
	case "idle":
		o.Idle, err = time.ParseDuration(value)
		if err != nil || o.Idle <= 0 {
			err = fmt.Errorf("idle=%s: want a time such as idle=30s", value)
		}
	default:
		return false, nil
	}
	return true, err
}

func noValue(name, value string) error {
	if value != "" {
		return fmt.Errorf("%s=%s: %s takes no value", name, value, name)
	}
	return nil
}

func positive(name, value string) (int, error) {
	n, err := strconv.ParseUint(value, 10, 24)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%s=%s: want a number from 1 to %d", name, value, 1<<24-1)
	}
	return int(n), nil
}

// optionNames is for errors.
const optionNames = "proxy, accept-proxy, http, mode, max, max-per-source, idle"

func parseOptions(text string) (o Options, err error) {
	for one := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(one, "=")
		known, err := o.option(name, value)
		if err != nil {
			return o, err
		}
		if !known {
			return o, fmt.Errorf("%q is no option: want one of %s", name, optionNames)
		}
	}
	return o, nil
}

// text returns the options as they are written behind a forward.
func (o *Options) text() string {
	var b strings.Builder
	if o.SendProxy != 0 {
		fmt.Fprintf(&b, ",proxy=v%d", o.SendProxy)
	}
	for _, flag := range []struct {
		name string
		on   bool
	}{{"accept-proxy", o.AcceptProxy}, {"http", o.Identity}} {
		if flag.on {
			b.WriteString("," + flag.name)
		}
	}
	if o.Mode != 0 {
		fmt.Fprintf(&b, ",mode=%04o", o.Mode)
	}
	for _, number := range []struct {
		name string
		n    int
	}{{"max", o.MaxConns}, {"max-per-source", o.MaxPerSource}} {
		if number.n != 0 {
			fmt.Fprintf(&b, ",%s=%d", number.name, number.n)
		}
	}
	if o.Idle != 0 {
		fmt.Fprintf(&b, ",idle=%v", o.Idle)
	}
	return b.String()
}

// check returns why the options do not suit a spec.
func (o *Options) check(s *Spec) error {
	forward := s.Kind == Local || s.Kind == Remote
	switch {
	case !forward && (o.SendProxy != 0 || o.AcceptProxy || o.Identity):
		return errors.New("a proxy takes no option but mode, max and max-per-source")
	case s.Network == "udp" && (o.SendProxy != 0 || o.AcceptProxy || o.Identity):
		return errors.New("proxy, accept-proxy and http are for TCP: leave out /udp or the option")
	case s.Network != "udp" && o.Idle != 0:
		return errors.New("idle is for UDP: connections end when an end closes them")
	case o.Mode != 0 && (!strings.HasPrefix(s.Listen, unixPrefix) || isAbstract(s.Listen[len(unixPrefix):])):
		return errors.New("mode is for a unix socket to listen on that has a path")
	case o.Identity && s.Kind != Remote:
		return errors.New("http tells who of the tailnet asks: it is for -R")
	case o.Identity && (o.SendProxy != 0 || o.AcceptProxy):
		return errors.New("http tells by headers who asks, and needs no PROXY protocol: leave out one of them")
	}
	return nil
}
