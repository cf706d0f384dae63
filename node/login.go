package node

import (
	"context"
	"fmt"
)

// LoginOptions say how to log in.
type LoginOptions struct {
	// AuthKey joins or renews without a person: an auth key, or an OAuth client
	// secret. Empty means that a person logs in, at the URL of an event NeedsLogin.
	AuthKey string
}

// Login logs the node in anew, and gives it a new node key: before the old one
// expires, after it has, or to change hands. Connections outlive that: the old
// key stays in force until the control server has accepted the new one.
//
// With an auth key, Login returns when the server has answered. An error means
// that all is as before; a key that has worked takes the place of Node.AuthKey
// for as long as the node lives. Without one it returns at once.
func (n *Node) Login(ctx context.Context, o LoginOptions) error {
	if err := n.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.run.ended, cancel)()
	err := n.run.lifeState.Get().final
	if err == nil {
		err = n.run.control.Login(ctx, o.AuthKey)
	}
	if err == nil {
		return nil
	}
	if final := n.run.lifeState.Get().final; final != nil {
		err = final
	} else if n.closing() {
		err = ErrClosed
	}
	return fmt.Errorf("log in: %w", err)
}

// Logout makes the control server forget the node, within ctx, and forgets its
// keys. Connections end. The node waits for a Login then, of which it comes back as
// another one. An error means that it is still logged in.
func (n *Node) Logout(ctx context.Context) error {
	if err := n.Start(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.run.ended, cancel)()
	if err := n.run.control.Logout(ctx); err != nil {
		return fmt.Errorf("log out: %w", err)
	}
	n.run.awaitLoggedOut(ctx)
	return nil
}

// awaitLoggedOut waits, within ctx, until the node's state tells of a logout.
func (r *runtime) awaitLoggedOut(ctx context.Context) {
	for {
		st, changed := r.lifeState.Load()
		if st.state == StateNeedsLogin || st.final != nil {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
