package modulecheck

import "github.com/msl-hsm/msl-hsm/hsm"

// The groups of checks besides those of the suite.
const (
	described     = "about" // only if it fails
	probed        = "probe"
	sealingKeys   = "sealing-keys"
	secondOpinion = "second-opinion"
	cleaning      = "clean-up"
)

// meaning says what it is for a server that a check of a group does not hold.
func meaning(r Result) string {
	if r.Group() == probed {
		if what := hsm.Weaknesses()[r.Name[len(probed)+1:]]; what != "" {
			return what
		}
		return map[string]string{
			"unwrap-template-kept": "what a key does with those that it unwraps has to be tried each time, which takes longer",
			"digest-key":           "anyone who has the PIN can compute hashes of keys; see docs/custody.md",
			"device":               "the module fails",
		}[r.Name[len(probed)+1:]]
	}
	return map[string]string{
		described:      "nothing: a server does not ask for it",
		"open":         "no token of this module can be opened",
		sealingKeys:    "session keys cannot be sealed: custody sealed is not possible, and a server does not start without keystore.session-keys: memory",
		"interfaces":   "keys of this algorithm cannot be made",
		"cipher":       "messages cannot be encrypted by keys in the token",
		"mac":          "messages cannot be authenticated by keys in the token",
		"sign":         "a server cannot have an identity with a key of this algorithm",
		"wrap":         "no session keys for devices with pre-shared keys (exchanges with AES key wrap)",
		"unwrap":       "a device cannot receive session keys under a pre-shared key",
		"oaep":         "no session keys for devices that send an RSA key (exchanges with RSA-OAEP)",
		"reveal":       "wrapped keys in JWE form cannot be opened",
		"wrap-data":    "session keys cannot be wrapped as data (JSON Web Keys)",
		"decrypt":      "what devices encrypt for an RSA key cannot be opened (JWK_RSA)",
		"seal":         "devices that return with a master token are not recognized: they begin a new session each time",
		"seal-forged":  "sealed keys that were changed, or are for another purpose, may be accepted",
		"seal-refused": "keys that cannot be sealed may still leave the token",
		"provisioned":  "keys of this algorithm cannot be kept in the token, or are not found again",
		"random":       "random bytes come only from the operating system",
		"vectors":      "malformed data from an attacker may be accepted as valid, or valid data refused",
		"unsupported":  "requests that the store does not support are not refused",
		"closed":       "a key that was closed may still be used",
		"foreign":      "keys of one store may be used by another",
		"concurrent":   "concurrent messages may get wrong answers or errors",
		"close":        "objects or sessions may be left in the token",
		secondOpinion:  "other software may not be able to use the keys, or this software those of others",
		cleaning:       "keys of this test are left in the token: destroy them",
	}[r.Group()]
}
