package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxSecret bounds a secret read from a file or standard input, in bytes.
const maxSecret = 4 << 10

// readAuthKey resolves the value of --auth-key: "file:PATH" reads a file, "-"
// the first line of standard input; anything else is the key itself, which
// other users of the machine can see in the list of processes.
func readAuthKey(value string, stdin io.Reader, warn io.Writer) (string, error) {
	path, isFile := strings.CutPrefix(value, "file:")
	switch {
	case value == "":
		return "", nil
	case value == "-":
		line, err := bufio.NewReader(io.LimitReader(stdin, maxSecret)).ReadString('\n')
		if err != nil && err != io.EOF {
			return "", fmt.Errorf("auth key from standard input: %w", err)
		}
		return nonEmpty(line, "standard input")
	case isFile:
		f, err := os.Open(path)
		if err != nil {
			return "", fmt.Errorf("auth key: %w", err)
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, maxSecret))
		if err != nil {
			return "", fmt.Errorf("auth key: %w", err)
		}
		return nonEmpty(string(b), path)
	}
	fmt.Fprintln(warn, "tsnode: warning: an auth key on the command line is visible to other users; use --auth-key file:PATH, --auth-key - or TS_AUTHKEY")
	return value, nil
}

func nonEmpty(text, from string) (string, error) {
	if text = strings.TrimSpace(text); text == "" {
		return "", &usageError{fmt.Errorf("auth key: %s holds none", from)}
	}
	return text, nil
}
