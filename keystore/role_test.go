package keystore_test

import (
	"slices"
	"testing"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// Labels are in the tokens of deployments: none may ever change.
func TestLabels(t *testing.T) {
	for role, want := range map[keystore.Role]struct {
		label     string
		algorithm keystore.Algorithm
	}{
		keystore.RoleIdentity:          {"net-identity", keystore.RSASign2048},
		keystore.RoleIssuerEncryption:  {"net-issuer-encryption", keystore.AES128CBC},
		keystore.RoleIssuerMAC:         {"net-issuer-mac", keystore.HMACSHA256},
		keystore.RoleIssuerWrapping:    {"net-issuer-wrapping", keystore.AESWrap128},
		keystore.RoleIssuerRevealing:   {"net-issuer-revealing", keystore.AESReveal128},
		keystore.RoleServiceEncryption: {"net-service-encryption", keystore.AES128CBC},
		keystore.RoleServiceMAC:        {"net-service-mac", keystore.HMACSHA256},
		keystore.RoleCA:                {"net-ca", keystore.ECDSAP256},
		keystore.RoleAudit:             {"net-audit", keystore.ECDSAP256},
		keystore.RolePSKEncryption:     {"net-encryption", keystore.AES128CBC},
		keystore.RolePSKMAC:            {"net-mac", keystore.HMACSHA256Block},
		keystore.RolePSKWrapping:       {"net-wrapping", keystore.AESUnwrap128},
		keystore.RolePSKRevealing:      {"net-revealing", keystore.AESReveal128},
		keystore.RoleSealSession:       {"net-seal-session", keystore.SealSession256},
		keystore.RoleSealWrapping:      {"net-seal-wrapping", keystore.SealWrapping256},
		keystore.RoleSealMAC:           {"net-seal-mac", keystore.SealMAC256},
		keystore.RoleStateMark:         {"net-state-authenticated", keystore.HMACSHA256},
		keystore.RoleEnrollmentsMark:   {"net-enrollments-authenticated", keystore.HMACSHA256},
		"nobody":                       {"net-nobody", 0},
	} {
		if label := role.Label("net"); label != want.label {
			t.Errorf("role %s has the label %q, want %q", role, label, want.label)
		}
		if a := role.Algorithm(); a != want.algorithm {
			t.Errorf("role %s is for %v, want %v", role, a, want.algorithm)
		}
	}
}

func TestRolesOfSets(t *testing.T) {
	sealing := []keystore.Role{keystore.RoleSealSession, keystore.RoleSealWrapping, keystore.RoleSealMAC}
	device := append([]keystore.Role{keystore.RoleIdentity}, sealing...)
	server := append([]keystore.Role{keystore.RoleIdentity, keystore.RoleIssuerEncryption, keystore.RoleIssuerMAC,
		keystore.RoleServiceEncryption, keystore.RoleServiceMAC}, sealing...)
	for name, roles := range map[string][2][]keystore.Role{
		"sealing": {keystore.SealingRoles(), sealing},
		"device":  {keystore.DeviceRoles(), device},
		"server":  {keystore.ServerRoles(), server},
	} {
		if !slices.Equal(roles[0], roles[1]) {
			t.Errorf("%s: %v, want %v", name, roles[0], roles[1])
		}
	}
	for _, a := range keystore.Algorithms() {
		if label := keystore.SealingLabel("net", a); (label != "") != a.Sealing() {
			t.Errorf("%v has the sealing label %q", a, label)
		}
	}
}

func TestLabelFits(t *testing.T) {
	for _, c := range []struct {
		prefix, label string
		algorithm     keystore.Algorithm
		fits          bool
	}{
		{"msl", "msl-seal-session", keystore.SealSession256, true},
		{"net", "net-seal-mac", keystore.SealMAC256, true},
		{"net", "msl-seal-mac", keystore.SealMAC256, false},
		{"msl", "msl-seal-mac", keystore.SealSession256, false},
		{"msl", "msl-seal-mac", keystore.HMACSHA256, false},
		{"net", "msl-seal-mac", keystore.HMACSHA256, true},
		{"msl", "camera", keystore.SealWrapping256, false},
		{"msl", "camera", keystore.AES128CBC, true},
		{"msl", "", keystore.SealMAC256, false},
	} {
		if fits := keystore.LabelFits(c.prefix, c.label, c.algorithm); fits != c.fits {
			t.Errorf("with the prefix %q, label %q fits %v: %t", c.prefix, c.label, c.algorithm, fits)
		}
	}
}

// TestSealedBy has every algorithm: what is added later is not sealed until it is said so.
func TestSealedBy(t *testing.T) {
	sealed := map[keystore.Algorithm]keystore.Role{
		keystore.AES128CBC: keystore.RoleSealSession, keystore.AES256CBC: keystore.RoleSealSession,
		keystore.HMACSHA256: keystore.RoleSealSession, keystore.HMACSHA256Block: keystore.RoleSealSession,
		keystore.AESCMAC128: keystore.RoleSealSession, keystore.AESWrap128: keystore.RoleSealWrapping,
	}
	for _, a := range keystore.Algorithms() {
		if got := a.SealedBy(); got != sealed[a] {
			t.Errorf("%v is sealed by %q, want %q", a, got, sealed[a])
		}
	}
}
