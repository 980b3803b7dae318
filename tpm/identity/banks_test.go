package identity

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// allocate has a TPM keep PCRs in some banks only, from its next start on: TPM2_PCR_Allocate
// by an empty platform password (TPM 2.0 Library, Part 3, clause 22.5).
func allocate(t *testing.T, p *tpmtest.TPM, banks ...tpm2.TPMAlgID) {
	t.Helper()
	command := []byte{0x80, 0x02, 0, 0, 0, 0, 0, 0, 0x01, 0x2b, 0x40, 0, 0, 0x0c, 0, 0, 0, 9, 0x40, 0, 0, 0x09, 0, 0, 0, 0, 0}
	all := []tpm2.TPMAlgID{tpm2.TPMAlgSHA1, tpm2.TPMAlgSHA256, tpm2.TPMAlgSHA384, tpm2.TPMAlgSHA512}
	command = binary.BigEndian.AppendUint32(command, uint32(len(all)))
	for _, bank := range all {
		selected := []byte{0, 0, 0}
		for _, b := range banks {
			if b == bank {
				selected = []byte{0xff, 0xff, 0xff}
			}
		}
		command = append(binary.BigEndian.AppendUint16(command, uint16(bank)), append([]byte{3}, selected...)...)
	}
	binary.BigEndian.PutUint32(command[2:], uint32(len(command)))
	conn, err := p.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answer, err := tpmtest.Exchange(conn, command)
	if err != nil || tpmtest.Code(answer) != 0 || len(answer) < 15 || answer[14] != 1 {
		t.Fatalf("TPM2_PCR_Allocate: %x, %v", answer, err)
	}
}

// TestBanks enrolls devices whose TPM keeps no PCRs of SHA-256, which is what a quote is of.
func TestBanks(t *testing.T) {
	for name, banks := range map[string][]tpm2.TPMAlgID{
		"SHA-1": {tpm2.TPMAlgSHA1}, "SHA-384": {tpm2.TPMAlgSHA384}, "all but SHA-256": {tpm2.TPMAlgSHA1, tpm2.TPMAlgSHA384, tpm2.TPMAlgSHA512},
		"SHA-256": {tpm2.TPMAlgSHA256},
	} {
		t.Run(name, func(t *testing.T) {
			p := tpmtest.Start(t)
			allocate(t, p, banks...)
			chip, o := connect(t, p), newOffice(t, accepting())
			d := ready(t, chip, newPath(t))
			checkError(t, d.Enroll(t.Context(), o.exchange, nil), nil)
			d.PCRs = []uint{0, 7}
			_, quoted := d.Quote(make([]byte, 16), []uint{0, 7})
			for _, err := range []error{quoted, d.Enroll(t.Context(), o.exchange, nil)} {
				switch {
				case name == "SHA-256":
					checkError(t, err, nil)
				case err == nil || !strings.Contains(err.Error(), "tpm2_pcrallocate sha256:all"):
					t.Error(err)
				}
			}
		})
	}
}
