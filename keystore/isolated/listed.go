package isolated

import (
	"encoding/json"

	"github.com/msl-hsm/msl-hsm/keystore"
)

// A listed key is a keystore.Info on its way to the parent. In JSON that has no form of a
// label that is not UTF-8, nor of an algorithm that is not known: keys of other software.
type listed struct {
	keystore.Info
	Label     []byte `json:"label"`
	Algorithm uint   `json:"algorithm"`
}

func encodeList(all []keystore.Info) ([]byte, error) {
	list := make([]listed, len(all))
	for i, k := range all {
		list[i] = listed{k, []byte(k.Label), uint(k.Algorithm)}
	}
	return json.Marshal(list)
}

func decodeList(text []byte) ([]keystore.Info, error) {
	var list []listed
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, err
	}
	all := make([]keystore.Info, len(list))
	for i, k := range list {
		all[i] = k.Info
		all[i].Label, all[i].Algorithm = string(k.Label), keystore.Algorithm(k.Algorithm)
	}
	return all, nil
}
