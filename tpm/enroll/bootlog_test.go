package enroll

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// utf16Of is text as UEFI has it.
func utf16Of(text string) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(text)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return string(b)
}

// bootEvents are a start: firmware, a variable, a program and its command line.
func bootEvents() []tpmtest.BootEvent {
	variable := strings.Repeat("g", 16) + "\x0a\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00" + utf16Of("SecureBoot") + "\x01"
	file := utf16Of(`\EFI\BOOT\BOOTX64.EFI`) + "\x00\x00"
	node := "\x04\x04" + string(rune(4+len(file))) + "\x00" + file + "\x7f\xff\x04\x00"
	image := strings.Repeat("\x00", 24) + string(rune(len(node))) + strings.Repeat("\x00", 7) + node
	return []tpmtest.BootEvent{
		{PCR: 0, Type: 8, Data: utf16Of("1.2.3")}, {PCR: 7, Type: 0x80000001, Data: variable},
		{PCR: 4, Type: 0x80000003, Data: image}, {PCR: 4, Type: 0xd, Data: "linux /vmlinuz quiet"}, {PCR: 0, Type: 4, Data: "\x00\x00\x00\x00"},
	}
}

// valuesAfter are the values of PCRs after the events.
func valuesAfter(events []tpmtest.BootEvent, pcrs ...uint) (values []PCR) {
	for _, i := range pcrs {
		values = append(values, PCR{Index: i, Digest: tpmtest.PCRAfter(uint32(i), events...)})
	}
	return values
}

