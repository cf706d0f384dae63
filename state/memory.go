package state

import (
	"context"
	"fmt"
	"io"
	"sync"
)

// A Memory is a store that is lost with the process. A node on it must be
// ephemeral, or each run leaves a dead node behind on the tailnet (SVC-141).
type Memory struct {
	mu     sync.Mutex
	values map[string][]byte
}

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{values: make(map[string][]byte)} }

// String never shows the values.
func (*Memory) String() string { return "state.Memory" }

// Format never shows the values, whatever the verb.
func (m *Memory) Format(f fmt.State, _ rune) { io.WriteString(f, m.String()) }

// Read returns a copy of the value of id.
func (m *Memory) Read(ctx context.Context, id string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.values[id]
	if !ok {
		return nil, notFound(id)
	}
	return append([]byte{}, v...), nil
}

// Write keeps a copy of value; nil deletes.
func (m *Memory) Write(ctx context.Context, id string, value []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if value == nil {
		delete(m.values, id)
		return nil
	}
	m.values[id] = append([]byte{}, value...)
	return nil
}
