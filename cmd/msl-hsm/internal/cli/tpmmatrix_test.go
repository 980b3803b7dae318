package cli

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"maps"
	"math/big"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/msl-hsm/msl-hsm/cmd/msl-hsm/internal/exit"
	"github.com/msl-hsm/msl-hsm/tpm/enroll"
	"github.com/msl-hsm/msl-hsm/tpm/tpmtest"
)

// A fieldCase is a device as there are some in the field.
type fieldCase struct {
	quirk       string
	ek          string
	passwords   string // letters of owner, endorsement and lockout
	certificate string
}

// fieldQuirks are the chips: what they lack, and how slow they are.
func fieldQuirks() map[string]tpmtest.Quirk {
	return map[string]tpmtest.Quirk{
		"none":         func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) { return send(command) },
		"no AES":       tpmtest.WithoutEncryptDecrypt,
		"two sessions": tpmtest.FewSessions(2),
		"in pieces":    tpmtest.Piecewise(1),
		"slow":         tpmtest.Delay(5 * time.Millisecond),
		"retry":        tpmtest.Retry(uint32(tpm2.TPMRCRetry), 2),
		"yielded":      tpmtest.Retry(uint32(tpm2.TPMRCYielded), 1),
		"testing":      tpmtest.Retry(uint32(tpm2.TPMRCTesting), 1),
		"NV rate":      tpmtest.Retry(uint32(tpm2.TPMRCNVRate), 1),
	}
}

// fieldChip is a chip of fieldQuirks, or one with what two of them have.
func fieldChip(name string) tpmtest.Quirk {
	first, second, both := strings.Cut(name, " and ")
	if !both {
		return fieldQuirks()[name]
	}
	if first == "two sessions" { // it asks the chip how many there are, which no other quirk is to see
		first, second = second, first
	}
	outer, inner := fieldQuirks()[first], fieldQuirks()[second]
	return func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
		return outer(command, func(c []byte) ([]byte, error) { return inner(c, send) })
	}
}

// fieldCases are a sample of the matrix, or all of it with MSL_SOAK=1, and a sample of those
// with two quirks.
func fieldCases() (list []fieldCase) {
	if os.Getenv("MSL_SOAK") == "" {
		return []fieldCase{
			{"no AES and retry", "rsa2048", "oel", "good"}, {"two sessions", "p256", "e", "unwritten"}, {"in pieces and retry", "p384", "o", "good"},
			{"none", "rsa2048", "", "garbage"}, {"none", "p256", "", "with a header"}, {"none", "p256", "e", "expired"},
		}
	}
	eks, words := []string{"rsa2048", "p256", "p384"}, []string{"", "o", "e", "l", "oel"}
	certificates := []string{"none", "good", "unwritten", "garbage", "of another key"}
	quirks := slices.Sorted(maps.Keys(fieldQuirks()))
	for i, quirk := range quirks {
		for _, ek := range eks {
			for _, passwords := range words {
				for _, certificate := range certificates {
					list = append(list, fieldCase{quirk, ek, passwords, certificate})
				}
			}
		}
		for j, other := range quirks[i+1:] {
			for n, ek := range eks {
				if quirk == "none" || other == "none" {
					continue
				}
				list = append(list, fieldCase{quirk + " and " + other, ek, words[(i+j+n)%5], certificates[(i+2*j+n)%5]})
			}
		}
	}
	return append(list, oddCases()...)
}

// TestField takes each device through its life: it works, or one line says what to do.
func TestField(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	skipWithRace(t)
	s := newSite(t)
	chips, roots := certifiedChips(t)
	odd := newOddMaker(t)
	s.write("roots.pem", roots+string(enroll.PEM("CERTIFICATE", odd.root.Raw)))
	s.stop()
	s.write("server.yaml", "keystore: {uri: 'soft:server.keys', pin: 'file:pin'}\n"+
		"server: {state: server.db, custody: imported, enrollment: {state: enroll.db, monitor: true, ek-roots: roots.pem}}\n")
	s.command("state", "init")
	s.serve()
	for i, c := range fieldCases() {
		t.Run(fmt.Sprintf("%+v", c), func(t *testing.T) {
			p := tpmtest.Start(t)
			if c.certificate == "good" {
				if err := os.CopyFS(p.State+"/certified", os.DirFS(chips[c.quirk].State)); err != nil {
					t.Fatal(err)
				}
				p.State += "/certified"
			}
			f := &fieldDevice{T: t, site: s, c: c, name: fmt.Sprint("device", i)}
			f.prepare(p, odd)
			f.uri = tpmtest.ServeQuirky(t, p, fieldChip(c.quirk)) + "&state=" + s.path(f.name+".keys")
			f.live()
		})
	}
}

