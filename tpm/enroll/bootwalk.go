package enroll

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/crypto/cryptobyte"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// An event log is walked through before it is parsed: the parser makes room for a digest once
// for each entry of its algorithm, of the size that is told there, so that a short log could have
// it work for minutes. Errors name the number of the event.

const (
	maxBanks             = 16     // algorithms that a log has digests of: no TPM has as many banks
	minDigest, maxDigest = 20, 64 // bytes, from SHA-1 to SHA-512
	sha256Bank           = 0x0b   // TPM_ALG_SHA256
	noPCR                = 1<<32 - 1
)

// banks are the sizes in bytes of the digests of a log, by their algorithm (TPM_ALG_ID).
type banks map[uint16]int

// wholeLog returns an event log without the padding after its events, and without those of no
// PCR, which the parser would take for padding. The log is in the crypto-agile form, with digests
// of SHA-256 (TCG PC Client Platform Firmware Profile).
func wholeLog(raw []byte) ([]byte, error) {
	b, at, err := readBanks(raw)
	if err != nil {
		return nil, err
	}
	whole, n := slices.Clone(raw[:at]), 0
	for end := len(unpadded(raw)); at < end; n++ {
		if n == maxBootEvents {
			return nil, proof.Fail(ErrEventLog, "it has more than the %d events allowed", maxBootEvents)
		}
		size, trouble := b.event(raw[at:])
		if trouble != "" {
			return nil, proof.Fail(ErrEventLog, "its event %d %s", n+1, trouble)
		}
		if binary.LittleEndian.Uint32(raw[at:]) != noPCR {
			whole = append(whole, raw[at:at+size]...)
		}
		at += size
	}
	if n == 0 {
		return nil, proof.Fail(ErrEventLog, "it has no events")
	}
	return whole, nil
}

// unpadded cuts off what cannot begin an event, which has some bit, and a PCR. It may be the
// end of the last event.
func unpadded(raw []byte) []byte {
	if rest := bytes.TrimRight(raw, "\x00"); len(rest) < len(raw) {
		return rest
	}
	return bytes.TrimRight(raw, "\xff")
}

// readBanks reads the algorithms in the first event of a log, and returns its size, too.
func readBanks(raw []byte) (b banks, size int, err error) {
	const first, head = 4 + 4 + 20 + 4, 16 + 4 + 4 + 4 // bytes of the event before its data, and of that before the banks
	if len(raw) < first+head || !bytes.HasPrefix(raw[first:], []byte("Spec ID Event03\x00")) {
		return nil, 0, proof.Fail(ErrEventLog, "it is not in the crypto-agile form, which has digests of SHA-256 (TCG PC Client Platform Firmware Profile)")
	}
	data := uint64(binary.LittleEndian.Uint32(raw[first-4:]))
	if data > uint64(len(raw)-first) {
		return nil, 0, proof.Fail(ErrEventLog, "its first event is cut off")
	}
	list := raw[first : first+int(data)]
	count := 0
	if len(list) >= head {
		count, list = int(binary.LittleEndian.Uint32(list[head-4:])), list[head:]
	}
	if count > maxBanks || 4*count > len(list) {
		return nil, 0, proof.Fail(ErrEventLog, "it has digests of %d algorithms", count)
	}
	b = banks{}
	for ; count > 0; count, list = count-1, list[4:] {
		algorithm, digest := binary.LittleEndian.Uint16(list), int(binary.LittleEndian.Uint16(list[2:]))
		if b[algorithm] != 0 || digest < minDigest || digest > maxDigest {
			return nil, 0, proof.Fail(ErrEventLog, "its digests of algorithm %#x have %d bytes, or it is listed twice", algorithm, digest)
		}
		b[algorithm] = digest
	}
	if b[sha256Bank] == 0 {
		return nil, 0, proof.Fail(ErrEventLog, "it has no digests of SHA-256: switch that bank on in the firmware, and restart the machine")
	}
	return b, first + int(data), nil
}

// event returns the size of the event that a log goes on with, or what is wrong with it.
func (b banks) event(in cryptobyte.String) (size int, trouble string) {
	const cutOff = "is cut off"
	rest := in
	var head, algorithm, length []byte
	if !rest.ReadBytes(&head, 4+4+4) {
		return 0, cutOff
	}
	digests := binary.LittleEndian.Uint32(head[8:])
	if digests > maxBanks {
		return 0, fmt.Sprintf("has %d digests", digests)
	}
	for range digests {
		if !rest.ReadBytes(&algorithm, 2) {
			return 0, cutOff
		}
		of := binary.LittleEndian.Uint16(algorithm)
		if b[of] == 0 {
			return 0, fmt.Sprintf("has a digest of algorithm %#x, which the log does not declare", of)
		}
		if !rest.Skip(b[of]) {
			return 0, cutOff
		}
	}
	if !rest.ReadBytes(&length, 4) || uint64(binary.LittleEndian.Uint32(length)) > uint64(len(rest)) {
		return 0, cutOff
	}
	return len(in) - len(rest) + int(binary.LittleEndian.Uint32(length)), ""
}
