// nnp says with whose rights it runs: set-user-ID, it is how a test sees whether a container may gain some.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Printf("Effective uid: %d\n", os.Geteuid())
}
