package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"

	"github.com/spf13/cobra"
)

const captureMode = 0o600 // of a capture's file: packets hold what people say

// captureOptions are the flags of tsnode capture.
type captureOptions struct {
	socketFlags
	output string
}

func newCapture() *cobra.Command {
	var o captureOptions
	cmd := &cobra.Command{
		Use:   "capture [flags] -o FILE",
		Short: "Capture the packets of the tailnet at the running node",
		Long: `Write the packets that the running node sends into the tailnet and receives from
it, outside the tunnel's encryption, as pcapng, until interrupted.

` + asksRunning,
		Example: `  tsnode capture -o tailnet.pcapng
  tsnode capture -o - | wireshark -k -i -`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.output == "" {
				return &usageError{errors.New("want --output FILE, or - for standard output")}
			}
			return o.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	o.add(cmd, false)
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "file to write; - for standard output")
	return cmd
}

func (o *captureOptions) run(ctx context.Context, w io.Writer) error {
	c, err := o.client()
	if err != nil {
		return err
	}
	packets, err := c.Stream(ctx, http.MethodPost, "debug-capture", nil)
	if err != nil {
		return err
	}
	defer packets.Close()
	if o.output == "-" {
		return copyUntil(ctx, w, packets)
	}
	f, err := createCapture(o.output)
	if err != nil {
		return err
	}
	return errors.Join(copyUntil(ctx, f, packets), f.Close())
}

// createCapture makes or empties a file that only its owner may read.
func createCapture(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, captureMode)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		err = f.Chmod(captureMode)
		if err != nil {
			f.Close()
			return nil, err
		}
	}
	return f, nil
}

// copyUntil copies until r ends, or ctx does, which is no error. What fails to be
// written is one in any case.
func copyUntil(ctx context.Context, w io.Writer, r io.Reader) error {
	_, err := io.Copy(w, r)
	var failed *fs.PathError
	if ctx.Err() != nil && !errors.As(err, &failed) {
		return nil
	}
	return err
}
