package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/seed94491740/tsnode/internal/actor"
	"github.com/seed94491740/tsnode/node"
)

// joinsAsOwn is what the help of commands says that run a node of their own.
const joinsAsOwn = `The command joins the tailnet as an ephemeral node of its own for as long as it
runs. The auth key comes from TS_AUTHKEY, file:PATH or standard input, as for
tsnode run.`

// once starts the node that the flags describe, lets f use it once it runs, and
// closes it.
func (o *nodeFlags) once(cmd *cobra.Command, f func(context.Context, *node.Node) error) error {
	stderr := cmd.ErrOrStderr()
	n, err := o.node(cmd.InOrStdin(), stderr)
	if err != nil {
		return err
	}
	if !o.verbose {
		n.Logger = newQuietLogger(stderr)
	}
	if err := n.Start(); err != nil {
		return err
	}
	err = actor.Run(cmd.Context(), func(ctx context.Context, g *actor.Group) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		g.Go(func(context.Context) error { return ended(report(ctx, n, stderr)) })
		if _, err := n.Up(ctx); err != nil {
			return ended(err)
		}
		return f(ctx, n)
	})
	return errors.Join(err, n.Close())
}
