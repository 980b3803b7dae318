package msl_test

import "github.com/msl-hsm/msl-hsm/msl"

// Exposes of a stand-in says that the test sees no more than it knows.
func (stubExchange) Exposes() msl.Exposure { return msl.Exposure{} }
