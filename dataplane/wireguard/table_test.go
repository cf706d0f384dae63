package wireguard

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/seed94491740/tsnode/key"
)

// An engineRandom scripts the randomness of an index table.
type engineRandom struct{ next []uint32 }

func (r *engineRandom) Read(b []byte) (int, error) {
	binary.LittleEndian.PutUint32(b, r.next[0])
	r.next = r.next[1:]
	return 4, nil
}

// TestIndexChoice: WG-13, WG-30 and doc/protocol/wireguard.md section 10.1 row 4:
// neither zero, nor an index or a slot that is taken, is chosen.
func TestIndexChoice(t *testing.T) {
	random := &engineRandom{next: []uint32{5, 0, 5, 5 + minIndexSlots, 6, 6 + 2*minIndexSlots, 6, 7}}
	table := newIndexTable(random)
	first := &pending{index: table.choose()}
	table.addPending(first)
	second := &keypair{local: table.choose()}
	table.addKeypair(second)
	third := table.choose()
	if first.index != 5 || second.local != 6 || third != 7 {
		t.Errorf("chose %d, %d, %d, want 5, 6, 7", first.index, second.local, third)
	}
	if table.pending(5) != first || table.keypair(5) != nil || table.keypair(6) != second || table.pending(6) != nil {
		t.Error("an entry is not found as what it is")
	}
	for _, index := range []uint32{5 + minIndexSlots, 6 + minIndexSlots, 7, 0} {
		if table.pending(index) != nil || table.keypair(index) != nil {
			t.Errorf("index %d names something", index)
		}
	}
}

// TestIndexOfPendingBecomesKeypair's: a completed initiation passes its index on.
func TestIndexOfPending(t *testing.T) {
	table := newIndexTable(&engineRandom{next: []uint32{9, 10}})
	p := &pending{index: table.choose()}
	table.addPending(p)
	kp := &keypair{local: p.index}
	table.addKeypair(kp)
	table.removePending(p)
	if table.keypair(9) != kp || table.pending(9) != nil || table.used != 1 {
		t.Errorf("keypair %v, pending %v, %d used", table.keypair(9), table.pending(9), table.used)
	}
	table.removeKeypair(&keypair{local: 9})
	if table.keypair(9) != kp {
		t.Error("a keypair was removed by another with the same index")
	}
	table.removeKeypair(kp)
	table.removeKeypair(kp)
	if table.keypair(9) != nil || table.used != 0 {
		t.Errorf("%d used after removal", table.used)
	}
}

// FuzzIndexTable runs operations against a map.
func FuzzIndexTable(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8})
	f.Add(bytes.Repeat([]byte{0, 1}, 400))
	f.Add(bytes.Repeat([]byte{0, 0, 0, 2, 9, 3, 7}, 300))
	f.Fuzz(func(t *testing.T, ops []byte) {
		ops = ops[:min(len(ops), 2000)] // a keypair is large
		random := rand.New(rand.NewPCG(1, uint64(len(ops))))
		table := newIndexTable(engineReader{random})
		keypairs, pendings := map[uint32]*keypair{}, map[uint32]*pending{}
		var keys []uint32 // in order of entry, stale ones included
		for _, op := range ops {
			switch victim := uint32(0); op % 5 {
			case 0:
				kp := &keypair{local: table.choose()}
				table.addKeypair(kp)
				keypairs[kp.local], keys = kp, append(keys, kp.local)
			case 1:
				p := &pending{index: table.choose()}
				table.addPending(p)
				pendings[p.index], keys = p, append(keys, p.index)
			case 2, 3:
				if len(keys) > 0 {
					victim = keys[int(op)%len(keys)]
				}
				if kp := keypairs[victim]; kp != nil {
					table.removeKeypair(kp)
				}
				if p := pendings[victim]; p != nil {
					table.removePending(p)
				}
				delete(keypairs, victim)
				delete(pendings, victim)
			case 4: // a restart keeps every other keypair
				table.sweep(func(kp *keypair) bool { return kp.local%2 == 0 })
				clear(pendings)
				for index := range keypairs {
					if index%2 != 0 {
						delete(keypairs, index)
					}
				}
			}
		}
		for _, index := range keys {
			if table.keypair(index) != keypairs[index] || table.pending(index) != pendings[index] {
				t.Fatalf("index %#x: %v and %v, want %v and %v", index, table.keypair(index), table.pending(index), keypairs[index], pendings[index])
			}
		}
		if n := len(keypairs) + len(pendings); table.used != n || 4*n > len(*table.slots.Load()) {
			t.Fatalf("%d entries counted of %d, in %d slots", table.used, n, len(*table.slots.Load()))
		}
	})
}

