package dns

import (
	"context"
	"errors"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// Lookup returns the addresses of a name as Dial wants them, IPv4 first; network
// is ip, ip4 or ip6. Names of the tailnet are looked up in its netmap; names below
// a split route, and all names while an exit node is in use, are asked for; ours
// is false for any other, which is the host's to resolve (SVC-79). A name of one
// label is completed with the tailnet's search domains.
func (r *Resolver) Lookup(ctx context.Context, network, name string) (addrs []netip.Addr, ours bool, err error) {
	t := r.Table()
	if addrs, ok := t.Lookup(name); ok {
		return addrs, true, nil
	}
	full, ok := canonical(name)
	if !ok || full == "" {
		return nil, false, nil
	}
	ours = t.responsible(full)
	for _, candidate := range t.candidates(full, name) {
		if addrs, ok := t.Lookup(candidate); ok {
			return addrs, true, nil
		}
		if !t.responsible(candidate) {
			continue
		}
		addrs, err = r.ask(ctx, network, candidate)
		switch {
		case err == nil:
			return addrs, true, nil
		case candidate == full && !errors.Is(err, ErrNotFound):
			return nil, true, err
		}
	}
	if ours {
		return nil, true, ErrNotFound
	}
	return nil, false, nil
}

// candidates are the names that may be meant by one: itself and, of one label
// without a dot behind it, what the search domains make of it.
func (t *Table) candidates(name, written string) []string {
	candidates := []string{name}
	if strings.Contains(written, ".") {
		return candidates
	}
	for _, domain := range t.search {
		candidates = append(candidates, name+"."+domain)
	}
	return candidates
}

// responsible reports whether it is the tailnet that says where a name leads.
func (t *Table) responsible(name string) bool {
	if under(name, "localhost") {
		return false // RFC 6761 section 6.3
	}
	if _, ok := t.zoneOf(name); ok {
		return true
	}
	suffix, ways := t.RouteOf(name)
	return suffix != "" || t.prefs.ExitNode != "" && len(ways) > 0
}

// ask asks for the addresses of a name.
func (r *Resolver) ask(ctx context.Context, network, name string) ([]netip.Addr, error) {
	types := map[string][]dnsmessage.Type{
		"ip": {dnsmessage.TypeA, dnsmessage.TypeAAAA}, "ip4": {dnsmessage.TypeA}, "ip6": {dnsmessage.TypeAAAA},
	}[network]
	var all []netip.Addr
	var failed error
	for _, typ := range types {
		addrs, err := r.askType(ctx, name, typ)
		if err != nil && !errors.Is(err, ErrNotFound) {
			failed = err
		}
		all = append(all, addrs...)
	}
	switch {
	case len(all) > 0:
		return all, nil
	case failed != nil:
		return nil, failed
	}
	return nil, ErrNotFound
}

func (r *Resolver) askType(ctx context.Context, name string, typ dnsmessage.Type) ([]netip.Addr, error) {
	question, err := newQuery(0, name, typ)
	if err != nil {
		return nil, err
	}
	msg, err := r.Query(ctx, "tcp", question)
	if err != nil {
		return nil, err
	}
	addrs, code, err := parseAddrs(msg)
	switch {
	case err != nil:
		return nil, err
	case code == dnsmessage.RCodeNameError, code == dnsmessage.RCodeSuccess && len(addrs) == 0:
		return nil, ErrNotFound
	case code != dnsmessage.RCodeSuccess:
		return nil, &CodeError{Name: name, Code: code}
	}
	return addrs, nil
}

// A CodeError says that a question was answered with a failure.
type CodeError struct {
	Name string
	Code dnsmessage.RCode
}

// Error names the question and the code.
func (e *CodeError) Error() string {
	return "dns: " + e.Name + ": the servers of the tailnet's DNS configuration say " + e.Code.String()
}
