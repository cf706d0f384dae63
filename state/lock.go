package state

import (
	"context"
	"encoding/json"
	"fmt"
)

// keyLock is a value of ours alone: other programs keep theirs beside the store.
const keyLock = "_tsnode-lock"

// SaveLock keeps the updates of tailnet lock, which belong to the login; nil
// forgets them (SVC-146).
func SaveLock(ctx context.Context, s Store, updates [][]byte) error {
	if updates == nil {
		return s.Write(ctx, keyLock, nil)
	}
	b, err := json.Marshal(updates)
	if err != nil {
		return fmt.Errorf("state: encode tailnet lock: %w", err)
	}
	return s.Write(ctx, keyLock, b)
}

// LoadLock returns the updates that SaveLock has kept, nil for none.
func LoadLock(ctx context.Context, s Store) ([][]byte, error) {
	b, err := read(ctx, s, keyLock)
	if b == nil || err != nil {
		return nil, err
	}
	var updates [][]byte
	if err := json.Unmarshal(b, &updates); err != nil {
		return nil, damaged(keyLock, err)
	}
	return updates, nil
}
