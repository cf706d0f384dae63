package state

import (
	"reflect"
	"testing"

	"github.com/seed94491740/tsnode/netmap"
)

func TestRelays(t *testing.T) { // DERP-105
	s, ctx := NewMemory(), t.Context()
	if m, err := LoadRelays(ctx, s); m != nil || err != nil {
		t.Errorf("an empty store has %v, %v", m, err)
	}
	want := &netmap.DERPMap{Regions: map[int]*netmap.Region{7: {
		RegionID: 7, RegionCode: "x",
		Nodes: []*netmap.DERPNode{{Name: "7a", RegionID: 7, HostName: "relay.example", IPv4: "192.0.2.1"}},
	}}}
	if err := SaveRelays(ctx, s, want); err != nil {
		t.Fatal(err)
	}
	if m, err := LoadRelays(ctx, s); err != nil || !reflect.DeepEqual(m, want) {
		t.Errorf("kept %+v, %v", m, err)
	}
	s.Write(ctx, keyRelays, []byte("{"))
	if m, err := LoadRelays(ctx, s); m != nil || err == nil {
		t.Errorf("damaged: %v, %v", m, err)
	}
	if p, err := Load(ctx, s); err != nil || p.LoggedIn() {
		t.Errorf("the profile beside it: %v, %v", p, err)
	}
}
