package enroll

import (
	"crypto/sha256"
	"slices"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// startedBy is the value of PCR 0 after events, if the TPM was started from a locality.
func startedBy(locality byte, events ...tpmtest.BootEvent) PCR {
	value := make([]byte, sha256.Size)
	value[len(value)-1] = locality
	for _, e := range events {
		if e.PCR == 0 && e.Type != 3 {
			digest := sha256.Sum256([]byte(e.Data))
			next := sha256.Sum256(append(value, digest[:]...))
			value = next[:]
		}
	}
	return PCR{Index: 0, Digest: value}
}

// TestOddBootLogs reads logs of firmware that was not started as usual, or that notes what it
// does not measure.
func TestOddBootLogs(t *testing.T) {
	const noAction = 3 // EV_NO_ACTION
	note := func(pcr uint32, text string) tpmtest.BootEvent {
		return tpmtest.BootEvent{PCR: pcr, Type: noAction, Data: text}
	}
	from := func(locality string) tpmtest.BootEvent { return note(0, "StartupLocality\x00"+locality) }
	was := bootEvents()
	with := func(more ...tpmtest.BootEvent) []tpmtest.BootEvent { return slices.Concat(more, was) }
	large := tpmtest.BootEvent{PCR: 0, Type: 8, Data: strings.Repeat("x", 900<<10)}
	for name, tt := range map[string]struct {
		events []tpmtest.BootEvent
		value  PCR
		astray bool
	}{
		"locality 0":           {with(from("\x00")), startedBy(0, was...), false},
		"locality 3":           {with(from("\x03")), startedBy(3, was...), false},
		"locality 4":           {with(from("\x04")), startedBy(4, was...), false},
		"another locality":     {with(from("\x03")), startedBy(0, was...), true},
		"no locality":          {was, startedBy(3, was...), true},
		"locality cut off":     {with(note(0, "StartupLocality")), startedBy(0, was...), false},
		"locality of PCR 1":    {with(note(1, "StartupLocality\x00\x03")), startedBy(0, was...), false},
		"notes":                {with(note(0, "SP800-155 Event\x00"), note(4, ""), note(0xffffffff, "\xff"), note(0, "text")), startedBy(0, was...), false},
		"notes in between":     {append(with(), note(0, "StartupLocality")), startedBy(0, was...), false},
		"an event of 900 KiB":  {with(large), startedBy(0, with(large)...), false},
		"an event of no PCR":   {with(tpmtest.BootEvent{PCR: 99, Type: 4, Data: "x"}), startedBy(0, was...), false},
		"of an unknown type":   {with(tpmtest.BootEvent{PCR: 0, Type: 0x12345678, Data: "x"}), startedBy(0, with(tpmtest.BootEvent{Data: "x"})...), false},
		"twice":                {append(with(), was...), startedBy(0, was...), true},
		"without its last one": {was[:4], startedBy(0, was...), true},
	} {
		l, err := ReadBootLog(tpmtest.EventLog(tt.events...), append(valuesAfter(was, 7), tt.value))
		if err != nil || slices.Contains(l.Astray, 0) != tt.astray {
			t.Errorf("%s: %v, %v", name, l.Astray, err)
		}
		for _, e := range of(l.Events, 0) {
			if e.Type == "EV_NO_ACTION" || len(e.Text) > 110 {
				t.Errorf("%s: %v", name, e)
			}
		}
	}
}
