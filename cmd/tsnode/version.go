package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/seed94491740/tsnode/internal/version"
)

// versionOptions are the flags of tsnode version.
type versionOptions struct {
	socketFlags
	daemon bool
}

func newVersion() *cobra.Command {
	var o versionOptions
	cmd := &cobra.Command{
		Use:   "version [flags]",
		Short: "Print the version",
		Long: `Print the version of this command, and with --daemon that of the running node.

` + asksRunning,
		Example: "  tsnode version\n  tsnode version --json\n  tsnode version --daemon",
		Args:    usageArgs(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), cmd.OutOrStdout()) },
	}
	o.add(cmd, true)
	cmd.Flags().BoolVar(&o.daemon, "daemon", false, "print the running node's version, too")
	return cmd
}

func (o *versionOptions) run(ctx context.Context, w io.Writer) error {
	daemon := ""
	if o.daemon {
		c, err := o.client()
		if err != nil {
			return err
		}
		s, err := c.Status(ctx)
		if err != nil {
			return err
		}
		daemon = s.Version
	}
	if o.json {
		v := map[string]string{"version": version.String(), "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH}
		if o.daemon {
			v["daemon"] = daemon
		}
		return json.NewEncoder(w).Encode(v)
	}
	_, err := fmt.Fprintf(w, "tsnode %s (%s, %s/%s)\n", version.String(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	if err == nil && o.daemon {
		_, err = fmt.Fprintf(w, "node %s\n", daemon)
	}
	return err
}
