package bootstrap

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"strconv"
)

// A lookup finds what there is to tell of one name.
type lookup struct {
	entry
	unpublished bool
	service     *Service

	addrs   []netip.Addr // in random order, so that no family is preferred
	percent int          // of the clients that are told
}

// run resolves the name. One that fails is omitted (DERP-104): a name that has
// moved must not be told with its old address.
func (l *lookup) run(ctx context.Context) error {
	addrs, err := l.service.resolver.LookupIP(ctx, l.name)
	if err != nil {
		l.service.log.Warn("bootstrap name does not resolve; it is not told", "name", l.name, "err", err)
		return nil
	}
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	l.addrs, l.percent = addrs, 100
	if l.txt != "" {
		l.percent = l.rollout(ctx)
	}
	return nil
}

// rollout returns the percentage that the TXT record says; without a good record
// it is 0.
func (l *lookup) rollout(ctx context.Context) int {
	records, err := l.service.resolver.LookupTXT(ctx, l.txt)
	if err != nil {
		l.service.log.Warn("bootstrap name has no rollout percentage; it is not told", "name", l.name, "txt", l.txt, "err", err)
		return 0
	}
	for _, r := range records {
		if p, err := strconv.Atoi(r); err == nil && 0 <= p && p <= 100 {
			return p
		}
	}
	l.service.log.Warn("bootstrap rollout percentage is no number from 0 to 100; name is not told", "name", l.name, "txt", l.txt)
	return 0
}
