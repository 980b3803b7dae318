package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// remembers TEXT MIN MAX checks how many copies of a text are in the memory of the server
// in the background.
func remembers(ts *testscript.TestScript, _ bool, args []string) {
	least, _ := strconv.Atoi(args[1])
	most, _ := strconv.Atoi(args[2])
	for _, c := range ts.BackgroundCmds() {
		if len(c.Args) < 2 || c.Args[1] != "serve" || c.ProcessState != nil {
			continue
		}
		copies, err := copiesIn(c.Process.Pid, []byte(args[0]))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			ts.Logf("the memory of another process cannot be read here: %v", err)
			return
		}
		ts.Check(err)
		ts.Logf("%d copies of %q", copies, args[0])
		if copies < least || copies > most {
			ts.Fatalf("the server has %d copies of %q, want %s to %s", copies, args[0], args[1], args[2])
		}
	}
}

// copiesIn counts a text in what a process may write to. No copy is cut, and none is counted
// twice.
func copiesIn(pid int, text []byte) (copies int, err error) {
	_, err = scan(pid, "rw", len(text)-1, func(part []byte) { copies += bytes.Count(part, text) })
	return copies, err
}

// scan shows all memory of a process that has these permissions, r or rw, in parts that
// overlap (proc(5)).
func scan(pid int, permissions string, overlap int, show func([]byte)) (size int64, err error) {
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return 0, err
	}
	defer memory.Close()
	maps, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, err
	}
	defer maps.Close()
	part := make([]byte, 1<<20)
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to int64
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x", &from, &to); n != 2 || !strings.Contains(lines.Text(), " "+permissions) {
			continue
		}
		for ; from < to; from += int64(len(part) - overlap) {
			n, _ := memory.ReadAt(part[:min(int64(len(part)), to-from)], from) // parts that nobody ever touched cannot be read
			show(part[:n])
			size += int64(n)
		}
	}
	return size, nil
}
