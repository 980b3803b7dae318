package enroll

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// A bank is an algorithm in the first event of a log, and the size of its digests.
type bank struct{ id, size uint16 }

// logOf is an event log of these banks, with one event that has so many digests of one byte.
func logOf(banks []bank, digests int) []byte {
	little := binary.LittleEndian
	id := little.AppendUint32([]byte("Spec ID Event03\x00\x00\x00\x00\x00\x00\x02\x00\x02"), uint32(len(banks)))
	for _, b := range banks {
		id = little.AppendUint16(little.AppendUint16(id, b.id), b.size)
	}
	id = append(id, 0)
	log := append(little.AppendUint32(make([]byte, 4), 3), make([]byte, 20)...)
	log = append(little.AppendUint32(log, uint32(len(id))), id...)
	log = append(log, 0, 0, 0, 0, 1, 0, 0, 0)
	log = little.AppendUint32(log, uint32(digests))
	log = append(log, bytes.Repeat([]byte{0x0b, 0, 0}, digests)...)
	return append(log, 0, 0, 0, 0)
}

// TestCostlyBootLog has logs that are small, also compressed, and cost much to parse: what
// reads one must not work more than the log is long.
func TestCostlyBootLog(t *testing.T) {
	sha256, large := bank{0x0b, 1}, bank{0x0b, 0x7fff}
	for name, raw := range map[string][]byte{
		"a bank thousands of times": logOf(slices.Repeat([]bank{sha256}, 2000), 5000),
		"large digests":             logOf([]bank{large, sha256}, 30000),
		"digests of no hash":        logOf([]bank{sha256}, 5000),
	} {
		if _, err := proof.PackLog(raw); err != nil {
			t.Errorf("%s: nobody can send it: %v", name, err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := ReadBootLog(raw, valuesAfter(nil, 0))
		runtime.ReadMemStats(&after)
		if spent := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, ErrEventLog) || spent > 8<<20 {
			t.Errorf("%s: %d bytes take %d MiB: %v", name, len(raw), spent>>20, err)
		}
	}
}

// TestLongBootLog stops at the first event too many, and reads a log once, not once for each of
// its events: a device may send one that is full of them.
func TestLongBootLog(t *testing.T) {
	tiny := logOf([]bank{{sha256Bank, 32}}, 0)
	head, event := tiny[:len(tiny)-16], tiny[len(tiny)-16:]
	undeclared := slices.Concat(event[:8], []byte{1, 0, 0, 0, 0x0c, 0}, event[12:])
	raw := slices.Concat(head, bytes.Repeat(event, maxBootEvents), undeclared)
	if _, err := ReadBootLog(raw, valuesAfter(nil, 0)); err == nil || !strings.Contains(err.Error(), "more than the 4096 events allowed") {
		t.Error(err)
	}
	short := slices.Concat(head, bytes.Repeat(event, maxBootEvents-1), event)
	long := append(short[:len(short)-4:len(short)-4], 0, 0, 15, 0) // bytes of the last event
	long = append(long, bytes.Repeat([]byte("x"), 15<<16)...)
	fastest := func(raw []byte) time.Duration {
		least := time.Hour
		for range 9 {
			start := time.Now()
			if _, err := wholeLog(raw); err != nil {
				t.Fatal(err)
			}
			least = min(least, time.Since(start))
		}
		return least
	}
	if a, b := fastest(short), fastest(long); b > 12*a {
		t.Errorf("it takes %v, and with %d bytes in the last event %v", a, 15<<16, b)
	}
}