// certifiedChips makes a certified chip for each quirk that needs one, and returns the
// certificates of their makers. Copies of a chip are one device: a server takes only so many
// keys of each.
func certifiedChips(t *testing.T) (chips map[string]*tpmtest.TPM, roots string) {
	t.Helper()
	chips = map[string]*tpmtest.TPM{}
	for _, c := range fieldCases() {
		if c.certificate != "good" || chips[c.quirk] != nil {
			continue
		}
		chip, makers := tpmtest.StartCertified(t)
		chips[c.quirk] = chip
		for _, m := range makers {
			roots += string(enroll.PEM("CERTIFICATE", m.Raw))
		}
	}
	return chips, roots
}

// TestFieldLockout follows the advice of a TPM that is locked: its keys without a PIN are
// not locked in fact, but some chips refuse all.
func TestFieldLockout(t *testing.T) {
	skipWithRace(t)
	const ccCreate, ccReset = uint32(tpm2.TPMCCCreate), 0x139
	var locked atomic.Bool
	locked.Store(true)
	uri := tpmtest.ServeQuirky(t, tpmtest.Start(t), func(command []byte, send func([]byte) ([]byte, error)) ([]byte, error) {
		if tpmtest.Command(command) == ccReset {
			locked.Store(false)
		}
		if locked.Load() && tpmtest.Command(command) == ccCreate {
			return tpmtest.Refuse(uint32(tpm2.TPMRCLockout)), nil
		}
		return send(command)
	}) + "&state=" + t.TempDir() + "/device.keys"
	var trouble bytes.Buffer
	code := runCheaply([]string{"--keystore", uri, "tpm", "init"}, nil, io.Discard, &trouble)
	if line := trouble.String(); code != exit.Secret || strings.Count(line, "\n") != 1 || !strings.HasSuffix(line, ": run msl-hsm tpm unlock\n") {
		t.Errorf("exit code %d: %s", code, line)
	}
	for _, verb := range []string{"unlock", "init"} {
		trouble.Reset()
		if code := runCheaply([]string{"--keystore", uri, "tpm", verb}, nil, io.Discard, &trouble); code != 0 {
			t.Errorf("%s: exit code %d: %s", verb, code, trouble.String())
		}
	}
}

// A fieldDevice is a device with its TPM.
type fieldDevice struct {
	*testing.T
	site *site
	c    fieldCase
	name string
	uri  string
}

// prepare gives the TPM its certificate and its passwords.
func (f *fieldDevice) prepare(p *tpmtest.TPM, odd *oddMaker) {
	f.Helper()
	conn, err := p.Dial()
	if err != nil {
		f.Fatal(err)
	}
	defer conn.Close()
	chip := transport.FromReadWriter(conn)
	indices := map[string]tpm2.TPMHandle{"rsa2048": 0x01c00002, "p256": 0x01c0000a, "p384": 0x01c00016}
	switch f.c.certificate {
	case "unwritten":
		defineNV(f.T, chip, indices[f.c.ek], 900, nil)
	case "garbage":
		defineNV(f.T, chip, indices[f.c.ek], 900, bytes.Repeat([]byte{0xff}, 900))
	case "of another key":
		der := strangeCertificate(f.T)
		defineNV(f.T, chip, indices[f.c.ek], len(der), der)
	case "none", "good":
	default:
		odd.store(f.T, chip, f.c.ek, f.c.certificate)
	}
	for letter, hierarchy := range map[string]tpm2.TPMHandle{"o": tpm2.TPMRHOwner, "e": tpm2.TPMRHEndorsement, "l": tpm2.TPMRHLockout} {
		if !strings.Contains(f.c.passwords, letter) {
			continue
		}
		f.site.write("password-"+letter, "secret "+letter+"\n")
		_, err := tpm2.HierarchyChangeAuth{
			AuthHandle: tpm2.AuthHandle{Handle: hierarchy, Auth: tpm2.PasswordAuth(nil)},
			NewAuth:    tpm2.TPM2BAuth{Buffer: []byte("secret " + letter)},
		}.Execute(chip)
		if err != nil {
			f.Fatal(err)
		}
	}
}

// defineNV makes an NV index and writes data into it.
func defineNV(t *testing.T, chip transport.TPM, at tpm2.TPMHandle, size int, data []byte) {
	t.Helper()
	public := tpm2.TPMSNVPublic{
		NVIndex: at, NameAlg: tpm2.TPMAlgSHA256, DataSize: uint16(size),
		Attributes: tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, AuthRead: true, AuthWrite: true, NoDA: true},
	}
	if _, err := (tpm2.NVDefineSpace{AuthHandle: tpm2.TPMRHOwner, PublicInfo: tpm2.New2B(public)}).Execute(chip); err != nil {
		t.Fatal(err)
	}
	for offset := 0; offset < len(data); {
		n := min(512, len(data)-offset)
		name, err := tpm2.NVReadPublic{NVIndex: at}.Execute(chip)
		if err != nil {
			t.Fatal(err)
		}
		_, err = tpm2.NVWrite{
			AuthHandle: tpm2.AuthHandle{Handle: at, Name: name.NVName, Auth: tpm2.PasswordAuth(nil)}, NVIndex: tpm2.NamedHandle{Handle: at, Name: name.NVName},
			Data: tpm2.TPM2BMaxNVBuffer{Buffer: data[offset : offset+n]}, Offset: uint16(offset),
		}.Execute(chip)
		if err != nil {
			t.Fatal(err)
		}
		offset += n
	}
}

