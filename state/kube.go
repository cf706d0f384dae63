package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/seed94491740/tsnode/internal/actor"
)

const (
	kubeTimeout = 30 * time.Second // for a write with all its tries; SVC-140
	kubeWait    = 5 * time.Second  // most between two tries

	// maxSecretSize bounds the values of a Secret, in bytes without their names
	// (Kubernetes API reference, Secret v1 core: MaxSecretSize).
	maxSecretSize = 1 << 20
)

// A Kube is a store in a Secret of Kubernetes (SVC-140). Its values are those
// that the Secret had when it was last seen: at the start, and at each write.
//
// Nothing keeps two nodes from using one Secret: they would be one node to the
// control server, as with a copied state file. Give each pod a Secret of its
// own.
type Kube struct {
	api    *kubeAPI
	values atomic.Pointer[map[string][]byte] // by name in the Secret; never modified, only replaced

	turn       chan struct{} // full while somebody writes, who owns what follows
	secret     *kubeSecret   // as last seen; nil = to be read
	updateOnly bool          // the pod may update the Secret, and not patch it
}

// OpenKube reads the Secret, which it makes when it is missing. It fails when
// the Secret cannot be written: a node that cannot keep its keys must not log
// in. While the API server is away or busy, it tries for up to 30 s.
func OpenKube(ctx context.Context, c KubeConfig) (*Kube, error) {
	api, err := newKubeAPI(c)
	if err != nil {
		return nil, fmt.Errorf("state: kube:%s: %w", c.Secret, err)
	}
	k := &Kube{api: api, turn: make(chan struct{}, 1)}
	k.values.Store(&map[string][]byte{})
	if err := k.change(ctx, nil); err != nil {
		return nil, fmt.Errorf("state: open %v: %w", api, err)
	}
	return k, nil
}

// String names the Secret.
func (k *Kube) String() string { return fmt.Sprintf("state.Kube(%v)", k.api) }

// Format never shows the values, whatever the verb.
func (k *Kube) Format(f fmt.State, _ rune) { io.WriteString(f, k.String()) }

// Read returns a copy of the value of id, as the Secret was when it was last
// seen.
func (k *Kube) Read(ctx context.Context, id string) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	v, ok := (*k.values.Load())[dataKey(id)]
	if !ok {
		return nil, notFound(id)
	}
	return append([]byte{}, v...), nil
}

// Write replaces the value of id in the Secret; nil deletes. A write that
// changes nothing sends nothing. When the API server is away or busy, or
// somebody else has changed the Secret meanwhile, it tries again for up to 30 s;
// values that others have set stay.
func (k *Kube) Write(ctx context.Context, id string, value []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	key := dataKey(id)
	old, had := (*k.values.Load())[key]
	if had == (value != nil) && bytes.Equal(old, value) {
		return nil
	}
	if err := k.change(ctx, map[string][]byte{key: value}); err != nil {
		return fmt.Errorf("state: write %q to %v: %w", id, k.api, err)
	}
	return nil
}

// dataKey returns the name in a Secret of the value of id (SVC-140).
func dataKey(id string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-', r == '_', r == '.':
			return r
		}
		return '_'
	}, id)
}

// change applies an edit to the Secret: values by their names in it, nil for
// those that go. An empty edit finds out whether the Secret can be written.
func (k *Kube) change(ctx context.Context, edit map[string][]byte) error {
	ctx, cancel := context.WithTimeout(ctx, kubeTimeout)
	defer cancel()
	select {
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	backoff := actor.Backoff{Max: kubeWait}
	for {
		err := k.try(ctx, edit)
		if err == nil || !mayPass(err) {
			return err
		}
		if ended := backoff.Wait(ctx); ended != nil {
			return fmt.Errorf("%w (given up after try %d: %w)", err, backoff.Failures(), ended)
		}
	}
}

// errSecretChanged says that the Secret is not as it was last seen.
var errSecretChanged = errors.New("the Secret has changed meanwhile")

// mayPass reports whether another try may succeed.
func mayPass(err error) bool {
	return errors.Is(err, errSecretChanged) || isTransient(err)
}

// try reads the Secret, or makes it, unless it is known, and writes the edit.
func (k *Kube) try(ctx context.Context, edit map[string][]byte) error {
	if k.secret == nil {
		if err := k.load(ctx); err != nil {
			return err
		}
	}
	if err := checkSize(edited(k.secret.values, edit)); err != nil {
		return err
	}
	s, err := k.write(ctx, edit)
	if isStatus(err, http.StatusConflict) || isStatus(err, http.StatusNotFound) {
		k.secret = nil
		return fmt.Errorf("%w: %w", errSecretChanged, err)
	}
	if err != nil {
		return err
	}
	k.adopt(s)
	return nil
}

// load reads the Secret. One that is missing is made, with all that it had if it
// was there before: half a state is worse than none.
func (k *Kube) load(ctx context.Context) error {
	s, err := k.api.get(ctx)
	if isStatus(err, http.StatusNotFound) {
		s, err = k.api.create(ctx, *k.values.Load())
		if isStatus(err, http.StatusConflict) {
			return fmt.Errorf("%w: %w", errSecretChanged, err)
		}
	}
	if err != nil {
		return err
	}
	k.adopt(s)
	return nil
}

func (k *Kube) adopt(s *kubeSecret) {
	k.secret = s
	k.values.Store(&s.values)
}

// write sends the edit as a patch, or the whole Secret where the pod may not
// patch it (SVC-140). Both fail when the Secret is not the one we have seen.
func (k *Kube) write(ctx context.Context, edit map[string][]byte) (*kubeSecret, error) {
	if !k.updateOnly {
		s, err := k.api.patch(ctx, k.secret.patch(edit))
		if !isStatus(err, http.StatusForbidden) {
			return s, err
		}
	}
	whole, err := k.secret.update(edit)
	if err != nil {
		return nil, err
	}
	s, err := k.api.update(ctx, whole)
	k.updateOnly = k.updateOnly || err == nil
	return s, err
}

// edited returns values with the edit applied.
func edited(values, edit map[string][]byte) map[string][]byte {
	out := maps.Clone(values)
	if out == nil {
		out = make(map[string][]byte)
	}
	for key, v := range edit {
		if v == nil {
			delete(out, key)
		} else {
			out[key] = v
		}
	}
	return out
}

func checkSize(values map[string][]byte) error {
	size := 0
	for _, v := range values {
		size += len(v)
	}
	if size > maxSecretSize {
		return fmt.Errorf("the Secret would hold %d bytes, and takes %d: give the node a Secret of its own", size, maxSecretSize)
	}
	return nil
}
