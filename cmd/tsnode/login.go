package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/seed94491740/tsnode/localapi"
)

// loginOptions are the flags of tsnode login.
type loginOptions struct {
	socketFlags
	authKey string
}

func newLogin() *cobra.Command {
	var o loginOptions
	cmd := &cobra.Command{
		Use:   "login [flags]",
		Short: "Log the running node in anew",
		Long: `Log the running node in: after a logout, or anew, before its key expires or to
change hands. Without an auth key the URL is printed that a person must visit, and
the command waits until that is done. Connections outlive a renewal.

` + asksRunning,
		Example: `  tsnode login
  tsnode login --auth-key file:/run/secrets/authkey`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			key, err := readAuthKey(o.authKey, cmd.InOrStdin(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if o.authKey == "" {
				key = os.Getenv("TS_AUTHKEY")
			}
			c, err := o.client()
			if err != nil {
				return err
			}
			return logIn(cmd.Context(), c, key, cmd.ErrOrStderr())
		},
	}
	o.add(cmd, false)
	cmd.Flags().StringVar(&o.authKey, "auth-key", "", "auth key: file:PATH, - for standard input, or the key itself")
	return cmd
}

// logIn logs in and waits until the node runs.
func logIn(ctx context.Context, c *localapi.Client, key string, w io.Writer) error {
	before, err := c.Status(ctx)
	if err != nil {
		return err
	}
	if err := c.Login(ctx, key); err != nil {
		return err
	}
	shown := ""
	done := false
	err = c.Watch(ctx, func(n *localapi.Notify) bool {
		if n.BrowseToURL != nil && *n.BrowseToURL != shown {
			shown = *n.BrowseToURL
			printLogin(w, shown)
		}
		done = isRunning(ctx, c, before, key != "")
		return !done
	})
	switch {
	case done:
		fmt.Fprintln(w, "tsnode: logged in")
		return nil
	case err == nil, ctx.Err() != nil:
		return ended(ctx.Err())
	}
	return fmt.Errorf("waiting for the login: %w", err)
}

// isRunning reports whether the node runs after a login: by another key than
// before, or by one that the control server has just taken.
func isRunning(ctx context.Context, c *localapi.Client, before *localapi.Status, taken bool) bool {
	now, err := c.Status(ctx)
	if err != nil || notOn(now) != nil {
		return false
	}
	return taken || now.Self.PublicKey != before.Self.PublicKey
}