// strangeCertificate is for a key that is in no TPM.
func strangeCertificate(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "strange"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// flags name the passwords of some hierarchies.
func (f *fieldDevice) flags(letters string) (flags []string) {
	for letter, flag := range map[string]string{"o": "--owner-password", "e": "--endorsement-password", "l": "--lockout-password"} {
		if strings.Contains(letters, letter) {
			flags = append(flags, flag, "file:"+f.site.path("password-"+letter))
		}
	}
	return flags
}

// run runs a verb, which works, and returns its error output.
func (f *fieldDevice) run(letters string, args ...string) string {
	f.Helper()
	var out, trouble bytes.Buffer
	args = slices.Concat([]string{"--keystore", f.uri}, f.flags(letters), args)
	if code := runCheaply(args, nil, &out, &trouble); code != 0 {
		f.Fatalf("msl-hsm %s: exit code %d: %s", strings.Join(args, " "), code, trouble.String())
	}
	return trouble.String()
}

// refused runs a verb without a password that it needs: it says which, in one line.
func (f *fieldDevice) refused(flag string, args ...string) {
	f.Helper()
	var trouble bytes.Buffer
	code := runCheaply(append([]string{"--keystore", f.uri}, args...), nil, io.Discard, &trouble)
	if line := trouble.String(); code != exit.Secret || strings.Count(line, "\n") != 1 || !strings.Contains(line, "name its source with "+flag) {
		f.Errorf("%v: exit code %d, %s", args, code, line)
	}
}

// keptEK reports whether the maker made the EK persistent, so that nobody has to make it.
func (f *fieldDevice) keptEK() bool { return f.c.certificate == "good" && f.c.ek != "p256" }

// live takes a device through its life.
func (f *fieldDevice) live() {
	f.Helper()
	enrollment := []string{"--server", f.site.url + "/enroll", "--server-key", f.site.path("server.pem")}
	send := []string{"send", f.site.url, "--server-key", f.site.path("server.pem"), "--data", "x", "-v", "--state", f.site.path(f.name + ".db")}
	initial := []string{"tpm", "init", "--ek", f.c.ek}
	switch {
	case strings.Contains(f.c.passwords, "o"):
		f.refused("--owner-password", initial...)
	case strings.Contains(f.c.passwords, "e") && !f.keptEK():
		f.refused("--endorsement-password", initial...)
	}
	f.run("oel", initial...)
	if strings.Contains(f.c.passwords, "e") {
		f.refused("--endorsement-password", slices.Concat([]string{"tpm", "enroll"}, enrollment)...)
	}
	f.run("oel", slices.Concat([]string{"tpm", "enroll"}, enrollment)...)
	if said := f.run("", send...); !strings.Contains(said, "new, by key exchange TPM_IMPORT") {
		f.Errorf("the first message: %s", said)
	}
	if said := f.run("", send...); !strings.Contains(said, "re-used, no key exchange") {
		f.Errorf("the session is not kept: %s", said)
	}
	if strings.Contains(f.c.quirk, "no AES") {
		f.withoutAES(send)
	}
	f.run("oel", slices.Concat([]string{"tpm", "renew"}, enrollment)...)
	f.run("", send...)
	f.run("", "tpm", "quote", "--nonce", strings.Repeat("ab", 16))
	f.run("oel", "tpm", "status")
	f.recorded()
	if strings.Contains(f.c.passwords, "l") {
		f.refused("--lockout-password", "tpm", "unlock")
	}
	f.run("oel", "tpm", "unlock")
}

// withoutAES sends by the other key exchange, whose sessions are kept, too, and as nothing
// may leave the TPM, which is refused.
func (f *fieldDevice) withoutAES(send []string) {
	f.Helper()
	imported := append(slices.Clone(send), "--custody", "imported", "--state", f.site.path(f.name+"-imported.db"))
	if said := f.run("", imported...); !strings.Contains(said, "new, by key exchange ASYMMETRIC_WRAPPED") {
		f.Errorf("custody imported: %s", said)
	}
	if said := f.run("", imported...); !strings.Contains(said, "re-used, no key exchange") {
		f.Errorf("custody imported: the session is not kept: %s", said)
	}
	var trouble bytes.Buffer
	code := Run(slices.Concat([]string{"--keystore", f.uri}, send, []string{"--custody", "sealed"}), nil, io.Discard, &trouble)
	if line := trouble.String(); code != exit.Usage || !strings.Contains(line, "custody must be imported") {
		f.Errorf("custody sealed: exit code %d, %s", code, line)
	}
}
