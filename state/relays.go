package state

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/seed94491740/tsnode/netmap"
)

// keyRelays is a value of ours alone: other programs keep theirs beside the
// store.
const keyRelays = "_tsnode-derpmap"

// SaveRelays keeps the newest DERP map: the next start may need a relay before
// it has reached the control server (DERP-105).
func SaveRelays(ctx context.Context, s Store, m *netmap.DERPMap) error {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("state: encode DERP map: %w", err)
	}
	return s.Write(ctx, keyRelays, b)
}

// LoadRelays returns the DERP map that SaveRelays has kept, nil for none.
func LoadRelays(ctx context.Context, s Store) (*netmap.DERPMap, error) {
	b, err := read(ctx, s, keyRelays)
	if b == nil || err != nil {
		return nil, err
	}
	var m *netmap.DERPMap
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("state: the value %q is no DERP map: %w", keyRelays, err)
	}
	return m, nil
}
