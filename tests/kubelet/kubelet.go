// Package kubelet pins what `run` builds: the kubelet, and a client for it.
package kubelet

import _ "k8s.io/kubernetes/cmd/kubelet/app"
