package main

import (
	"io"
	"net/http"

	"github.com/spf13/cobra"
)

func newMetrics() *cobra.Command {
	var o socketFlags
	cmd := &cobra.Command{
		Use:   "metrics [flags]",
		Short: "Print the running node's counters, as Prometheus text",
		Long: `Print the running node's counters in the text format of Prometheus.

` + asksRunning,
		Example: `  tsnode metrics
  tsnode metrics >/var/lib/node_exporter/tsnode.prom`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.client()
			if err != nil {
				return err
			}
			text, err := c.Stream(cmd.Context(), http.MethodGet, "usermetrics", nil)
			if err != nil {
				return err
			}
			defer text.Close()
			_, err = io.Copy(cmd.OutOrStdout(), text)
			return err
		},
	}
	o.add(cmd, false)
	return cmd
}
