package identity

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/tpm"
	"github.com/msl-hsm/msl-hsm/tpm/internal/proof"
)

// A makerKey is a key with a certificate from the device's manufacturer: an IAK, which is
// restricted, or an IDevID.
type makerKey struct {
	tpm2.NamedHandle
	template     *tpm2.TPMTPublic // from which it is made again; nil if it is persistent
	public       proof.Public
	certificates [][]byte // its own first
}

// use passes the key to f.
func (k *makerKey) use(t transport.TPM, f func(tpm2.NamedHandle) error) error {
	if k.template == nil {
		return f(k.NamedHandle)
	}
	any := func(ek) bool { return true }
	_, err := useTemplate(t, *k.template, any, func(made ek) error { return f(made.NamedHandle) })
	return err
}

func (k *makerKey) restricted() bool { return k.public.Area.ObjectAttributes.Restricted }

// findMakerKey looks for a manufacturer's key, an IAK first (TCG TPM 2.0 Keys for Device
// Identity and Attestation): a persistent one, or else one that the TPM makes again. It returns
// nil if there is none. note gets a line for what cannot be used.
func findMakerKey(t transport.TPM, note func(string)) (*makerKey, error) {
	certificates, err := makerCertificates(t, note)
	if err != nil || len(certificates) == 0 {
		return nil, err
	}
	found, err := persistentMakerKey(t, certificates)
	if err != nil || found != nil && found.restricted() {
		return found, err
	}
	rest := certificates
	if found != nil {
		own := found.certificates[0]
		rest = slices.DeleteFunc(slices.Clone(certificates), func(der []byte) bool { return bytes.Equal(der, own) })
	}
	again, err := makeAgain(t, true, rest, note)
	if err == nil && again == nil && found == nil {
		again, err = makeAgain(t, false, rest, note)
	}
	if err != nil || again != nil {
		return again, err
	}
	if found == nil {
		report(note, "the certificate of the device's maker is not used: it is for no key of this TPM that is supported")
	}
	return found, nil
}

// persistentMakerKey looks among the persistent keys.
func persistentMakerKey(t transport.TPM, certificates [][]byte) (found *makerKey, err error) {
	const firstPersistent, lastPersistent = 0x81000000, 0x81ffffff
	handles, err := tpm.Handles(t, firstPersistent, lastPersistent)
	if err != nil {
		return nil, err
	}
	for _, at := range handles {
		k, err := readMakerKey(t, tpm2.TPMHandle(at))
		if err != nil {
			return nil, err
		}
		if k != nil && k.certify(certificates) && (found == nil || k.restricted() && !found.restricted()) {
			found = k
		}
	}
	return found, nil
}

// makerCertificates returns the contents of the NV indices for certificates of device
// keys (TCG Registry of Reserved TPM 2.0 Handles and Localities).
func makerCertificates(t transport.TPM, note func(string)) ([][]byte, error) {
	const first, last = 0x01c90000, 0x01c9ffff
	handles, err := tpm.Handles(t, first, last)
	if err != nil {
		return nil, err
	}
	var contents [][]byte
	for _, at := range handles {
		data, why, err := readNV(t, tpm2.TPMHandle(at))
		if err != nil {
			return nil, err
		}
		if why != "" {
			report(note, fmt.Sprintf("the certificate of the device's maker at %#x is not used: %s", at, why))
		}
		contents = append(contents, data)
	}
	return proof.Certificates(contents...), nil
}

// readMakerKey reads a persistent key, or returns nil if it is of no kind that an
// authority knows.
func readMakerKey(t transport.TPM, at tpm2.TPMHandle) (*makerKey, error) {
	r, err := tpm2.ReadPublic{ObjectHandle: at}.Execute(t)
	if err = tpm.CommandError("TPM2_ReadPublic", err); refusesAlways(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	public, err := proof.ParsePublic(r.OutPublic.Bytes())
	if err != nil || public.CheckMaker() != nil {
		return nil, nil
	}
	return &makerKey{NamedHandle: tpm2.NamedHandle{Handle: at, Name: r.Name}, public: public}, nil
}

// certify finds the certificate of the key, and reports whether it exists. Those of
// authorities follow it.
func (k *makerKey) certify(certificates [][]byte) bool {
	var own, above [][]byte
	for _, der := range certificates {
		c, err := proof.ParseCertificate(der)
		switch {
		case err != nil:
		case c.IsCA:
			above = append(above, der)
		case keystore.SamePublic(c.PublicKey, k.public.Key) && own == nil:
			own = append(own, der)
		}
	}
	k.certificates = append(own, above...)
	k.certificates = k.certificates[:min(len(k.certificates), proof.MaxCertificates)]
	return own != nil
}

// proveDevice lets the manufacturer's key vouch for the AK. A key that the TPM does not
// let it use counts as absent.
func (a *application) proveDevice(p *proof.Proof) error {
	return a.do(func(t transport.TPM) error {
		k := a.maker
		d := &proof.DeviceProof{Certificates: k.certificates, Key: k.public.Raw}
		vouch := func() error {
			return a.use(t, *a.file.state.AK, func(ak tpm2.NamedHandle) error {
				return k.use(t, func(by tpm2.NamedHandle) error {
					if k.restricted() {
						return attestBy(t, by, ak, d, d.Digest(p))
					}
					return signBy(t, by, k.public, d, d.Signed(k.public, p))
				})
			})
		}
		guess := vouch
		if k.template == nil && !k.public.Area.ObjectAttributes.NoDA { // its password may not be empty
			guess = func() error { return tpm.Guess(t, k.Name.Buffer, vouch) }
		}
		err := guess()
		switch {
		case err == nil:
			p.Device = d
		case !refusesAlways(err):
			return err
		default:
			report(a.progress, "the certificate of the device's maker is not used: "+err.Error())
		}
		return nil
	})
}

// attestBy is TPM2_Certify of the AK by a key.
func attestBy(t transport.TPM, by, ak tpm2.NamedHandle, d *proof.DeviceProof, qualifying []byte) error {
	r, err := tpm2.Certify{
		ObjectHandle: authorized(ak), SignHandle: authorized(by),
		QualifyingData: tpm2.TPM2BData{Buffer: qualifying}, InScheme: tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
	}.Execute(t)
	if err == nil {
		d.Attest, d.Signature = r.CertifyInfo.Bytes(), tpm2.Marshal(r.Signature)
	}
	return tpm.CommandError("TPM2_Certify", err)
}

// signBy is TPM2_Sign of a digest by a key.
func signBy(t transport.TPM, by tpm2.NamedHandle, public proof.Public, d *proof.DeviceProof, digest []byte) error {
	scheme, hash := public.Signing()
	r, err := tpm2.Sign{
		KeyHandle: authorized(by), Digest: tpm2.TPM2BDigest{Buffer: slices.Clone(digest)},
		InScheme:   tpm2.TPMTSigScheme{Scheme: scheme, Details: tpm2.NewTPMUSigScheme(scheme, &tpm2.TPMSSchemeHash{HashAlg: hash})},
		Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
	}.Execute(t)
	if err == nil {
		d.Signature = tpm2.Marshal(r.Signature)
	}
	return tpm.CommandError("TPM2_Sign", err)
}
