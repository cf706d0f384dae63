package container

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
)

// variable is set in the environment of a process that is to become a container.
const variable = "TSNODE_INTEROP_CONTAINER"

// exitNotRun is the exit code of a container that could not be made, as docker run
// has it.
const exitNotRun = 125

// A Spec is what a runtime knows of a container.
type Spec struct {
	Root    string   // folder with the file system, read-only for the program
	User    int      // and group
	Tmpfs   []string // folders below Root that are empty, in memory, and the user's
	Environ []string // all of it
	Args    []string // the program's path below Root, and its arguments
}

// Command returns the command of the container. Its process is the program's, the
// first one in the container.
func (s Spec) Command() (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	cmd.Env = []string{variable + "=" + string(text)}
	cmd.SysProcAttr = apart()
	return cmd, nil
}

// Main makes a container of the process if Command has started it, and does not
// return then. It must be called before the program does anything else.
func Main() {
	text := os.Getenv(variable)
	if text == "" {
		return
	}
	var s Spec
	err := json.Unmarshal([]byte(text), &s)
	if err == nil {
		err = s.enter()
	}
	fmt.Fprintln(os.Stderr, "container:", err)
	os.Exit(exitNotRun)
}
