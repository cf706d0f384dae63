package main

import (
	"github.com/spf13/cobra"
)

func newLogout() *cobra.Command {
	var o socketFlags
	cmd := &cobra.Command{
		Use:   "logout [flags]",
		Short: "Log the running node out",
		Long: `Log the running node out: the control server forgets its key, and so does the node.
Connections end. The node's process ends, too, with 1; with --wait-for-login it waits
for 'tsnode login' instead, and comes back as another node.

` + asksRunning,
		Example: "  tsnode logout",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.client()
			if err != nil {
				return err
			}
			return c.Logout(cmd.Context())
		},
	}
	o.add(cmd, false)
	return cmd
}
