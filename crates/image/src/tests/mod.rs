//! Tests of whole layers and archives, all built in code. Unpacking needs root: owners, whiteouts, trusted xattrs.

mod archives;
mod attacks;
mod fake_registry;
mod images;
mod layers;
mod overlay;
mod registry;
mod registry_attacks;
mod saving;
mod support;
