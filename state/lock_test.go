package state

import (
	"reflect"
	"testing"
)

func TestLock(t *testing.T) { // SVC-146
	s, ctx := NewMemory(), t.Context()
	if got, err := LoadLock(ctx, s); got != nil || err != nil {
		t.Errorf("an empty store has %v, %v", got, err)
	}
	want := [][]byte{{1, 2}, {3}}
	if err := SaveLock(ctx, s, want); err != nil {
		t.Fatal(err)
	}
	if got, err := LoadLock(ctx, s); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("kept %v, %v", got, err)
	}
	s.Write(ctx, keyLock, []byte("{"))
	if got, err := LoadLock(ctx, s); got != nil || err == nil {
		t.Errorf("damaged: %v, %v; it must not look like none", got, err)
	}
	if err := SaveLock(ctx, s, nil); err != nil {
		t.Fatal(err)
	}
	if got, err := LoadLock(ctx, s); got != nil || err != nil {
		t.Errorf("forgotten: %v, %v", got, err)
	}
}
