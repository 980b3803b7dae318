package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// Capabilities are what a TPM reports about itself (TPM2_GetCapability).
type Capabilities struct {
	Manufacturer   string // four letters: IFX, STM, INTC, AMD, IBM …
	Firmware       uint64
	Algorithms     []tpm2.TPMAlgID
	Curves         []tpm2.TPMECCCurve
	EncryptDecrypt bool // TPM2_EncryptDecrypt2: AES with keys in the TPM
	MaxBuffer      int  // bytes of data in one command
	Transient      int  // loaded objects that fit, at least
}

// The bytes of data in one command: at most maxBuffer are used, and every TPM accepts
// minBuffer.
const (
	maxBuffer = 1024
	minBuffer = 128
)

// tagTPM12 begins the responses of a TPM 1.2 (TPM_TAG_RSP_COMMAND).
const tagTPM12 = 0x00c4

// supports returns errors.ErrUnsupported for an algorithm whose keys this TPM could make
// but not use.
func (c Capabilities) supports(a keystore.Algorithm) error {
	switch a {
	case keystore.AES128CBC, keystore.AES256CBC, keystore.AESReveal128:
		if !c.EncryptDecrypt {
			return fmt.Errorf("tpm: %v: this TPM has no TPM2_EncryptDecrypt2: keep such keys in another store: %w", a, errors.ErrUnsupported)
		}
	case keystore.AESCMAC128:
		if !slices.Contains(c.Algorithms, tpm2.TPMAlgCMAC) {
			return fmt.Errorf("tpm: %v: this TPM has no CMAC: %w", a, errors.ErrUnsupported)
		}
	case keystore.RSASign2048, keystore.RSASign3072, keystore.RSASign4096, keystore.RSADecrypt2048, keystore.RSADecrypt3072, keystore.RSADecrypt4096:
		if !slices.Contains(c.Algorithms, tpm2.TPMAlgRSA) {
			return fmt.Errorf("tpm: %v: this TPM has no RSA: use keys of elliptic curves: %w", a, errors.ErrUnsupported)
		}
	case keystore.ECDSAP384:
		if !slices.Contains(c.Curves, tpm2.TPMECCNistP384) {
			return fmt.Errorf("tpm: %v: this TPM has no curve P-384: %w", a, errors.ErrUnsupported)
		}
	}
	return nil
}

// capabilities reads all of them.
func capabilities(t transport.TPM) (c Capabilities, err error) {
	if err := c.readProperties(t); err != nil {
		return c, err
	}
	items, err := capability(t, tpm2.TPMCapCommands, ccEncryptDecrypt2, 1, 4)
	if err != nil {
		return c, err
	}
	// The list starts at the command, or after it if the TPM does not have it.
	c.EncryptDecrypt = len(items) == 1 && binary.BigEndian.Uint32(items[0])&0xffff == ccEncryptDecrypt2
	if items, err = capability(t, tpm2.TPMCapAlgs, 0, 256, 6); err != nil {
		return c, err
	}
	for _, item := range items {
		c.Algorithms = append(c.Algorithms, tpm2.TPMAlgID(binary.BigEndian.Uint16(item)))
	}
	// A TPM without elliptic curves does not know this capability.
	items, err = capability(t, tpm2.TPMCapECCCurves, 0, 256, 2)
	if err != nil && !errors.Is(err, tpm2.TPMRCValue) {
		return c, err
	}
	for _, item := range items {
		c.Curves = append(c.Curves, tpm2.TPMECCCurve(binary.BigEndian.Uint16(item)))
	}
	return c, nil
}

