package logsample

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A safeBuffer is written by many.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) count(text string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Count(s.b.String(), text)
}

func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out safeBuffer
		log := slog.New(New(slog.NewTextHandler(&out, nil))).With("a", "b")
		for i := range 16000 {
			log.Info("refused", "entity", fmt.Sprint(i), "authenticated", false)
			time.Sleep(time.Millisecond)
		}
		log.Info("refused", "entity", "honest", "authenticated", true)
		log.Info("other")
		time.Sleep(2 * summary)
		if n := out.count("msg=refused a=b entity="); n > 16*perSecond+perSecond+1 {
			t.Errorf("%d lines of a flood", n)
		}
		if n := out.count("more="); n < 1 || n > 3 {
			t.Errorf("%d lines that tell of more", n)
		}
		if out.count("entity=honest") != 1 || out.count("msg=other") != 1 {
			t.Error("lines of others are gone")
		}
	})
}

// TestOutage has a server refuse many devices because its own device or disk fails: few lines say
// so, and none of what a device did wrong is lost.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out safeBuffer
		log := slog.New(New(slog.NewTextHandler(&out, nil)))
		for i := range 60000 {
			fault := []string{"keystore", "server"}[i%2]
			log.Error("refused", "entity", fmt.Sprint(i%100), "authenticated", true, "fault", fault)
			if i%10000 == 0 {
				log.Error("refused", "entity", fmt.Sprint(i), "authenticated", true, "fault", "peer")
			}
			log.Warn("no answer", "class", "no_answer")
			time.Sleep(time.Millisecond)
		}
		time.Sleep(2 * summary)
		if n := out.count("msg=\"no answer\" class="); n > 7*perSecond {
			t.Errorf("%d lines of a class", n)
		}
		for _, fault := range []string{"keystore", "server"} {
			lines, more := out.count("authenticated=true fault="+fault), out.count("fault="+fault)
			if more -= lines; lines < 6*perSecond || lines > 7*perSecond || more < 6 || more > 7 {
				t.Errorf("%s: %d lines, and %d that tell of more", fault, lines, more)
			}
		}
		if n := out.count("fault=peer"); n != 6 {
			t.Errorf("%d lines of others", n)
		}
	})
}

func TestFlushTellsAll(t *testing.T) {
	var out safeBuffer
	h := New(slog.NewTextHandler(&out, nil))
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 250 {
				slog.New(h).Info("refused")
			}
		})
	}
	all.Wait()
	h.Flush()
	written, more := out.count("msg=refused\n"), 0
	for line := range strings.SplitSeq(out.b.String(), "\n") {
		var n int
		if _, err := fmt.Sscanf(line[strings.LastIndex(line, " ")+1:], "more=%d", &n); err == nil {
			more += n
		}
	}
	if written+more != 1000 || more == 0 {
		t.Errorf("%d lines and %d more", written, more)
	}
}

func TestBounded(t *testing.T) {
	var out safeBuffer
	h := New(slog.NewTextHandler(&out, nil))
	h.kinds.now = func() time.Time { return time.Unix(1e9, 0) }
	for i := range 10000 {
		slog.New(h).Info(fmt.Sprint("line ", i))
	}
	if n := len(h.kinds.all); n > maxKinds+1 {
		t.Errorf("%d kinds are remembered", n)
	}
	if n := out.count("\n"); n > maxKinds+perSecond {
		t.Errorf("%d lines", n)
	}
}
