package enroll

import (
	"encoding/binary"

	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// maxBanks is how many algorithms a log may have digests of: no TPM has as many banks.
const maxBanks = 16

// checkBanks reads the algorithms in the first event of a log (TCG PC Client Platform
// Firmware Profile, section 10.4.5.1). The parser makes room for a digest once for each
// entry of its algorithm, of the size that is told there: a short log could have it work
// for minutes. What has no such event is for the parser to judge.
func checkBanks(raw []byte) error {
	const first, size, noAction = 4 + 4 + 20 + 4, 4, 3 // bytes of a head, and of a bank
	const head = 16 + 4 + 4 + 4                        // bytes before the first bank
	if len(raw) < first+head || binary.LittleEndian.Uint32(raw[4:]) != noAction {
		return nil
	}
	id := raw[first:]
	banks, rest := binary.LittleEndian.Uint32(id[head-4:]), id[head:]
	if banks > maxBanks || int(banks)*size > len(rest) {
		return proof.Fail(ErrEventLog, "it has digests of %d algorithms", banks)
	}
	known := map[uint16]bool{}
	for ; banks > 0; banks, rest = banks-1, rest[size:] {
		algorithm, digest := binary.LittleEndian.Uint16(rest), binary.LittleEndian.Uint16(rest[2:])
		if known[algorithm] || digest < minDigest || digest > maxDigest {
			return proof.Fail(ErrEventLog, "its digests of algorithm %#x have %d bytes, or are listed twice", algorithm, digest)
		}
		known[algorithm] = true
	}
	return nil
}

// The sizes in bytes of digests, from SHA-1 to SHA-512.
const minDigest, maxDigest = 20, 64
