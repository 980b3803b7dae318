package isolated

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

const (
	defaultMemory = 1 << 30
	memoryPeriod  = time.Second
)

// watchMemory ends the child when it occupies more than limit bytes, and returns at its
// end.
func (p *process) watchMemory(limit int64) {
	if limit == 0 {
		limit = defaultMemory
	}
	ticker := time.NewTicker(memoryPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-p.ended:
			return
		case <-ticker.C:
		}
		if used := residentSet(p.command.Process.Pid); limit > 0 && used > limit {
			p.end(fmt.Sprintf("occupied %d MiB", used>>20))
		}
	}
}

// residentSet returns the memory that a process occupies, in bytes; 0 if it is not told
// (proc(5), statm).
func residentSet(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	words := bytes.Fields(text)
	if len(words) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(string(words[1]), 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
