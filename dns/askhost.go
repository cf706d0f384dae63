package dns

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/seed94491740/tsnode/host"
)

// forwardOrHost is forward for questions from inside the process and from peers:
// what no server of the tailnet is responsible for goes as it is to the servers of
// the host. Where these are not known, its resolver is asked, which knows
// addresses only.
func (r *Resolver) forwardOrHost(ctx context.Context, q *query, ways []Upstream) []byte {
	suffix, _ := r.Table().RouteOf(q.name)
	if suffix != "" || len(ways) > 0 || r.config.HostBarred != nil && r.config.HostBarred() {
		return r.forward(ctx, q, ways)
	}
	if ways = r.hostServers(); len(ways) > 0 && !under(q.name, "localhost") { // RFC 6761 section 6.3
		return r.forward(ctx, q, ways)
	}
	family, ok := map[dnsmessage.Type]string{dnsmessage.TypeA: "ip4", dnsmessage.TypeAAAA: "ip6"}[q.question.Type]
	if !ok {
		return r.forward(ctx, q, nil)
	}
	return r.lookUp(ctx, q, family)
}

// hostServers returns the servers of the host but for those that lead back here:
// the service addresses, which may be this node's or another's, and our own.
func (r *Resolver) hostServers() (ways []Upstream) {
	servers, err := host.Nameservers(r.config.Network)
	if err != nil {
		return nil
	}
	nm := r.config.Netmap.Get()
	for _, s := range servers {
		if a := s.Addr(); IsService(a) || nm != nil && nm.Self != nil && nm.Self.HasAddr(a) {
			continue
		}
		ways = append(ways, Upstream{Addr: s})
	}
	return ways
}

// lookUp answers with the addresses that the host's resolver knows. That it knows
// none of the family is an answer, and NXDOMAIN only if it knows none at all.
func (r *Resolver) lookUp(ctx context.Context, q *query, family string) []byte {
	r.count.forwarded.Add(1)
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	defer context.AfterFunc(r.ended, cancel)()
	addrs, err := r.config.Network.LookupNetIP(ctx, family, q.name)
	if saysNone(err) {
		var any []netip.Addr
		if any, err = r.config.Network.LookupNetIP(ctx, "ip", q.name); err == nil && len(any) == 0 || saysNone(err) {
			return q.withhold()
		}
	}
	if err != nil {
		r.count.failed.Add(1)
		return q.fail(dnsmessage.RCodeServerFailure)
	}
	return q.addrs(addrs)
}

// saysNone reports whether package net's error says that there is no such name, or
// that it has no address of the family.
func saysNone(err error) bool {
	missing, ok := errors.AsType[*net.DNSError](err)
	_, unsuitable := errors.AsType[*net.AddrError](err) // the other family has some, in /etc/hosts
	return ok && missing.IsNotFound || unsuitable
}
