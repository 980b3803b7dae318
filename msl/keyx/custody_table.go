package keyx

import (
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// A CustodyRow says where the bytes of session keys exist in one key exchange, on
// one kind of key store, on one side.
type CustodyRow struct {
	Scheme    string      `json:"scheme"`
	Mechanism string      `json:"mechanism,omitempty"`
	Provider  string      `json:"provider"`
	Side      msl.Side    `json:"side"`
	Custody   msl.Custody `json:"custody"` // the strictest mode that allows it
	Where     string      `json:"where"`   // in that mode
	Shared    string      `json:"shared"`  // in the shared mode
	Why       string      `json:"why"`
}

// CustodyTable returns what the key exchanges declare, for each kind of key store
// and each side.
func CustodyTable(providers ...keystore.Provider) []CustodyRow {
	var rows []CustodyRow
	for _, kind := range custodyKinds() {
		for _, p := range providers {
			for _, side := range []msl.Side{msl.RequestingSide, msl.RespondingSide} {
				x := kind.on(p, side)
				if x == nil {
					continue
				}
				row := newRow(x.Exposes(), p, side)
				row.Scheme, row.Mechanism = x.Scheme(), kind.mechanism
				rows = append(rows, row)
			}
		}
	}
	return rows
}

// An exposer is one side of a key exchange.
type exposer interface {
	Scheme() string
	Exposes() msl.Exposure
}

// A custodyKind is a kind of key exchange, with its implementations. A side that is not
// possible is nil.
type custodyKind struct {
	mechanism string
	requester exposer
	withTPM   exposer // a requester whose keys are in a TPM
	responder exposer
}

func custodyKinds() []custodyKind {
	kinds := []custodyKind{{rsaMechanism, &AsymmetricWrapped{}, &AsymmetricDecrypted{}, &AsymmetricWrapped{}}}
	for _, m := range []JOSEMechanism{JWERSA, JWEJSRSA, JWKRSA, JWKRSAES} {
		x := &AsymmetricJOSE{Mechanism: m}
		kinds = append(kinds, custodyKind{string(m), x, x, x})
	}
	kinds = append(kinds, custodyKind{pskKeyID, &SymmetricOfferer{}, nil, &SymmetricResponder{}},
		custodyKind{"", &DiffieHellman{}, &DiffieHellman{}, &DiffieHellman{}})
	for _, f := range []LadderForm{JWELadder, JWKLadder} {
		kinds = append(kinds, custodyKind{"", &LadderOfferer{Form: f}, &LadderOfferer{Form: f}, &LadderResponder{Form: f}})
	}
	return append(kinds, custodyKind{"", nil, &TPMOfferer{}, &TPMResponder{}},
		custodyKind{"chip without AES", nil, &TPMOfferer{Outside: struct{ keystore.Store }{}}, nil})
}

// on is one side of the key exchange with the keys of a provider, or nil.
func (k custodyKind) on(p keystore.Provider, side msl.Side) exposer {
	switch {
	case side == msl.RequestingSide && p.TPM:
		return k.withTPM
	case side == msl.RequestingSide:
		return k.requester
	case p.TPM: // has no peers
		return nil
	}
	return k.responder
}

func newRow(e msl.Exposure, p keystore.Provider, side msl.Side) CustodyRow {
	row := CustodyRow{Provider: p.Name, Side: side, Why: e.Why, Where: "in the key store alone"}
	if e.Bytes {
		row.Custody, row.Where = msl.CustodyImported, "in this process for the exchange, in locked memory that is overwritten"
	}
	if row.Shared = row.Where; side == msl.RespondingSide {
		row.Shared = "in this process whenever a token is issued or opened, and in the token"
	}
	if p.SessionsInProcess {
		row.Custody = msl.CustodyImported
	}
	if p.InProcess || p.SessionsInProcess {
		row.Where = "in this process for as long as the session is used"
		if row.Shared = row.Where; side == msl.RespondingSide {
			row.Shared += ", and in the token"
		}
	}
	return row
}
