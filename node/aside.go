package node

import (
	"context"

	"github.com/seed94491740/tsnode/internal/actor"
)

// An asides runs what a program has asked of the node besides the tree, and ends
// with the node.
type asides struct {
	group   *actor.Group
	foreign *actor.Group // code of the program, which end does not wait for
	cancel  context.CancelFunc
}

func newAsides() asides {
	ctx, cancel := context.WithCancel(context.Background())
	return asides{actor.NewGroup(ctx), actor.NewGroup(ctx), cancel}
}

// aside runs f until it returns; its ctx ends when the node closes. A panic of f
// ends f alone. It reports false, and f may not run, when the node has closed.
func (r *runtime) aside(f func(ctx context.Context)) (begun bool) {
	r.asides.group.Go(func(ctx context.Context) error {
		err := actor.Guard(ctx, func(ctx context.Context) error { f(ctx); return nil })
		if err != nil {
			r.log.Error("a service of the node has failed", "err", err)
		}
		return nil
	})
	return r.ended.Err() == nil // end comes later, and waits for f
}

// end ends them and waits for that.
func (a asides) end() {
	a.cancel()
	a.group.Wait()
}
