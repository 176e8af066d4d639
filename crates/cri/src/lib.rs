//! The door for a kubelet and for crictl: the Container Runtime Interface, in front of the runtime.
//!
//! It translates and decides nothing: what runs, and for how long, is the client's to say. It does not serve
//! Kubernetes' API, and knows no object of it.
//!
//! Start reading at [`streaming`], where exec, attach and port-forward lead.
#![forbid(unsafe_code)]

pub mod streaming;
