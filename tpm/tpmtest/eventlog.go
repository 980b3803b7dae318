package tpmtest

import (
	"crypto/sha256"
	"encoding/binary"
	"io"
	"net"
	"testing"
)

// A BootEvent is a measurement by firmware: its data, with whose digest it extends a PCR.
type BootEvent struct {
	PCR  uint32
	Type uint32 // such as 4, EV_SEPARATOR
	Data string
}

// EventLog writes the event log of these events as firmware does, crypto-agile with
// SHA-256 (TCG PC Client Platform Firmware Profile).
func EventLog(events ...BootEvent) []byte {
	little := binary.LittleEndian
	log := append(little.AppendUint32(make([]byte, 4), 3), make([]byte, 20)...) // PCR 0, EV_NO_ACTION
	id := []byte("Spec ID Event03\x00\x00\x00\x00\x00\x00\x02\x00\x02\x01\x00\x00\x00\x0b\x00\x20\x00\x00")
	log = append(little.AppendUint32(log, uint32(len(id))), id...)
	for _, e := range events {
		log = little.AppendUint32(little.AppendUint32(log, e.PCR), e.Type)
		log = append(log, 1, 0, 0, 0, 0x0b, 0) // one digest, TPM_ALG_SHA256
		digest := sha256.Sum256([]byte(e.Data))
		log = append(log, digest[:]...)
		log = append(little.AppendUint32(log, uint32(len(e.Data))), e.Data...)
	}
	return log
}

// PCRAfter is the value of a PCR in the SHA-256 bank after these events.
func PCRAfter(pcr uint32, events ...BootEvent) []byte {
	value := make([]byte, sha256.Size)
	for _, e := range events {
		if e.PCR == pcr {
			digest := sha256.Sum256([]byte(e.Data))
			next := sha256.Sum256(append(value, digest[:]...))
			value = next[:]
		}
	}
	return value
}

// Measure extends the PCRs of a TPM with these events (TPM2_PCR_Extend).
func Measure(t testing.TB, conn io.ReadWriter, events ...BootEvent) {
	t.Helper()
	for _, e := range events {
		digest := sha256.Sum256([]byte(e.Data))
		command := []byte{0x80, 0x02, 0, 0, 0, 65, 0, 0, 0x01, 0x82}
		command = binary.BigEndian.AppendUint32(command, e.PCR)
		command = append(command, 0, 0, 0, 9, 0x40, 0, 0, 0x09, 0, 0, 0, 0, 0) // an empty password
		command = append(append(command, 0, 0, 0, 1, 0, 0x0b), digest[:]...)
		answer, err := Exchange(conn, command)
		if err != nil || Code(answer) != 0 {
			t.Fatalf("TPM2_PCR_Extend: %#x, %v", Code(answer), err)
		}
	}
}

// MeasureServed is Measure for a TPM of [Serve], which must not be open elsewhere.
func MeasureServed(t testing.TB, uri string, events ...BootEvent) {
	t.Helper()
	conn, err := net.Dial("unix", Socket(uri))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	Measure(t, conn, events...)
}
