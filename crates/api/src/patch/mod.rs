//! Strategic merge patch (kubernetes/community, `strategic-merge-patch.md`), which no crate offers.

mod keys;
mod order;
pub mod strategic;
