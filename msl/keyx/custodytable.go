package keyx

import (
	"github.com/msl-hsm/msl-hsm/keystore"
	"github.com/msl-hsm/msl-hsm/msl"
)

// A CustodyRow tells where the bytes of session keys exist in one key exchange,
// on one kind of key store, on one side.
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

// CustodyTable is what the key exchanges declare, with what the providers do.
func CustodyTable(providers ...keystore.Provider) []CustodyRow {
	var rows []CustodyRow
	for _, kind := range []custodyKind{
		{rsaMechanism, &AsymmetricWrapped{}},
		{string(JWERSA), &AsymmetricJOSE{Mechanism: JWERSA}},
		{string(JWEJSRSA), &AsymmetricJOSE{Mechanism: JWEJSRSA}},
		{string(JWKRSA), &AsymmetricJOSE{Mechanism: JWKRSA}},
		{string(JWKRSAES), &AsymmetricJOSE{Mechanism: JWKRSAES}},
		{pskKeyID, &SymmetricWrapped{}},
		{"", &DiffieHellman{}},
		{"", &Ladder{Form: JWELadder}},
		{"", &Ladder{Form: JWKLadder}},
		{"", &TPMImport{}},
		{"chip without AES", &TPMImport{Outside: struct{ keystore.Store }{}}},
	} {
		for _, p := range providers {
			for _, side := range []msl.Side{msl.RequestingSide, msl.RespondingSide} {
				kind, possible := kind.on(p, side)
				if !possible {
					continue
				}
				row := newRow(kind.exchange.Exposes(side), p, side)
				row.Scheme, row.Mechanism = kind.exchange.Scheme(), kind.mechanism
				rows = append(rows, row)
			}
		}
	}
	return rows
}

type custodyKind struct {
	mechanism string
	exchange  msl.KeyExchange
}

// on is the key exchange as one side does it with the keys of a provider, if it
// can.
func (k custodyKind) on(p keystore.Provider, side msl.Side) (custodyKind, bool) {
	switch x := k.exchange.(type) {
	case *TPMImport:
		return k, p.TPM == (side == msl.RequestingSide) && (p.TPM || x.Outside == nil)
	case *AsymmetricWrapped:
		if p.TPM {
			k.exchange = &AsymmetricDecrypted{}
		}
		return k, !p.TPM || side == msl.RequestingSide
	case *SymmetricWrapped:
		return k, !p.TPM
	}
	return k, !p.TPM || side == msl.RequestingSide
}

func newRow(e msl.Exposure, p keystore.Provider, side msl.Side) CustodyRow {
	row := CustodyRow{Provider: p.Name, Side: side, Why: e.Why, Where: "in the key store alone"}
	if e.Bytes {
		row.Custody, row.Where = msl.CustodyImported, "in this process for the exchange, in locked memory that is overwritten"
	}
	if row.Shared = row.Where; side == msl.RespondingSide {
		row.Shared = "in this process whenever a token is issued or opened, and in the token"
	}
	if p.InProcess {
		row.Where = "in this process for as long as the session is used"
		if row.Shared = row.Where; side == msl.RespondingSide {
			row.Shared += ", and in the token"
		}
	}
	return row
}
