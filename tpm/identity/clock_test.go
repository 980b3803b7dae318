package identity

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// TestPutBack enrolls, attests, renews and quotes with a TPM that is started again and again, and
// then put back to an earlier state: the authority notes that, and no start.
func TestPutBack(t *testing.T) {
	p, path := tpmtest.Start(t), newPath(t)
	o := newOffice(t, accepting())
	var id enroll.ID
	with := func(f func(*Device)) {
		t.Helper()
		chip := connect(t, p)
		defer chip.Close()
		d := openDevice(t, chip, path)
		d.PCRs = []uint{7}
		f(d)
	}
	with(func(d *Device) {
		checkError(t, d.Init(t.Context(), InitOptions{EK: EKP256}, nil), nil)
		checkError(t, d.Enroll(t.Context(), o.exchange, nil), nil)
		id = idOf(t, d)
	})
	p.Kill()
	copied := t.TempDir() + "/tpm"
	checkError(t, os.CopyFS(copied, os.DirFS(p.State)), nil)
	notes := func() (n int) {
		for _, e := range o.record(id).Log {
			if strings.Contains(e.What, "its TPM") {
				n++
			}
		}
		return n
	}
	attest := func(d *Device) { checkError(t, d.Attest(t.Context(), o.exchange), nil) }
	nonce := make([]byte, 16)
	remarks := func(d *Device) (list []string) {
		q, err := d.Quote(nonce, []uint{7})
		checkError(t, err, nil)
		r := o.record(id)
		_, err = enroll.VerifyQuote(q, &r, nonce)
		checkError(t, err, nil)
		list, err = enroll.QuoteRemarks(q, &r)
		checkError(t, err, nil)
		return list
	}
	for range 3 {
		with(attest)
	}
	var old []byte
	with(func(d *Device) {
		if list := remarks(d); len(list) != 0 {
			t.Errorf("%q", list)
		}
		var err error
		old, err = d.Quote(nonce, []uint{7})
		checkError(t, err, nil)
		checkError(t, d.Renew(t.Context(), o.exchange, nil), nil)
	})
	with(attest)
	if r := o.record(id); notes() != 0 {
		t.Errorf("a TPM that was started again: %+v", r.Log)
	}
	r := o.record(id)
	list, err := enroll.QuoteRemarks(old, &r)
	if err != nil || len(list) != 1 || !strings.Contains(list[0], "the quote is older") {
		t.Errorf("an older quote: %q, %v", list, err)
	}
	p.Kill()
	checkError(t, os.RemoveAll(p.State), nil)
	checkError(t, os.CopyFS(p.State, os.DirFS(copied)), nil)
	with(func(d *Device) {
		if list := remarks(d); !slices.ContainsFunc(list, func(s string) bool { return strings.Contains(s, "put back") }) {
			t.Errorf("put back: %q", list)
		}
		attest(d)
		if notes() != 1 || len(o.record(id).Attested.Changes) != 1 {
			t.Errorf("put back: %+v", o.record(id).Log)
		}
		attest(d)
		checkError(t, d.Renew(t.Context(), o.exchange, nil), nil)
		attest(d)
	})
	if notes() != 1 {
		t.Errorf("put back once: %+v", o.record(id).Log)
	}
}
