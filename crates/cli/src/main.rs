//! The binary `monopod`.
fn main() {}
