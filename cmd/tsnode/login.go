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
		Long: `Log the running node in: after a logout, which --wait-for-login has it outlive, or
anew, before its key expires or to change hands. Without an auth key the URL is printed that a person must visit, and
the command waits until that is done. Connections outlive a renewal.

The auth key is that of --auth-key, else of TS_AUTHKEY; --auth-key= asks for a URL
whatever the environment has.

` + asksRunning,
		Example: `  tsnode login
  tsnode login --auth-key file:/run/secrets/authkey`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			warn := cmd.ErrOrStderr()
			if !cmd.Flags().Changed("auth-key") {
				o.authKey, warn = os.Getenv("TS_AUTHKEY"), io.Discard
			}
			key, err := readAuthKey(cmd.Context(), o.authKey, cmd.InOrStdin(), warn)
			if err != nil {
				return err
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
	l := &loginWatch{client: c, before: before, taken: key != "", w: w}
	done := false
	err = c.Watch(ctx, func(n *localapi.Notify) bool {
		done = l.note(ctx, n)
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

// A loginWatch tells a person what a login waits for.
type loginWatch struct {
	client *localapi.Client
	before *localapi.Status
	taken  bool // the control server has taken an auth key
	w      io.Writer
	url    string // as told last
	waits  bool   // told: for the approval
}

// note takes a change, and reports whether the node runs after the login: by
// another key than before, or by one that the control server has just taken.
func (l *loginWatch) note(ctx context.Context, n *localapi.Notify) bool {
	if n.BrowseToURL != nil && *n.BrowseToURL != l.url {
		l.url = *n.BrowseToURL
		printLogin(l.w, l.url)
	}
	now, err := l.client.Status(ctx)
	if err != nil {
		return false
	}
	problem := notOn(now)
	if now.BackendState == localapi.NeedsMachineAuth.String() && !l.waits {
		l.waits = true
		fmt.Fprintf(l.w, "tsnode: %v\n", problem)
	}
	return problem == nil && (l.taken || now.Self.PublicKey != l.before.Self.PublicKey)
}
