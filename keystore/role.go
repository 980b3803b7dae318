package keystore

import "slices"

// A Role says what a provisioned key is for in a server or a device. It is the
// last part of the key's label, see [Role.Label].
type Role string

const (
	// RoleIdentity is the key with which a server or a device proves its identity.
	RoleIdentity Role = "identity"
	// RoleIssuerEncryption encrypts the session data of master tokens, and the user
	// data of user ID tokens.
	RoleIssuerEncryption Role = "issuer-encryption"
	// RoleIssuerMAC authenticates master tokens and user ID tokens.
	RoleIssuerMAC Role = "issuer-mac"
	// RoleIssuerWrapping wraps the keys that a server gives to its peers.
	RoleIssuerWrapping Role = "issuer-wrapping"
	// RoleIssuerRevealing has the same bytes as RoleIssuerWrapping, and unwraps.
	RoleIssuerRevealing Role = "issuer-revealing"
	// RoleServiceEncryption encrypts service tokens.
	RoleServiceEncryption Role = "service-encryption"
	// RoleServiceMAC authenticates service tokens.
	RoleServiceMAC Role = "service-mac"
	// RoleCA is the key of the authority that signs the certificates of devices.
	RoleCA Role = "ca"
	// RoleAudit signs the audit log of a server.
	RoleAudit Role = "audit"
	// RoleStateMark and RoleEnrollmentsMark are keys that are never used. They only record, by
	// existing, that the state file of a server, or its file of enrollments, is authenticated.
	RoleStateMark       Role = "state-authenticated"
	RoleEnrollmentsMark Role = "enrollments-authenticated"
	// RolePSKEncryption, RolePSKMAC and RolePSKWrapping are a set of pre-shared keys.
	// The prefix of their labels is the name of the set.
	RolePSKEncryption Role = "encryption"
	RolePSKMAC        Role = "mac"
	RolePSKWrapping   Role = "wrapping"
	// RolePSKRevealing has the same bytes as RolePSKWrapping, for the key exchanges
	// that bring keys into the memory of this process.
	RolePSKRevealing Role = "revealing"

	// RoleSealSession is the sealing key of session keys.
	RoleSealSession Role = "seal-session"
	// RoleSealWrapping is the sealing key of pre-shared wrapping keys.
	RoleSealWrapping Role = "seal-wrapping"
	// RoleSealMAC binds what is sealed to its context.
	RoleSealMAC Role = "seal-mac"
)

// DefaultPrefix is the first part of key labels unless another was chosen.
const DefaultPrefix = "msl"

// Label is the label of a key of this role: the prefix, a hyphen and the role.
func (r Role) Label(prefix string) string { return prefix + "-" + string(r) }

// Algorithm is the algorithm of keys that are created for the role, or 0 if the role does
// not exist. A server also accepts other signing keys for RoleIdentity, RoleCA and
// RoleAudit, and a device also accepts an HMACSHA256 key for RolePSKMAC.
func (r Role) Algorithm() Algorithm {
	switch r {
	case RoleIdentity:
		return RSASign2048
	case RoleIssuerEncryption, RoleServiceEncryption, RolePSKEncryption:
		return AES128CBC
	case RoleIssuerMAC, RoleServiceMAC, RoleStateMark, RoleEnrollmentsMark:
		return HMACSHA256
	case RoleIssuerWrapping:
		return AESWrap128
	case RoleIssuerRevealing, RolePSKRevealing:
		return AESReveal128
	case RolePSKMAC:
		return HMACSHA256Block
	case RolePSKWrapping:
		return AESUnwrap128
	case RoleCA, RoleAudit:
		return ECDSAP256
	case RoleSealSession:
		return SealSession256
	case RoleSealWrapping:
		return SealWrapping256
	case RoleSealMAC:
		return SealMAC256
	}
	return 0
}

// SealingRoles are the roles of the keys that [Store.Seal] and [Store.Unseal] use.
func SealingRoles() []Role { return []Role{RoleSealSession, RoleSealWrapping, RoleSealMAC} }

// SealedBy is the role of the key that seals keys of algorithm a, or "" if no store seals
// them: unsealed elsewhere, they could decrypt recorded traffic, or sign in their owner's
// name.
func (a Algorithm) SealedBy() Role {
	switch a {
	case AES128CBC, AES256CBC, HMACSHA256, HMACSHA256Block, AESCMAC128:
		return RoleSealSession
	case AESWrap128:
		return RoleSealWrapping
	}
	return ""
}

// ServerRoles are the roles of the keys that every server needs.
func ServerRoles() []Role {
	return append([]Role{
		RoleIdentity, RoleIssuerEncryption, RoleIssuerMAC, RoleServiceEncryption, RoleServiceMAC,
	}, SealingRoles()...)
}

// DeviceRoles are the roles of the keys that a device needs to keep its sessions.
func DeviceRoles() []Role { return append([]Role{RoleIdentity}, SealingRoles()...) }

// SealingLabel is the only label of sealing keys of algorithm a in a store with that
// prefix, or "" if a does not seal.
func SealingLabel(prefix string, a Algorithm) string {
	for _, r := range SealingRoles() {
		if r.Algorithm() == a {
			return r.Label(prefix)
		}
	}
	return ""
}

// LabelFits reports whether a key of algorithm a may have the label in a store with that
// prefix. The labels of the sealing roles are reserved for their algorithms, and these
// algorithms have no other label.
func LabelFits(prefix, label string, a Algorithm) bool {
	if a.Sealing() {
		return label == SealingLabel(prefix, a)
	}
	return !slices.ContainsFunc(SealingRoles(), func(r Role) bool { return r.Label(prefix) == label })
}
