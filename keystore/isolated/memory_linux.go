package isolated

import (
	"bytes"
	"fmt"
	"io"
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
		if used := residentSet(p.memory); limit > 0 && used > limit {
			p.end(fmt.Sprintf("occupied %d MiB", used>>20))
		}
	}
}

// openMemory opens the file that tells how much memory a child occupies (proc(5), statm), or
// returns nil. The open file stays readable when the child has hidden itself (see [Hide]) from a
// /proc that is mounted with hidepid, and is never about another process.
func openMemory(pid int) *os.File {
	f, _ := os.Open(fmt.Sprintf("/proc/%d/statm", pid))
	return f
}

// residentSet returns the memory that a child occupies, in bytes; 0 if its file does not tell.
func residentSet(statm *os.File) int64 {
	var text [128]byte
	n, err := statm.ReadAt(text[:], 0)
	words := bytes.Fields(text[:n])
	if err != nil && err != io.EOF || len(words) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(string(words[1]), 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
