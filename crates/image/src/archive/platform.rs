//! Which of an index's manifests is for this machine.

use oci_spec::image::{Arch, Descriptor, Os, Platform};

/// `linux/ARCHITECTURE` of this machine, in Go's words, as images say it.
pub(crate) fn this_machine() -> String {
    format!("{}/{}", Os::Linux, Arch::default())
}

/// The order in which this machine prefers manifests; `None` if it cannot run one. Lower is better.
pub(crate) fn rank(descriptor: &Descriptor) -> Option<u32> {
    let platform = descriptor.platform().as_ref()?;
    if *platform.os() != Os::Linux || *platform.architecture() != Arch::default() {
        return None;
    }
    // The baseline runs on every machine of the architecture; amd64/v3 and the like may not.
    match (Arch::default(), platform.variant().as_deref()) {
        (_, None | Some("")) => Some(0),
        (Arch::Amd64, Some("v1")) | (Arch::ARM64, Some("v8")) | (Arch::ARM, Some("v7")) => Some(1),
        (Arch::ARM, Some("v6")) => Some(2),
        (Arch::ARM, Some("v5")) => Some(3),
        _ => None,
    }
}

/// For messages: `linux/arm64/v8`.
pub(crate) fn name(platform: &Platform) -> String {
    let base = format!("{}/{}", platform.os(), platform.architecture());
    match platform.variant() {
        Some(variant) => format!("{base}/{variant}"),
        None => base,
    }
}