func TestReadBootLog(t *testing.T) {
	events := bootEvents()
	l, err := ReadBootLog(tpmtest.EventLog(events...), valuesAfter(events, 0, 4, 7, 9))
	if err != nil || len(l.Astray) != 0 || len(l.Events) != 5 {
		t.Fatalf("%v, %v", l, err)
	}
	for i, want := range []BootEvent{
		{0, "EV_S_CRTM_VERSION", nil, "1.2.3"}, {7, "EV_EFI_VARIABLE_DRIVER_CONFIG", nil, "SecureBoot"},
		{4, "EV_EFI_BOOT_SERVICES_APPLICATION", nil, `\EFI\BOOT\BOOTX64.EFI`}, {4, "EV_IPL", nil, "linux /vmlinuz quiet"}, {0, "EV_SEPARATOR", nil, ""},
	} {
		if got := l.Events[i]; got.PCR != want.PCR || got.Type != want.Type || got.Text != want.Text || len(got.Digest) != 32 {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	values := valuesAfter(events, 0, 4, 7)
	values[1].Digest[0]++
	if l, err := ReadBootLog(tpmtest.EventLog(events...), values); err != nil || len(l.Astray) != 1 || l.Astray[0] != 4 || len(of(l.Events, 4)) != 0 {
		t.Errorf("%v, %v", l, err)
	}
	if l, err := ReadBootLog(tpmtest.EventLog(events[:1]...), valuesAfter(events, 4)); err != nil || len(l.Astray) != 1 {
		t.Errorf("no event leads to PCR 4: %v, %v", l, err)
	}
}

// TestNoBootLog tells what is wrong with a log, of one whose digests are of other algorithms, too.
func TestNoBootLog(t *testing.T) {
	events := bootEvents()
	good := tpmtest.EventLog(events...)
	endless := slices.Concat(good[:len(good)-8], []byte{0xff, 0xff, 0xff, 0xff}, good[len(good)-4:])
	sha1, sha256, other := bank{4, 20}, bank{sha256Bank, 32}, bank{0x99, 48}
	for name, tt := range map[string]struct {
		raw  []byte
		want string
	}{
		"text":              {[]byte("none"), "not in the crypto-agile form"},
		"empty":             {nil, "not in the crypto-agile form"},
		"zeros":             {make([]byte, 4096), "not in the crypto-agile form"},
		"of TPM 1.2":        {sha1Log(events...), "not in the crypto-agile form"},
		"cut":               {good[:len(good)-1], "its event 5 is cut off"},
		"cut early":         {good[:62], "its first event is cut off"},
		"endless":           {endless, "its event 5 is cut off"},
		"and text":          {append(bytes.Clone(good), "more"...), "its event 6 is cut off"},
		"too long":          {make([]byte, MaxEventLog+1), "more than the 1048576 allowed"},
		"too many":          {tpmtest.EventLog(make([]tpmtest.BootEvent, maxBootEvents+1)...), "more than the 4096 events allowed"},
		"no events":         {tpmtest.EventLog(), "it has no events"},
		"no banks":          {logOf(nil, 0), "no digests of SHA-256"},
		"SHA-1":             {logOf([]bank{sha1}, 0), "no digests of SHA-256"},
		"SHA-384":           {logOf([]bank{{0xc, 48}}, 0), "no digests of SHA-256"},
		"unknown":           {logOf([]bank{other}, 0), "no digests of SHA-256"},
		"undeclared digest": {bytes.Replace(logOf([]bank{sha1, sha256}, 1), []byte{1, 0, 0, 0, 0x0b}, []byte{1, 0, 0, 0, 0x0c}, 1), "its event 1 has a digest of algorithm 0xc, which the log does not declare"},
	} {
		_, err := ReadBootLog(tt.raw, valuesAfter(nil, 0))
		if !errors.Is(err, ErrEventLog) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

// sha1Log writes an event log as for TPM 1.2.
func sha1Log(events ...tpmtest.BootEvent) (log []byte) {
	little := binary.LittleEndian
	for _, e := range events {
		log = little.AppendUint32(little.AppendUint32(log, e.PCR), e.Type)
		digest := sha1.Sum([]byte(e.Data))
		log = append(log, digest[:]...)
		log = append(little.AppendUint32(log, uint32(len(e.Data))), e.Data...)
	}
	return log
}

// TestPaddedBootLog reads a log up to what is after it, and one with digests of algorithms that
// nobody knows.
func TestPaddedBootLog(t *testing.T) {
	events := bootEvents()
	good := tpmtest.EventLog(events...)
	for _, padding := range [][]byte{{0}, make([]byte, 4096), bytes.Repeat([]byte{0xff}, 300)} {
		l, err := ReadBootLog(append(bytes.Clone(good), padding...), valuesAfter(events, 0, 4, 7))
		if err != nil || len(l.Astray) > 0 || len(l.Events) != len(events) {
			t.Errorf("%d bytes of %x: %d events, %v, %v", len(padding), padding[0], len(l.Events), l.Astray, err)
		}
	}
	var more []byte // every event has two digests
	for i := range events {
		one := tpmtest.EventLog(events[i])[65:]
		one[8] = 2
		more = slices.Concat(more, one[:12], []byte{0x99, 0}, make([]byte, 48), one[12:])
	}
	head := logOf([]bank{{0x99, 48}, {sha256Bank, 32}}, 0)
	l, err := ReadBootLog(append(head[:len(head)-16], more...), valuesAfter(events, 0, 4, 7))
	if err != nil || len(l.Astray) > 0 || len(l.Events) != len(events) {
		t.Errorf("two digests: %d events, %v, %v", len(l.Events), l.Astray, err)
	}
}

// TestExplain names the event that differs from the reference that is the most like it.
func TestExplain(t *testing.T) {
	was := bootEvents()
	var reference, other Reference
	for _, r := range []struct {
		to     *Reference
		events []tpmtest.BootEvent
	}{{&reference, was}, {&other, []tpmtest.BootEvent{{PCR: 4, Type: 5, Data: "another machine"}}}} {
		l, err := ReadBootLog(tpmtest.EventLog(r.events...), valuesAfter(r.events, 0, 4, 7))
		if err != nil {
			t.Fatal(err)
		}
		r.to.Events = l.Events
	}
	changed := append(was[:3:3], tpmtest.BootEvent{PCR: 4, Type: 0xd, Data: "linux /vmlinuz init=/bin/sh"}, was[4])
	p := Policy{PCRs: rules(map[uint][]byte{4: {1}}), References: []Reference{other, reference}}
	for name, tt := range map[string]struct {
		events, log []tpmtest.BootEvent
		want        string
	}{
		"another":   {changed, changed, `(event 2 is EV_IPL "linux /vmlinuz init=/bin/sh" `},
		"reference": {changed, changed, `, but EV_IPL "linux /vmlinuz quiet" `},
		"one more":  {append(was, was[3]), append(was, was[3]), `(event 3, EV_IPL "linux /vmlinuz quiet" `},
		"one less":  {was[:3], was[:3], `(event 2 of the reference, EV_IPL "linux /vmlinuz quiet" `},
		"the same":  {was, was, "its events match the reference"},
		"a forgery": {changed, was, "(its event log does not lead to this value)"},
	} {
		if got := p.Differences(valuesAfter(tt.events, 4), tpmtest.EventLog(tt.log...)); !strings.Contains(got, tt.want) {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got := p.Differences(valuesAfter(was, 4), []byte("none")); !strings.Contains(got, "event log cannot be used") {
		t.Error(got)
	}
	if got := (&Policy{PCRs: p.PCRs}).Differences(valuesAfter(was, 4), tpmtest.EventLog(was...)); strings.Contains(got, "(") {
		t.Error(got)
	}
}

// TestSentBootLog keeps what a device sent because it was asked to, and takes nothing else.
func TestSentBootLog(t *testing.T) {
	events := bootEvents()
	packed, err := proof.PackLog(tpmtest.EventLog(events...))
	if err != nil {
		t.Fatal(err)
	}
	ek := newForger(t).ek
	for name, tt := range map[string]struct {
		offers, asks, sends bool
		want                error
	}{
		"asked":                  {true, true, true, nil},
		"asked, sends none":      {true, true, false, nil},
		"not asked":              {true, false, true, ErrMalformed},
		"an older device":        {false, true, false, nil},
		"asked nevertheless":     {false, true, true, ErrMalformed},
		"an unasked-for silence": {true, false, false, nil},
	} {
		f := forgerOf(t, ek)
		o := newOffice(t, Policy{Monitor: true, EventLogs: tt.asks}, nil)
		b := f.begin()
		b.EventLog = tt.offers
		p := f.prove(b, f.ask(o, b))
		if p.Challenge.EventLog != (tt.offers && tt.asks) {
			t.Errorf("%s: asked for %v", name, p.Challenge.EventLog)
		}
		p.Quote = f.quotes(p.Digest(proof.UseQuote), map[uint]byte{9: 0})
		if tt.sends {
			p.EventLog = packed
		}
		_, err := o.Handle(t.Context(), proof.Encode(p))
		checkError(t, err, tt.want)
		if err != nil {
			continue
		}
		r := o.record(f.id())
		if l, err := r.BootLog(); err != nil || (len(l.Events)+len(l.Astray) != 0) {
			t.Errorf("%s: %v, %v", name, l, err) // of PCR 9, which no event changed
		}
	}
}

func TestReferences(t *testing.T) {
	list := []Reference{{"box", []BootEvent{{4, "EV_IPL", bytes.Repeat([]byte{1}, 32), "quiet"}}}}
	text, err := EncodeReferences(list)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseReferences(text); err != nil || len(got) != 1 || got[0].Events[0].String() != `EV_IPL "quiet" 01010101` {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "{}", `{"type":"boot events","version":2}`, "[]"} {
		if _, err := ParseReferences([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// FuzzBootLog reads anything as an event log. What leads to a value leads there again.
func FuzzBootLog(f *testing.F) {
	events := bootEvents()
	f.Add(tpmtest.EventLog(events...))
	f.Add(tpmtest.EventLog())
	f.Add([]byte("none"))
	f.Add(append(tpmtest.EventLog(events...), make([]byte, 20)...))
	f.Add(logOf([]bank{{4, 20}, {sha256Bank, 32}, {0x99, 48}}, 1))
	f.Add(sha1Log(events...))
	values := valuesAfter(events, 0, 4, 5, 7)
	f.Fuzz(func(t *testing.T, raw []byte) {
		l, err := ReadBootLog(raw, values)
		if err != nil && !errors.Is(err, ErrEventLog) {
			t.Fatal(err)
		}
		for _, e := range l.Events {
			if len(e.Text) > 110 || len(e.Digest) != 32 {
				t.Fatalf("%+v", e)
			}
		}
		if packed, err := proof.PackLog(raw); err == nil {
			if again, err := proof.UnpackLog(packed); err != nil || !bytes.Equal(again, raw) {
				t.Fatal(err)
			}
		}
	})
}