// readProperties reads the properties of type TPM_PT (TPM 2.0 Library, Part 2, clause
// 6.13). Properties that the TPM lacks stay 0.
func (c *Capabilities) readProperties(t transport.TPM) error {
	var maker, buffer, transient, firmware1, firmware2 uint32
	for p, to := range map[tpm2.TPMPT]*uint32{
		tpm2.TPMPTManufacturer: &maker, tpm2.TPMPTInputBuffer: &buffer, tpm2.TPMPTHRTransientMin: &transient,
		tpm2.TPMPTFirmwareVersion1: &firmware1, tpm2.TPMPTFirmwareVersion2: &firmware2,
	} {
		items, err := capability(t, tpm2.TPMCapTPMProperties, uint32(p), 1, 8)
		if err != nil {
			return err
		}
		if len(items) == 1 && binary.BigEndian.Uint32(items[0]) == uint32(p) {
			*to = binary.BigEndian.Uint32(items[0][4:])
		}
	}
	c.Manufacturer = strings.TrimRight(string(binary.BigEndian.AppendUint32(nil, maker)), " \x00")
	c.Firmware = uint64(firmware1)<<32 | uint64(firmware2)
	c.MaxBuffer = min(max(int(buffer), minBuffer), maxBuffer)
	c.Transient = int(transient)
	return nil
}

// capability returns a list of at most count items of size bytes each, from a property on.
// A TPM may return some of them, and more at the next request.
func capability(t transport.TPM, kind tpm2.TPMCap, property, count uint32, size int) (items [][]byte, err error) {
	for more := true; more && uint32(len(items)) < count; {
		var some [][]byte
		some, more, err = getCapability(t, kind, property, min(count-uint32(len(items)), 256), size)
		if err != nil {
			return nil, err
		}
		items = append(items, some...)
		if next := afterProperty(some); next > property {
			property = next
		} else if more {
			return nil, fmt.Errorf("tpm: TPM2_GetCapability: %w", errAnswer()) // it would never end
		}
	}
	return items, nil
}

// afterProperty returns the property that follows the last of some items, each of which
// begins with its own.
func afterProperty(items [][]byte) uint32 {
	if len(items) == 0 {
		return 0
	}
	switch last := items[len(items)-1]; len(last) {
	case 2, 6: // TPM_ECC_CURVE, TPMS_ALG_PROPERTY
		return uint32(binary.BigEndian.Uint16(last)) + 1
	default:
		return binary.BigEndian.Uint32(last) + 1
	}
}

// getCapability is TPM2_GetCapability (TPM 2.0 Library, Part 3, clause 30.2). more says that
// the TPM has more items than it returned.
func getCapability(t transport.TPM, kind tpm2.TPMCap, property, count uint32, size int) (items [][]byte, more bool, err error) {
	b := binary.BigEndian.AppendUint32(nil, uint32(kind))
	b = binary.BigEndian.AppendUint32(b, property)
	answer, err := t.Send(packet(ccGetCapability, binary.BigEndian.AppendUint32(b, count)))
	if err != nil {
		return nil, false, err
	}
	if len(answer) >= 2 && binary.BigEndian.Uint16(answer) == tagTPM12 {
		return nil, false, fmt.Errorf("tpm: this is a TPM 1.2, but a TPM 2.0 is needed: %w", keystore.ErrUnavailable)
	}
	if rc := code(answer); rc != 0 {
		return nil, false, &Error{Command: commandName(ccGetCapability), Code: tpm2.TPMRC(rc)}
	}
	// moreData, the kind, the number of items, the items.
	if len(answer) < 19 || uint64(len(answer)-19) != uint64(binary.BigEndian.Uint32(answer[15:]))*uint64(size) {
		return nil, false, fmt.Errorf("tpm: TPM2_GetCapability: %w", errAnswer())
	}
	for rest := answer[19:]; len(rest) > 0; rest = rest[size:] {
		items = append(items, rest[:size])
	}
	return items, answer[10] != 0, nil
}

// Handles returns the persistent handles or NV indices from first to last that a TPM has,
// in increasing order, inside [Device.Do] with the transport that it passes.
func Handles(t transport.TPM, first, last uint32) (list []uint32, err error) {
	items, err := capability(t, tpm2.TPMCapHandles, first, last-first+1, 4)
	for _, item := range items {
		if h := binary.BigEndian.Uint32(item); h <= last {
			list = append(list, h)
		}
	}
	return list, err
}

func errAnswer() error {
	return fmt.Errorf("the answer is malformed: %w", keystore.ErrUnavailable)
}
