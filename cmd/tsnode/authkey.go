package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/seed94491740/tsnode/internal/actor"
)

// maxSecret bounds a secret read from a file or standard input, in bytes.
const maxSecret = 4 << 10

// readAuthKey resolves the value of --auth-key: "file:PATH" reads a file, "-"
// the first line of standard input; anything else is the key itself, which
// other users of the machine can see in the list of processes.
func readAuthKey(ctx context.Context, value string, stdin io.Reader, warn io.Writer) (string, error) {
	switch {
	case value == "":
		return "", nil
	case value == "-":
		line, err := firstLine(ctx, stdin)
		if err != nil {
			return "", fmt.Errorf("auth key from standard input: %w", err)
		}
		return nonEmpty("auth key", line, "standard input")
	case !strings.HasPrefix(value, filePrefix):
		fmt.Fprintln(warn, "tsnode: warning: an auth key on the command line is visible to other users; use --auth-key file:PATH, --auth-key - or TS_AUTHKEY")
	}
	return readSecret("auth key", value, maxSecret)
}

// firstLine returns the first line of in. When ctx ends, a read that nobody can
// interrupt, such as one from a terminal, goes on by itself.
func firstLine(ctx context.Context, in io.Reader) (string, error) {
	line := make(chan string, 1)
	g := actor.NewGroup(ctx)
	g.Go(func(context.Context) error {
		text, err := bufio.NewReader(io.LimitReader(in, maxSecret+1)).ReadString('\n')
		switch {
		case len(text) > maxSecret:
			return tooLong(maxSecret)
		case err != nil && err != io.EOF:
			return err
		}
		line <- text
		return nil
	})
	select {
	case text := <-line:
		return text, nil
	case <-g.Context().Done():
		return "", context.Cause(g.Context())
	}
}

// filePrefix begins the path of a file that holds a secret.
const filePrefix = "file:"

// readSecret resolves a secret: "file:PATH" reads a file of at most limit bytes,
// anything else is the secret itself. what names it in errors.
func readSecret(what, value string, limit int) (string, error) {
	path, isFile := strings.CutPrefix(value, filePrefix)
	if !isFile {
		return value, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w: name a file that this user may read, with file:PATH", what, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("%s: %w", what, err)
	case len(b) > limit:
		return "", fmt.Errorf("%s: %s: %w", what, path, tooLong(limit))
	}
	return nonEmpty(what, string(b), path)
}

// tooLong says that a secret is longer than any.
func tooLong(limit int) error {
	return &usageError{fmt.Errorf("more than %d bytes: is it the right file?", limit)}
}

func nonEmpty(what, text, from string) (string, error) {
	if text = strings.TrimSpace(text); text == "" {
		return "", &usageError{fmt.Errorf("%s: %s holds none", what, from)}
	}
	return text, nil
}