// An engineReader reads from a seeded source.
type engineReader struct{ r *rand.Rand }

func (e engineReader) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(e.r.Uint32())
	}
	return len(b), nil
}

// FuzzPeerTable runs operations against a map.
func FuzzPeerTable(f *testing.F) {
	f.Add([]byte{1, 2, 3, 1, 2, 3})
	f.Add(bytes.Repeat([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 200, 3, 5, 7}, 50))
	f.Fuzz(func(t *testing.T, ops []byte) {
		ops = ops[:min(len(ops), 5000)]
		table, model := newPeerTable(), map[key.NodePublic]*Peer{}
		for _, op := range ops {
			k := key.NodePublicFromRaw([32]byte{op})
			if p := model[k]; p != nil {
				if !table.remove(p) || table.remove(p) {
					t.Fatalf("peer %d cannot be removed once", op)
				}
				delete(model, k)
			} else {
				model[k] = &Peer{key: k}
				table.add(model[k])
			}
		}
		for i := range 256 {
			k := key.NodePublicFromRaw([32]byte{byte(i)})
			if table.get(k) != model[k] {
				t.Fatalf("peer %d is %p, want %p", i, table.get(k), model[k])
			}
		}
		all := 0
		table.all(func(p *Peer) {
			if all++; model[p.key] != p {
				t.Fatalf("peer %v is in the table", p.key)
			}
		})
		if table.len() != len(model) || all != len(model) {
			t.Fatalf("%d peers, %d listed, want %d", table.len(), all, len(model))
		}
	})
}

// FuzzTimers runs operations against a sorted list.
func FuzzTimers(f *testing.F) {
	f.Add([]byte{1, 9, 2, 8, 3, 7, 4, 6, 5, 5, 1, 0, 200, 3})
	f.Add(bytes.Repeat([]byte{1, 2, 3, 100, 5, 0, 7, 250}, 40))
	f.Fuzz(func(t *testing.T, ops []byte) {
		sessions := make([]*session, 16)
		for i := range sessions {
			sessions[i] = new(session)
			sessions[i].timer = unscheduled
		}
		var heap timers
		due := map[*session]Tick{}
		for i := 0; i+1 < len(ops); i += 2 {
			s, at := sessions[ops[i]%16], Tick(ops[i+1])
			heap.set(s, at)
			due[s] = at
			if at == 0 {
				delete(due, s)
			}
		}
		var want []Tick
		for _, at := range due {
			want = append(want, at)
		}
		slices.Sort(want)
		var got []Tick
		for heap.first() != 0 {
			at := heap.first()
			if heap.pop(at-1) != nil {
				t.Fatal("a session was popped before its time")
			}
			s := heap.pop(at)
			if due[s] != at || s.timer != unscheduled {
				t.Fatalf("session due at %d popped at %d", due[s], at)
			}
			got = append(got, at)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("deadlines came as %v, want %v", got, want)
		}
	})
}

// TestSooner: 0 is never.
func TestSooner(t *testing.T) {
	for _, c := range [][3]Tick{{0, 0, 0}, {0, 5, 5}, {5, 0, 5}, {4, 5, 4}, {5, 4, 4}} {
		if got := sooner(c[0], c[1]); cmp.Compare(got, c[2]) != 0 {
			t.Errorf("sooner(%d, %d) = %d", c[0], c[1], got)
		}
	}
}
