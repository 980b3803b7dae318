package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"
)

// endkeystore [STOP|CONT] kills, stops or continues the process that holds the key store of the
// server in the background.
func endKeystore(ts *testscript.TestScript, _ bool, args []string) {
	signal := syscall.SIGKILL
	if len(args) > 0 {
		signal = map[string]syscall.Signal{"STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT}[args[0]]
	}
	for _, c := range ts.BackgroundCmds() {
		if len(c.Args) < 2 || c.Args[1] != "serve" || c.ProcessState != nil {
			continue
		}
		pid, err := childOf(c.Process.Pid)
		ts.Check(err)
		ts.Check(syscall.Kill(pid, signal))
	}
}

// childOf returns the child of a process.
func childOf(parent int) (int, error) {
	all, err := childrenOf(parent)
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("process %d has no child", parent)
	}
	if err != nil {
		return 0, err
	}
	return all[0], nil
}

// childrenOf returns the children of a process (proc(5)).
func childrenOf(parent int) (children []int, err error) {
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	for _, path := range all {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended meanwhile
		}
		_, after, _ := strings.Cut(string(text), ") ")
		if words := strings.Fields(after); len(words) > 1 && words[0] != "Z" && words[1] == strconv.Itoa(parent) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil {
				return nil, err
			}
			children = append(children, pid)
		}
	}
	return children, nil
}
