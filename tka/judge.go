package tka

import (
	"bytes"

	"github.com/seed94491740/tsnode/key"
)

// A Node is a node key with what is to be its signature.
type Node struct {
	Key       key.NodePublic
	Signature []byte
}

// A Judge says which nodes of a network map an authority lets in. It remembers
// the signatures of the last map, so that a changed one costs what has changed.
// It has one owner.
type Judge struct {
	authority *Authority
	known     map[key.NodePublic]verdict
}

type verdict struct {
	signature []byte
	lineage   lineage
	err       error
}

// NewJudge returns a Judge for an authority.
func NewJudge(a *Authority) *Judge { return &Judge{authority: a} }

// Authority returns whose word the Judge goes by.
func (j *Judge) Authority() *Authority { return j.authority }

// Admit says of each node whether it is let in: it has a valid signature, and no
// other node's shows that its key was replaced (SVC-145).
func (j *Judge) Admit(nodes []Node) []bool {
	known := make(map[key.NodePublic]verdict, len(nodes))
	replaced := make(map[string]bool)
	rotated := make(map[string][]rotatedKey)
	for _, n := range nodes {
		v := j.look(n)
		known[n.Key] = v
		if v.err != nil {
			continue
		}
		for _, k := range v.lineage.before {
			replaced[string(k)] = true
		}
		if o := v.lineage.origin; o.kind == direct && len(v.lineage.before) > 0 {
			by := string(o.wrapping)
			rotated[by] = append(rotated[by], rotatedKey{string(prefixed(n.Key)), len(v.lineage.before)})
		}
	}
	j.known = known
	for _, keys := range rotated {
		retire(keys, replaced)
	}
	in := make([]bool, len(nodes))
	for i, n := range nodes {
		in[i] = known[n.Key].err == nil && !replaced[string(prefixed(n.Key))]
	}
	return in
}

// look judges one node by itself.
func (j *Judge) look(n Node) verdict {
	v, ok := j.known[n.Key]
	if ok && bytes.Equal(v.signature, n.Signature) {
		return v
	}
	v = verdict{signature: n.Signature}
	v.lineage, v.err = j.authority.trace(n.Key, n.Signature)
	return v
}

// A rotatedKey is a node key that has replaced others.
type rotatedKey struct {
	node    string // prefixed
	changes int    // how many it has replaced
}

// retire adds to replaced, of keys that go back to the same node, all but the one
// with the most changes before it; all, if that is not one alone: nodes that are
// copies of one another cannot be told apart (SVC-145).
func retire(keys []rotatedKey, replaced map[string]bool) {
	newest, alone := rotatedKey{changes: -1}, false
	for _, k := range keys {
		switch {
		case replaced[k.node]:
		case k.changes > newest.changes:
			newest, alone = k, true
		case k.changes == newest.changes:
			alone = false
		}
	}
	for _, k := range keys {
		if !alone || k != newest {
			replaced[k.node] = true
		}
	}
}
